"""Fetches what nobody has asked for yet: a layer's prioritized files at once, the rest when it is quiet."""

import logging
import math
from collections.abc import Awaitable, Callable

import trio

from ..errors import RegistryStorageError
from ..formats.prefetch_ranges import PREFETCH_ANNOTATION
from .activity import Activity, GaveWayError
from .layer import Layer
from .memory import give_back_memory
from .needed import needed_chunks

_log = logging.getLogger(__name__)

MIN_SLICE_BYTES = 256 << 10
MAX_SLICE_BYTES = 16 << 20
"""Compressed bytes per request of the rest: it begins small, and doubles as long as nobody comes in between."""
START_SECONDS = 5.0
"""How long nobody must have needed the link, nor come for a layer, before the rest is fetched: a container that starts
has the link for itself, even when it thinks."""
QUIET_SECONDS = 0.25
"""The same to go on after a reader has come: longer than the pause between two reads."""
RETRY_SECONDS = 30.0
MAX_AT_ONCE = 20_000
"""Chunks that are looked at without a thread: some milliseconds."""


class Background:
    """A layer is worked on once per time that it is wanted."""

    def __init__(self, activity: Activity, *, prefetch: bool, rest: bool, has_room: Callable[[], bool]) -> None:
        """`has_room`: the cache would not have to give up something for it."""
        self._has_room = has_room
        self._activity = activity
        self._prefetch = prefetch
        self._starting = False
        self.starting: Callable[[bool], Awaitable[object]] | None = None
        """Is told when the container of an optimized image begins to start, and when it has surely started."""
        self._rest = rest
        self._wanted: set[Layer] = set()
        self._begun = False
        """Whether it has been quiet since the last layer was wanted."""
        self._put_prioritized, self._prioritized = trio.open_memory_channel[Layer](math.inf)
        self._put_remaining, self._remaining = trio.open_memory_channel[Layer](math.inf)

    def want(self, layer: Layer, *, rest: bool = True) -> None:
        """The layer is in use. Not `rest`: somebody else brings what is not prioritized."""
        if layer in self._wanted:
            return
        self._wanted.add(layer)
        self._begun = False
        self._activity.touch()
        if self._prefetch and (layer.index.prefetch_end or PREFETCH_ANNOTATION in layer.descriptor.annotations):
            self._put_prioritized.send_nowait(layer)
        if self._rest and rest:
            self._put_remaining.send_nowait(layer)

    def forget(self, layer: Layer) -> None:
        """Nobody uses the layer any more."""
        self._wanted.discard(layer)

    async def run(self) -> None:
        """Until cancelled: the prioritized files of all layers side by side, the rest of one layer after the other."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._fetch_rests)
            async for layer in self._prioritized:
                if self.starting is not None and PREFETCH_ANNOTATION in layer.descriptor.annotations:
                    nursery.start_soon(self._tell_start, self.starting)
                nursery.start_soon(self._fetch_prioritized, layer)

    async def _tell_start(self, tell: Callable[[bool], Awaitable[object]]) -> None:
        if self._starting:
            return
        self._starting = True
        try:
            await tell(True)
            await self._activity.quiet(START_SECONDS)
            await tell(False)
        finally:
            self._starting = False

    async def _fetch_prioritized(self, layer: Layer) -> None:
        """What a workload is known to read: whoever reads it meanwhile waits for his turn."""
        name = layer.key.layer_digest
        try:
            with self._activity.prefetching():
                if layer.index.chunk_count > MAX_AT_ONCE:
                    needed = await trio.to_thread.run_sync(needed_chunks, layer.index, layer.descriptor)
                else:
                    needed = needed_chunks(layer.index, layer.descriptor)
                groups = [[n for n in group if not layer.content.is_present(n)] for group in needed]
                count = sum(map(len, groups))
                if not count or not self._has_room():
                    return
                await layer.chunks.fill_in_order(groups)
        except (RegistryStorageError, OSError) as error:
            _log.warning("layer %s: prioritized files: %s", name, error)
        except Exception:
            _log.exception("layer %s: fetching prioritized files failed", name)
        else:
            _log.info("layer %s: prioritized files are here, %d chunks fetched", name, count)

    async def _fetch_rests(self) -> None:
        async for layer in self._remaining:
            name = layer.key.layer_digest
            try:
                await self._fetch_rest(layer)
            except (RegistryStorageError, OSError) as error:
                _log.warning("layer %s: background fetch: %s; again in %d s", name, error, RETRY_SECONDS)
                await trio.sleep(RETRY_SECONDS)
                if layer in self._wanted:
                    self._put_remaining.send_nowait(layer)
            except Exception:
                _log.exception("layer %s: background fetch failed", name)

    async def _fetch_rest(self, layer: Layer) -> None:
        """All missing chunks in the order of the TOC, slice by slice, as long as it is quiet."""
        number, fetched, limit = 0, 0, MIN_SLICE_BYTES
        while layer in self._wanted and self._has_room():
            if await self._activity.quiet(QUIET_SECONDS if self._begun else START_SECONDS):
                limit = MIN_SLICE_BYTES
            self._begun = True
            start = layer.missing_from(number)
            if start is None:
                break
            numbers, size, number = [], 0, start
            while number < layer.index.chunk_count and size < limit:
                chunk = layer.index.chunk(number)
                if not layer.content.is_present(number):
                    numbers.append(number)
                    size += chunk.blob_size
                number += 1
            try:
                await layer.chunks.fill(numbers, giving_way=True)
            except GaveWayError:
                number = start
            else:
                fetched += size
                limit = min(2 * limit, MAX_SLICE_BYTES)
        if fetched:
            give_back_memory()
        if fetched and layer in self._wanted and self._has_room():
            _log.info("layer %s: complete, %d bytes fetched", layer.key.layer_digest, fetched)
