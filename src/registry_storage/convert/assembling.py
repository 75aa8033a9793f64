"""The layer's tar cut into pieces, chunks and batches, by size alone."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from ..formats.base import Bytes
from ..formats.chunker import Chunker
from ..formats.tar.entry import TarEntry
from .packing import Batch, Packer, PendingChunk, PendingFile

BATCH_BYTES: Final = 1 << 20
"""A batch ends at the first piece that begins behind so many bytes. Changes no byte of the result."""
_HEADERS_BYTES: Final = 1 << 20
"""Headers without a payload between them get a piece of their own after so many bytes."""


@dataclass(frozen=True, slots=True)
class Cutting:
    """Where pieces begin and end."""

    exact: bool
    """A piece is a chunk and nothing else (podman); otherwise padding and headers follow it in its piece (stargz)."""
    min_piece: int = 0
    """Chunks share a piece until it has so many bytes of tar."""


class Assembler:
    """Takes entries in the layer's order and hands out batches."""

    def __init__(self, packer: Packer, chunker: Chunker, cutting: Cutting) -> None:
        self._packer = packer
        self._chunker = chunker
        self._cutting = cutting
        self._batch = Batch()
        self._piece_start = 0
        self._piece_has_payload = False
        self._payload_end = 0
        self._chunk_start = 0
        self._file: PendingFile | None = None
        self._file_start = 0
        self._file_crosses = False
        self._padding = b""

    def add(
        self,
        entry: TarEntry,
        content: Iterable[Bytes],
        padding: Callable[[], bytes],
        *,
        own_piece: bool = False,
        chunker: Chunker | None = None,
    ) -> None:
        """An entry; `content` has `entry.size` bytes, then `padding` is asked for.

        With `own_piece` its payload begins a piece in any case. `chunker`: for this entry alone.
        """
        self._cut_if_long()
        self._batch.data += entry.raw
        file = PendingFile(entry, self._padding + entry.raw)
        if entry.size:
            if own_piece:
                self._cut(len(self._batch.data))
            self._payload(file, content, chunker or self._chunker)
        self._padding = padding()
        self._batch.data += self._padding
        self._batch.finished.append(file)

    def tail(self, data: bytes) -> bytes:
        """Bytes behind the last entry; with the padding before them, for tar-split."""
        self._cut_if_long()
        self._batch.data += data
        before, self._padding = self._padding, b""
        return before + data

    def finish(self) -> None:
        """The last batch."""
        self._cut(len(self._batch.data))
        self._flush(len(self._batch.data))

    def _cut_if_long(self) -> None:
        size = len(self._batch.data)
        if size - max(self._payload_end, self._piece_start) >= _HEADERS_BYTES:
            self._cut(size)

    def _payload(self, file: PendingFile, content: Iterable[Bytes], chunker: Chunker) -> None:
        self._file, self._file_start, self._file_crosses = file, len(self._batch.data), False
        self._chunk_start = self._file_start
        offset = 0
        for block in content:
            self._batch.data += block
            for size, is_hole in chunker.feed(block):
                self._chunk(file, offset, size, is_hole)
                offset += size
        for size, is_hole in chunker.finish():
            self._chunk(file, offset, size, is_hole)
            offset += size
        end = self._payload_end = self._chunk_start
        start, size = self._file_start, end - self._file_start
        batch = self._batch
        if self._file_crosses:
            batch.parts.append((file, start, size))
        else:
            batch.crcs.append((file, start, size))
            if len(file.chunks) > 1:
                batch.whole_files.append((file, len(batch.spans)))
                batch.spans.append((start, size))
        self._file = None
        if self._cutting.exact:
            self._cut(end)

    def _chunk(self, file: PendingFile, offset: int, size: int, is_hole: bool) -> None:
        """The next `size` bytes from `_chunk_start` on are a chunk."""
        start = self._chunk_start
        shared = self._piece_has_payload and start - self._piece_start < self._cutting.min_piece
        if self._cutting.exact or not shared:
            self._cut(start)
        start, batch = self._chunk_start, self._batch
        chunk = PendingChunk(
            len(batch.ends), start - self._piece_start, offset, size, is_hole, len(batch.spans)
        )
        file.chunks.append(chunk)
        batch.chunks.append(chunk)
        batch.spans.append((start, size))
        self._piece_has_payload = True
        self._chunk_start = start + size

    def _cut(self, at: int) -> None:
        """A piece ends at `at`, bytes of the batch's data, unless it would be empty."""
        if at > self._piece_start:
            self._batch.ends.append(at)
            self._piece_start = at
        self._piece_has_payload = False
        if at >= BATCH_BYTES:
            self._flush(at)

    def _flush(self, at: int) -> None:
        """Hand out what stands before `at`; the rest begins the next batch."""
        batch, fresh = self._batch, Batch()
        if at < len(batch.data):
            fresh.data += memoryview(batch.data)[at:]
            del batch.data[at:]
        self._batch = fresh
        self._piece_start = 0
        self._payload_end = 0
        if self._file is not None:
            if at > self._file_start:
                batch.parts.append((self._file, self._file_start, at - self._file_start))
                self._file_crosses = True
                self._file_start = 0
            else:
                self._file_start -= at
            self._chunk_start -= at
        if batch.data or batch.finished:
            self._packer.submit(batch)
