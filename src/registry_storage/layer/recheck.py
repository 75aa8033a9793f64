"""What is on disk already: hashed again before its first use, since nobody knows who wrote it."""

import logging
from collections.abc import Callable, Sequence

import trio

from .. import metrics
from ..cache.content import Content
from ..errors import VerificationError
from ..formats.verified import verify_chunk
from ..toc.chunk import Chunk

_log = logging.getLogger(__name__)

BATCH_BYTES = 8 << 20
TELL_SECONDS = 60.0


class Recheck:
    """Of one layer. Used in the event loop's thread; hashing happens in others."""

    def __init__(
        self,
        name: str,
        content: Content,
        workers: trio.CapacityLimiter,
        path: Callable[[Chunk], str],
        ready: Callable[[Sequence[int]], None],
    ) -> None:
        """`path`: of the file that a chunk belongs to, for messages. `ready`: told of the chunks that may be served."""
        self._name = name
        self._content = content
        self._workers = workers
        self._path = path
        self._ready = ready
        self._told_until = -1.0

    def told(self) -> None:
        """The log says already that chunks may be damaged."""
        self._told_until = trio.current_time() + TELL_SECONDS

    async def missing(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        """Those of `chunks` that are not here, after holes were made and what is on disk was hashed again."""
        missing, clean, batch, size = [], [], [], 0
        for chunk in chunks:
            if chunk.is_hole and self._content.is_hole_clean(chunk):
                clean.append(chunk.number)
            elif chunk.is_hole or self._content.is_present(chunk.number):
                batch.append(chunk)
                size += chunk.size
                if size >= BATCH_BYTES:
                    missing += await self._damaged(batch)
                    batch, size = [], 0
            else:
                missing.append(chunk)
        if clean:
            self._ready(clean)
        if batch:
            missing += await self._damaged(batch)
        return sorted(missing, key=lambda chunk: chunk.number)

    async def _damaged(self, chunks: list[Chunk]) -> list[Chunk]:
        def hash_again() -> list[Chunk]:
            damaged = []
            for chunk in chunks:
                if chunk.is_hole:
                    self._content.write_hole(chunk)
                    continue
                try:
                    verify_chunk(self._content.read_chunk(chunk), chunk.digest_raw)
                except (VerificationError, OSError):
                    damaged.append(chunk)
            return damaged

        damaged = await trio.to_thread.run_sync(hash_again, limiter=self._workers)
        bad = {chunk.number for chunk in damaged}
        self._ready([chunk.number for chunk in chunks if chunk.number not in bad])
        if damaged:
            self._content.forget(sorted(bad))
            metrics.DAMAGED_CHUNKS.inc(len(damaged))
            self._tell(damaged)
        return damaged

    def _tell(self, chunks: Sequence[Chunk]) -> None:
        """Once a minute: where one chunk is damaged, many may be."""
        level = logging.WARNING if trio.current_time() >= self._told_until else logging.DEBUG
        if level == logging.WARNING:
            self.told()
        _log.log(
            level, "layer %s: %s: chunk %d is damaged on disk; it will be fetched again (and %d more)",
            self._name, self._path(chunks[0]), chunks[0].number, len(chunks) - 1,
        )  # fmt: skip
