"""Batches of tar that are compressed at the same time and written in order."""

import hashlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import BinaryIO, Final

from ..formats.base import Compressor
from ..formats.chunker import crc64
from ..formats.tar.entry import TarEntry
from ..formats.verified import sha256_spans

IN_FLIGHT_BYTES: Final = 64 << 20
"""Of tar that is handed out and not written yet; one batch more may be under way."""


@dataclass(slots=True)
class PendingChunk:
    """A chunk on its way; numbers are in its batch until the batch is written."""

    piece: int
    inner_offset: int
    file_offset: int
    size: int
    is_hole: bool
    span: int
    blob_offset: int = 0
    blob_end: int = 0
    digest: bytes = b""


@dataclass(slots=True)
class PendingFile:
    """An entry on its way."""

    entry: TarEntry
    raw: bytes
    """Its headers, and the padding before them."""
    chunks: list[PendingChunk] = field(default_factory=list)
    digest: bytes | None = None
    crc: int = 0
    summer: "hashlib._Hash | None" = None
    """Of a file that lies in several batches; belongs to the ordered thread."""


@dataclass(slots=True)
class Batch:
    """Consecutive bytes of the tar, whole pieces."""

    data: bytearray = field(default_factory=bytearray)
    ends: list[int] = field(default_factory=list)
    chunks: list[PendingChunk] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)
    """What is to be hashed: (offset, size) in `data`."""
    whole_files: list[tuple[PendingFile, int]] = field(default_factory=list)
    """Files of several chunks, and the number of their span."""
    crcs: list[tuple[PendingFile, int, int]] = field(default_factory=list)
    parts: list[tuple[PendingFile, int, int]] = field(default_factory=list)
    """(file, offset, size) of files that go beyond this batch."""
    finished: list[PendingFile] = field(default_factory=list)
    """In the order of the tar."""


@dataclass(frozen=True, slots=True)
class _Packed:
    blob: bytes
    sizes: list[int]
    sums: list[bytes]


class Packer:
    """Gives batches to threads and takes their results in order, all in the caller's thread."""

    def __init__(
        self, compressor: Compressor, target: BinaryIO, jobs: int, finished: Callable[[PendingFile], None], *, crc: bool
    ) -> None:
        self._compressor = compressor
        self._target = target
        self._finished = finished
        self._crc = crc
        self._workers = ThreadPoolExecutor(jobs, "compress")
        self._ordered = ThreadPoolExecutor(1, "hash")
        self._queue: deque[tuple[Batch, int, Future[_Packed], Future[None]]] = deque()
        self._in_flight = 0
        self._diff_id = hashlib.sha256()
        self._blob_digest = hashlib.sha256()
        self.blob_size = 0
        self.tar_size = 0
        self.chunk_count = 0

    def submit(self, batch: Batch) -> None:
        """Hand out a batch; nobody changes it any more. Blocks while too much is under way."""
        size = len(batch.data)
        self.tar_size += size
        self._in_flight += size
        self._queue.append(
            (batch, size, self._workers.submit(self._pack, batch), self._ordered.submit(self._sum, batch))
        )
        while self._queue and (self._in_flight > IN_FLIGHT_BYTES or self._first_is_done()):
            self._collect()

    def drain(self) -> None:
        """Write everything that was handed out."""
        while self._queue:
            self._collect()

    def append(self, blob: bytes, tar: bytes) -> None:
        """Write what comes after the data; `tar` is what it decompresses to."""
        self._diff_id.update(tar)
        self.tar_size += len(tar)
        self._write(blob)

    @property
    def diff_id(self) -> "hashlib._Hash":
        """Of the tar so far, after `drain`."""
        return self._diff_id

    @property
    def blob_digest(self) -> "hashlib._Hash":
        """Of the blob so far."""
        return self._blob_digest

    def close(self) -> None:
        """End the threads; what is still under way is dropped."""
        self._workers.shutdown(cancel_futures=True)
        self._ordered.shutdown(cancel_futures=True)
        self._queue.clear()

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            # Raw files may take less; None is what a non-blocking one says.
            view = view[self._target.write(view) or 0 :]
        self._blob_digest.update(data)
        self.blob_size += len(data)

    def _pack(self, batch: Batch) -> _Packed:
        """In a worker thread; touches nothing but its batch."""
        view = memoryview(batch.data)
        blob, sizes = self._compressor.compress(view, batch.ends)
        sums = sha256_spans(view, batch.spans)
        if self._crc:
            for file, offset, size in batch.crcs:
                file.crc = crc64(view[offset : offset + size])
        return _Packed(blob, sizes, sums)

    def _sum(self, batch: Batch) -> None:
        """In the one thread that sees all batches in order."""
        view = memoryview(batch.data)
        self._diff_id.update(view)
        for file, offset, size in batch.parts:
            part = view[offset : offset + size]
            if file.summer is None:
                file.summer = hashlib.sha256()
            file.summer.update(part)
            if self._crc:
                file.crc = crc64(part, file.crc)

    def _first_is_done(self) -> bool:
        return self._queue[0][2].done() and self._queue[0][3].done()

    def _collect(self) -> None:
        batch, size, packing, summing = self._queue.popleft()
        packed = packing.result()
        summing.result()
        starts = [self.blob_size]
        for piece_size in packed.sizes:
            starts.append(starts[-1] + piece_size)
        self._write(packed.blob)
        for chunk in batch.chunks:
            chunk.blob_offset = starts[chunk.piece]
            chunk.blob_end = starts[chunk.piece + 1]
            chunk.digest = packed.sums[chunk.span]
        self.chunk_count += len(batch.chunks)
        for file, span in batch.whole_files:
            file.digest = packed.sums[span]
        for file in batch.finished:
            if file.summer is not None:
                file.digest = file.summer.digest()
            elif file.digest is None and file.chunks:
                file.digest = file.chunks[0].digest
            self._finished(file)
        self._in_flight -= size
