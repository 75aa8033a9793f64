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

    def want(self, layer: Layer) -> None:
        """The layer is in use."""
        if layer in self._wanted:
            return
        self._wanted.add(layer)
        if self._prefetch and layer.index.prefetch_end:
            self._prioritized.append(layer)
        if self._rest:
            self._remaining.append(layer)
        self._wake.set()

    def forget(self, layer: Layer) -> None:
        """Nobody uses the layer any more."""
        self._wanted.discard(layer)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            if self._prioritized:
                layer, pause = self._prioritized.popleft(), 0.0
                end: int | None = layer.index.prefetch_end
            elif self._remaining:
                layer, pause, end = self._remaining.popleft(), QUIET_SECONDS, None
            else:
                self._wake = trio.Event()
                await self._wake.wait()
                continue
            try:
                await self._fetch(layer, end, pause)
            except (RegistryStorageError, OSError) as error:
                name = layer.key.layer_digest
                _log.warning("layer %s: background fetch: %s; again in %d s", name, error, RETRY_SECONDS)
                await trio.sleep(RETRY_SECONDS)
                if layer in self._wanted and end is None:
                    self._remaining.append(layer)
            except Exception:
                _log.exception("layer %s: background fetch failed", layer.key.layer_digest)

    async def _fetch(self, layer: Layer, blob_end: int | None, pause: float) -> None:
        """All missing chunks of `layer` that begin before `blob_end`, in the order of the TOC."""
        number, fetched = 0, 0
        while layer in self._wanted:
            await self._activity.quiet(pause)
            if pause and self._prioritized:  # a layer that came later, but whose prioritized files go first
                self._remaining.appendleft(layer)
                return
            start = layer.missing_from(number)
            if start is None:
                break
            numbers, size, number = [], 0, start
            while number < layer.index.chunk_count and size < SLICE_BYTES:
                chunk = layer.index.chunk(number)
                if blob_end is not None and chunk.blob_offset >= blob_end and not chunk.is_hole:
                    break
                if not layer.content.is_present(number):
                    numbers.append(number)
                    size += chunk.blob_size
                number += 1
            if not numbers:
                break
            await layer.chunks.fill(numbers)
            fetched += size
        if fetched and layer in self._wanted:
            what = "complete" if blob_end is None else "prioritized files are here"
            _log.info("layer %s: %s, %d bytes fetched", layer.key.layer_digest, what, fetched)
