"""Which bytes of a layer's blob a workload needs, in order: an annotation of ours, which other readers ignore.

The value is ``offset+size,offset+size,…`` in decimal: bytes of the blob, first needed first. It is a hint and nothing
more: what is fetched is verified like everything else, so a wrong one costs time and never shows a wrong byte.
"""

import itertools
import re
from collections.abc import Sequence
from typing import Final

from ..errors import FormatError

PREFETCH_ANNOTATION: Final = "registry-storage.prefetch"
MAX_RANGES: Final = 4096
MAX_TEXT_BYTES: Final = 64 << 10
WRITTEN_TEXT_BYTES: Final = 16 << 10
"""Manifests are fetched before anything else and may have many layers, so less is written than is read."""

_RANGE: Final = re.compile(r"(0|[1-9][0-9]{0,15})\+([1-9][0-9]{0,15})", re.ASCII)

BlobRange = tuple[int, int]
"""(offset, size) in the blob."""


def format_ranges(ranges: Sequence[BlobRange]) -> str:
    """The annotation's value; ranges beyond its length, which are the last needed, are left out."""
    parts: list[str] = []
    length = 0
    for offset, size in ranges[:MAX_RANGES]:
        part = f"{offset}+{size}"
        length += len(part) + 1
        if length > WRITTEN_TEXT_BYTES:
            break
        parts.append(part)
    return ",".join(parts)


def parse_ranges(text: str, blob_size: int) -> tuple[BlobRange, ...]:
    """The ranges, inside the blob of `blob_size` bytes, none over another. Raises FormatError."""
    what = f"annotation {PREFETCH_ANNOTATION}"
    if len(text) > MAX_TEXT_BYTES:
        raise FormatError(f"{what}: wanted at most {MAX_TEXT_BYTES} characters, got {len(text)}")
    parts = text.split(",")
    if len(parts) > MAX_RANGES:
        raise FormatError(f"{what}: wanted at most {MAX_RANGES} ranges, got {len(parts)}")
    ranges = []
    for number, part in enumerate(parts):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise FormatError(f"{what}: range {number}: wanted offset+size, got {part[:100]!r}")
        offset, size = int(match[1]), int(match[2])
        if offset + size > blob_size:
            raise FormatError(f"{what}: range {number}: wanted bytes of 0 to {blob_size}, got {size} at {offset}")
        ranges.append((offset, size))
    for before, after in itertools.pairwise(sorted(ranges)):
        if sum(before) > after[0]:
            raise FormatError(f"{what}: {after[1]} at {after[0]}: wanted no byte twice, got {before[1]} at {before[0]}")
    return tuple(ranges)
