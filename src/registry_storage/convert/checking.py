"""A blob read through once: every chunk, the diffID, the blob's own digest."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Protocol

from ..digest import Digest
from ..errors import FormatError, RegistryStorageError
from ..formats.base import Compression, LayerFormat
from ..formats.unpacking import Unpacking
from ..formats.verified import decoded_chunks
from ..toc.chunk import Chunk
from ..toc.index import TocIndex

_SPAN_BYTES: Final = 4 << 20
_THREADS: Final = 2


class _Source(Protocol):
    @property
    def size(self) -> int: ...
    def read_at(self, offset: int, size: int) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Verified:
    """What was read and found right."""

    files_bytes: int
    """Of all files, holes included."""
    chunks: int
    """With bytes in the blob."""
    diff_id: Digest | None
    """Of the uncompressed tar; None: the compression is none that we know."""
    blob_digest: Digest


def check_blob(
    source: _Source, layer_format: LayerFormat, index: TocIndex, progress: Callable[[int], None] = lambda _: None
) -> Verified:
    """Compare every chunk with its digest in the index, and hash blob and tar. Blocks, with threads of its own.

    Raises FormatError, VerificationError (the first in the order of the blob), and what `source` raises.
    """
    chunks = sorted(
        (chunk for chunk in map(index.chunk, range(index.chunk_count)) if not chunk.is_hole),
        key=lambda chunk: (chunk.blob_offset, chunk.inner_offset),
    )
    compression = layer_format.compression
    unpacking = Unpacking(compression) if compression in (Compression.GZIP, Compression.ZSTD) else None
    blob_digest, tar_digest = hashlib.sha256(), hashlib.sha256()
    running: deque[Future[None]] = deque()
    ordered_running: deque[Future[None]] = deque()

    def in_order(data: bytes) -> None:
        blob_digest.update(data)
        if unpacking is not None:
            for block in unpacking.feed(data):
                tar_digest.update(block)

    with ThreadPoolExecutor(_THREADS, "check") as workers, ThreadPoolExecutor(1, "hash") as ordered:
        try:
            done = 0
            for start, end, inside in _spans(chunks, source.size):
                data = source.read_at(start, end - start)
                if len(data) != end - start:
                    raise FormatError(f"layer blob: wanted {end - start} bytes at {start}, got {len(data)}")
                running.append(workers.submit(_check, layer_format, data, start, inside))
                ordered_running.append(ordered.submit(in_order, data))
                done += end - start
                progress(done)
                while len(running) > 2 * _THREADS:
                    running.popleft().result()
                    ordered_running.popleft().result()
            for future in (*running, *ordered_running):
                future.result()
        finally:
            workers.shutdown(cancel_futures=True)
            ordered.shutdown(cancel_futures=True)
    if unpacking is not None:
        for block in unpacking.finish():
            tar_digest.update(block)
    return Verified(
        index.total_file_bytes,
        len(chunks),
        Digest(tar_digest.hexdigest()) if unpacking is not None else None,
        Digest(blob_digest.hexdigest()),
    )


def _spans(chunks: list[Chunk], size: int) -> Iterator[tuple[int, int, list[Chunk]]]:
    """The blob cut into spans (start, end, chunks) so that no piece is torn."""
    start, inside, end = 0, list[Chunk](), 0
    for chunk in chunks:
        if chunk.blob_offset - start >= _SPAN_BYTES and chunk.blob_offset >= end:
            yield from _steps(start, chunk.blob_offset, inside)
            start, inside = chunk.blob_offset, []
        inside.append(chunk)
        end = max(end, chunk.blob_offset + chunk.blob_size)
    yield from _steps(start, size, inside)


def _steps(start: int, end: int, inside: list[Chunk]) -> Iterator[tuple[int, int, list[Chunk]]]:
    """The span, without what no chunk is in as spans of their own."""
    used = max((chunk.blob_offset + chunk.blob_size for chunk in inside), default=start)
    if used > start:
        yield start, used, inside
    while used < end:
        step = min(end, used + _SPAN_BYTES)
        yield used, step, []
        used = step


def _check(layer_format: LayerFormat, data: bytes, start: int, chunks: list[Chunk]) -> None:
    for result in decoded_chunks(layer_format, data, start, chunks):
        if isinstance(result, RegistryStorageError):
            raise result


def check_tar(source: _Source, progress: Callable[[int], None] = lambda _: None) -> Digest:
    """The digest of a blob as it is."""
    digest = hashlib.sha256()
    for start in range(0, source.size, _SPAN_BYTES):
        end = min(source.size, start + _SPAN_BYTES)
        digest.update(source.read_at(start, end - start))
        progress(end)
    return Digest(digest.hexdigest())
