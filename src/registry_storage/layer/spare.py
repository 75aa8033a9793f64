"""What a starting container will probably read, fetched while no reader needs the link."""

import logging
from collections import deque
from collections.abc import Callable

import trio

from ..errors import RegistryStorageError
from .activity import Activity
from .ahead import reach_bytes
from .layer import Layer
from .union import Place

_log = logging.getLogger(__name__)

MAX_WAITING = 256
"""Files; what comes when so many wait is left out."""
ROUND_TRIPS = 4
"""What the link carries in so many of them is one request: a reader who comes waits behind it for as long, at most."""


class SpareTime:
    """One file after the other. Used from the event loop's thread only."""

    def __init__(self, activity: Activity, has_room: Callable[[], bool]) -> None:
        """`has_room`: the cache would not have to give up something for it."""
        self._activity = activity
        self._has_room = has_room
        self._waiting: deque[tuple[Layer, list[int]]] = deque()
        self._came = trio.Event()

    def bring(self, place: Place, most: int) -> None:
        """Fetch the whole file when there is time, if that is not more than so many compressed bytes."""
        layer, index = place.layer, place.layer.index
        numbers = range(*index.chunk_range(place.inode, 0, place.size))
        if len(self._waiting) < MAX_WAITING and place.compressed_bytes <= most:
            self._waiting.append((layer, [number for number in numbers if layer.chunks.is_absent(number)]))
            self._came.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            while self._waiting:
                await self._bring(*self._waiting.popleft())
            self._came = trio.Event()
            await self._came.wait()

    async def _bring(self, layer: Layer, numbers: list[int]) -> None:
        try:
            while numbers and self._has_room():
                await self._activity.no_reader()
                most, part, size = ROUND_TRIPS * reach_bytes(layer.source.link), [], 0
                while numbers and size < most:
                    number = numbers.pop(0)
                    if layer.chunks.is_absent(number):
                        part.append(number)
                        size += layer.index.chunk(number).blob_size
                if part:
                    await layer.chunks.fill(part)
        except (RegistryStorageError, OSError) as error:
            _log.debug("layer %s: a program is not fetched ahead: %s", layer.key.layer_digest, error)
