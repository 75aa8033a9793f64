"""What arrived of a blob becomes chunks in a layer's content: decoded, verified, written, in a worker thread."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import trio

from ..cache.content import Content
from ..errors import RegistryStorageError
from ..formats.base import LayerFormat
from ..formats.verified import VerifiedChunk, decode_chunks
from ..toc.chunk import Chunk
from .loose import LooseChunks

_log = logging.getLogger(__name__)

TELL_UNWRITTEN_SECONDS = 60.0


@dataclass(slots=True)
class Kept:
    """What became of a batch; each of its chunks is in one of these."""

    written: list[int] = field(default_factory=list)
    """In their places, holes too."""
    loose: list[int] = field(default_factory=list)
    """In memory for a moment, since the disk could not take them."""
    refused: list[tuple[Chunk, RegistryStorageError]] = field(default_factory=list)
    """With the FormatError or VerificationError that says why."""


class Keeper:
    """Of one layer. Called in the event loop's thread."""

    def __init__(
        self,
        name: str,
        layer_format: LayerFormat,
        content: Content,
        loose: LooseChunks,
        workers: trio.CapacityLimiter,
    ) -> None:
        self._name = name
        self._format = layer_format
        self._content = content
        self._loose = loose
        self._workers = workers
        self._unwritten_told_until = -1.0

    async def keep(self, span: bytes, span_offset: int, chunks: Sequence[Chunk], holes: Sequence[Chunk]) -> Kept:
        """`span` is the blob from `span_offset` (bytes) on, and has the pieces of all `chunks`; `holes` are made, too.

        A hole that cannot be made is left out of the result: whoever reads it asks again.
        """
        kept = Kept()
        unwritten: list[tuple[Chunk, VerifiedChunk, OSError]] = []

        def decode_and_write() -> None:
            verified: list[tuple[Chunk, VerifiedChunk]] = []
            for chunk, result in zip(chunks, decode_chunks(self._format, span, span_offset, chunks), strict=True):
                if isinstance(result, RegistryStorageError):
                    kept.refused.append((chunk, result))
                else:
                    verified.append((chunk, result))
            for (chunk, data), problem in zip(verified, self._loose.write(self._content, verified), strict=True):
                if problem is None:
                    kept.written.append(chunk.number)
                else:
                    unwritten.append((chunk, data, problem))
            with suppress(OSError):
                for hole in holes:
                    self._content.write_hole(hole)
                    kept.written.append(hole.number)

        await trio.to_thread.run_sync(decode_and_write, limiter=self._workers)
        for chunk, data, _ in unwritten:
            self._loose.keep(self._content, chunk.number, data)
            kept.loose.append(chunk.number)
        if unwritten:
            self._tell_unwritten(unwritten[0][2])
        return kept

    def _tell_unwritten(self, error: OSError) -> None:
        now = trio.current_time()
        if now >= self._unwritten_told_until:
            self._unwritten_told_until = now + TELL_UNWRITTEN_SECONDS
            _log.warning("layer %s: the cache cannot be written: %s; readers are served from memory",
                         self._name, error.strerror)  # fmt: skip
