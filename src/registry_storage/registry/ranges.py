"""Byte ranges: which pieces of a blob share one request, and the headers (RFC 9110 section 14)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_CONTENT_RANGE = re.compile(r"bytes\s+([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class MergedRange:
    """One range to request, which covers the pieces ``pieces[first:end]``."""

    offset: int
    """Byte position in the blob."""
    size: int
    """Bytes."""
    first: int
    end: int


def merge(pieces: Sequence[tuple[int, int]], gap_bytes: int, max_bytes: int) -> list[MergedRange]:
    """Merge `pieces`, (offset, size) sorted by offset, into as few ranges as are worth it.

    Neighbours share a range where at most `gap_bytes` unwanted bytes lie between them (what the link carries
    in one round trip) and the range stays within `max_bytes`. A piece is never split: one larger than
    `max_bytes` is a range of its own. Pieces may overlap or repeat. Raises ValueError for unsorted or
    negative ones.
    """
    ranges: list[MergedRange] = []
    start = end = first = 0
    previous = -1
    for number, (offset, size) in enumerate(pieces):
        if offset < 0 or size < 0 or offset < previous:
            raise ValueError(f"piece {number}: wanted pieces sorted by offset, got ({offset}, {size})")
        previous = offset
        if number and offset - end <= gap_bytes and max(end, offset + size) - start <= max_bytes:
            end = max(end, offset + size)
            continue
        if number and offset + size <= end:  # wholly inside an oversized piece
            continue
        if number:
            ranges.append(MergedRange(start, end - start, first, number))
        start, end, first = offset, offset + size, number
    if pieces:
        ranges.append(MergedRange(start, end - start, first, len(pieces)))
    return ranges


def range_header(offset: int, size: int) -> str:
    """The value of a ``Range`` header for `size` (≥ 1) bytes at `offset`."""
    return f"bytes={offset}-{offset + size - 1}"


def parse_content_range(text: str) -> tuple[int, int, int | None] | None:
    """(offset, size, total or None where the server does not say) of a ``Content-Range``; None: malformed."""
    match = _CONTENT_RANGE.fullmatch(text.strip())
    if not match:
        return None
    first, last = int(match[1]), int(match[2])
    total = None if match[3] == "*" else int(match[3])
    if last < first or (total is not None and last >= total):
        return None
    return first, last - first + 1, total
