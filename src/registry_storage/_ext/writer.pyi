"""Members and frames."""

from typing import final

from ..toc.index import Buffer

def compress_pieces(codec: int, level: int, span: Buffer, ends: list[int]) -> tuple[bytes, list[int]]:
    """Each piece of `span` as a gzip member (codec 2) or a zstd frame with checksum (4), one behind the other.

    `ends` ascend: piece i is ``span[ends[i - 1]:ends[i]]``, not empty. The second result is the compressed size of
    each. Level 1 to 12 (gzip) or 22 (zstd). Releases the GIL. Raises ValueError, MemoryError.
    """

@final
class FrameStream:
    """One zstd frame of unknown size; not for several threads at once."""

    def __init__(self, level: int) -> None: ...
    def feed(self, data: Buffer, last: bool = False) -> bytes:
        """Compressed bytes that are ready; with `last` all of them, and the frame has ended. Releases the GIL."""
