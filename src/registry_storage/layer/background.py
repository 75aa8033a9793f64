"""Fetches what nobody has asked for yet: a layer's prioritized files first, the rest when it is quiet."""

import logging
from collections import deque

import trio

from ..errors import RegistryStorageError
from .activity import Activity
from .layer import Layer

_log = logging.getLogger(__name__)

SLICE_BYTES = 2 << 20
"""Compressed bytes per request: long enough to fill a link, short enough to give way."""
QUIET_SECONDS = 2.0
"""How long no reader must have waited before the rest of a layer is fetched."""
RETRY_SECONDS = 30.0


class Background:
    """One worker for all layers; a layer is worked on once per time that it is wanted."""

    def __init__(self, activity: Activity, *, prefetch: bool, rest: bool) -> None:
        self._activity = activity
        self._prefetch = prefetch
        self._rest = rest
        self._prioritized: deque[Layer] = deque()
        self._remaining: deque[Layer] = deque()
        self._wanted: set[Layer] = set()
        self._wake = trio.Event()

    def want(self, layer: Layer, *, rest: bool = True) -> None:
        """The layer is in use. Not `rest`: somebody else brings what is not prioritized."""
        if layer in self._wanted:
            return
        self._wanted.add(layer)
        if self._prefetch and layer.index.prefetch_end:
            self._prioritized.append(layer)
        if self._rest and rest:
            self._remaining.append(layer)
        self._wake.set()

    def forget(self, layer: Layer) -> None:
        """Nobody uses the layer any more."""
        self._wanted.discard(layer)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            if self._prioritized:
                queue, work = self._prioritized, self._fetch_prioritized
            elif self._remaining:
                queue, work = self._remaining, self._fetch_rest
            else:
                self._wake = trio.Event()
                await self._wake.wait()
                continue
            layer = queue.popleft()
            try:
                await work(layer)
            except (RegistryStorageError, OSError) as error:
                name = layer.key.layer_digest
                _log.warning("layer %s: background fetch: %s; again in %d s", name, error, RETRY_SECONDS)
                await trio.sleep(RETRY_SECONDS)
                if layer in self._wanted and queue is self._remaining:
                    queue.append(layer)
            except Exception:
                _log.exception("layer %s: background fetch failed", layer.key.layer_digest)

    async def _fetch_prioritized(self, layer: Layer) -> None:
        """Everything before the landmark, at once: whoever reads it meanwhile waits for its turn."""
        end, numbers, size = layer.index.prefetch_end, [], 0
        for number in range(layer.index.chunk_count):
            chunk = layer.index.chunk(number)
            if not chunk.is_hole and chunk.blob_offset < end and not layer.content.is_present(number):
                numbers.append(number)
                size += chunk.blob_size
        if numbers:
            await layer.chunks.fill(numbers)
            _log.info("layer %s: prioritized files are here, %d bytes fetched", layer.key.layer_digest, size)

    async def _fetch_rest(self, layer: Layer) -> None:
        """All missing chunks in the order of the TOC, slice by slice, as long as it is quiet."""
        number, fetched = 0, 0
        while layer in self._wanted:
            await self._activity.quiet(QUIET_SECONDS)
            if self._prioritized:  # a layer that came later, but whose prioritized files go first
                self._remaining.appendleft(layer)
                return
            start = layer.missing_from(number)
            if start is None:
                break
            numbers, size, number = [], 0, start
            while number < layer.index.chunk_count and size < SLICE_BYTES:
                chunk = layer.index.chunk(number)
                if not layer.content.is_present(number):
                    numbers.append(number)
                    size += chunk.blob_size
                number += 1
            await layer.chunks.fill(numbers)
            fetched += size
        if fetched and layer in self._wanted:
            _log.info("layer %s: complete, %d bytes fetched", layer.key.layer_digest, fetched)
