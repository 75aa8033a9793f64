"""What a workload reads of a layer's files, in order, and what that means for the layout of the layer."""

import itertools
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from ..formats.prefetch_ranges import BlobRange
from ..formats.toc_writer import ChunkRecord

UNREAD_PART: Final = 1 / 32
"""Of the bytes that are read, so many more may be fetched for the sake of fewer requests."""
PARTLY_SIZE: Final = 256 << 10
"""Smaller files are fetched whole."""
PARTLY_READ: Final = 0.9
"""A larger file of which less is read is read in parts."""
HARDLY_READ: Final = 0.5
"""One of which less is read stays behind the landmark: whoever fetches what stands before it would fetch it whole."""
PARTLY_CHUNK_SIZE: Final = 64 << 10
"""Most bytes of a chunk of a file that is read in parts, where chunks have a fixed size."""

MAX_LINKS: Final = 8
"""Hard links to hard links that are followed: tars are not known to have any."""


class FileAccess(NamedTuple):
    """Bytes of a file that were read at one time."""

    path: str
    """Cleaned, as `os.fsdecode` gives it."""
    offset: int
    size: int | None
    """None: to the end of the file, as far as anybody knows."""


def through_links(accesses: Iterable[FileAccess], links: Mapping[str, str]) -> tuple[FileAccess, ...]:
    """The same with the paths that hard links mean; `links` may lead on to links, and, hostile, in circles."""

    def target(path: str) -> str:
        for _ in range(MAX_LINKS):
            if path not in links:
                break
            path = links[path]
        return path

    return tuple(access._replace(path=target(access.path)) for access in accesses)


def read_parts(accesses: Iterable[FileAccess], sizes: Mapping[str, int]) -> dict[str, float]:
    """Which part of each file, 0 to 1, is read; of files in `sizes` that are large enough to be read in parts."""
    touched: dict[str, list[tuple[int, int]]] = {}
    for path, offset, size in accesses:
        whole = sizes.get(path, 0)
        if whole >= PARTLY_SIZE and offset < whole:
            touched.setdefault(path, []).append((offset, whole if size is None else min(offset + size, whole)))
    return {path: _covered(spans) / sizes[path] for path, spans in touched.items()}


def _covered(spans: list[tuple[int, int]]) -> int:
    total = reached = 0
    for start, end in sorted(spans):
        if end > reached:
            total += end - max(start, reached)
            reached = end
    return total


def first_files(prioritized: Sequence[str], parts: Mapping[str, float]) -> tuple[str, ...]:
    """Those that stand before the landmark: first what is read whole, then what is read in parts, each in order."""
    whole = [path for path in prioritized if parts.get(path, 1.0) >= PARTLY_READ]
    partly = [path for path in prioritized if HARDLY_READ <= parts.get(path, 1.0) < PARTLY_READ]
    return (*whole, *partly)


def blob_ranges(
    accesses: Iterable[FileAccess], chunks: Mapping[str, Sequence[ChunkRecord]]
) -> list[BlobRange]:
    """The pieces of the blob that hold what is read, in ranges that are worth a request each, first read first.

    `chunks`: those of each file, in order. The smallest gaps are closed, as long as `UNREAD_PART` allows it.
    """
    spans: dict[int, BlobRange] = {}
    for path, offset, size in accesses:
        of_file = chunks.get(path, ())
        start = max(0, bisect_right(of_file, offset, key=lambda chunk: chunk.file_offset) - 1)
        for chunk in itertools.islice(of_file, start, None):
            if size is not None and chunk.file_offset >= offset + size:
                break
            if not chunk.is_hole:
                spans.setdefault(chunk.blob_offset, (chunk.blob_offset, chunk.blob_end - chunk.blob_offset))
    turns = {offset: turn for turn, offset in enumerate(spans)}
    ordered = sorted(spans.values())
    closed = _gaps_to_close(ordered)
    ranges: list[tuple[int, BlobRange]] = []
    for position, (offset, size) in enumerate(ordered):
        turn = turns[offset]
        if position in closed:
            before, (begin, _) = ranges.pop()
            ranges.append((min(before, turn), (begin, offset + size - begin)))
        else:
            ranges.append((turn, (offset, size)))
    return [part for _, part in sorted(ranges)]


def _gaps_to_close(ordered: Sequence[BlobRange]) -> set[int]:
    """The positions of spans that share a range with the one before them."""
    left = int(sum(size for _, size in ordered) * UNREAD_PART)
    gaps = sorted((after[0] - sum(before), at) for at, (before, after) in enumerate(itertools.pairwise(ordered), 1))
    closed = set()
    for gap, position in gaps:
        left -= gap
        if left < 0:
            break
        closed.add(position)
    return closed
