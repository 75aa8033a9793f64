"""Which chunks of a layer are fetched ahead, in which order: what its image says that a workload reads."""

import logging
from bisect import bisect_left
from collections.abc import Sequence

from ..descriptor import Descriptor
from ..errors import FormatError
from ..formats.prefetch_ranges import PREFETCH_ANNOTATION, BlobRange, parse_ranges
from ..toc.index import TocIndex

_log = logging.getLogger(__name__)


def says_what_is_needed(index: TocIndex, descriptor: Descriptor) -> bool:
    """The image was made for a workload, or says that nothing is prioritized: no guess is better."""
    return PREFETCH_ANNOTATION in descriptor.annotations or bool(index.prefetch_end) or index.no_prefetch


def needed_chunks(index: TocIndex, descriptor: Descriptor) -> list[list[int]]:
    """Numbers of chunks in groups, the first needed first; holes are not in them.

    By the annotation of an optimized layer, else everything before the landmark, which may be nothing. Looks at every
    chunk, so it belongs into a thread.
    """
    text = descriptor.annotations.get(PREFETCH_ANNOTATION)
    if text is not None:
        try:
            return _groups(index, parse_ranges(text, descriptor.size))
        except FormatError as error:
            _log.warning("layer %s: %s; what stands before the landmark is fetched ahead", descriptor.digest, error)
    everything = _chunks_before(index, index.prefetch_end)
    return [[number for _, number in everything]] if everything else []


def _chunks_before(index: TocIndex, end: int) -> list[tuple[int, int]]:
    """(offset in the blob, number) of each chunk whose piece begins before `end`, in the order of the index."""
    found = []
    for number in range(index.chunk_count if end else 0):
        chunk = index.chunk(number)
        if not chunk.is_hole and chunk.blob_offset < end:
            found.append((chunk.blob_offset, number))
    return found


def _groups(index: TocIndex, ranges: Sequence[BlobRange]) -> list[list[int]]:
    chunks = sorted(_chunks_before(index, max((offset + size for offset, size in ranges), default=0)))
    groups = []
    for offset, size in ranges:
        begin, end = bisect_left(chunks, (offset, -1)), bisect_left(chunks, (offset + size, -1))
        groups.append([number for _, number in chunks[begin:end]])
    return [group for group in groups if group]
