"""Pieces compressed into members and frames, each of which decompresses alone."""

from .._ext import writer
from .base import Bytes, Compression


def compress_pieces(compression: Compression, level: int, span: Bytes, ends: list[int]) -> tuple[bytes, list[int]]:
    """All pieces of `span`, one behind the other, and the compressed size of each; releases the GIL.

    `ends`: where each piece ends, ascending. Raises ValueError for a level that the compression does not know and for
    an empty piece.
    """
    return writer.compress_pieces(compression, level, span, ends)


class FrameStream:
    """One zstd frame whose content comes little by little."""

    def __init__(self, level: int) -> None:
        self._stream = writer.FrameStream(level)
        self._parts: list[bytes] = []
        self.size = 0
        """Bytes of content so far."""

    def feed(self, data: Bytes) -> None:
        """More content."""
        self.size += len(data)
        if packed := self._stream.feed(data):
            self._parts.append(packed)

    def finish(self) -> bytes:
        """The whole frame."""
        self._parts.append(self._stream.feed(b"", True))
        return b"".join(self._parts)
