"""Where the content of a file is cut into chunks."""

from typing import Protocol

from .._ext import splitter
from .base import Bytes


class Chunker(Protocol):
    """For one file after the other."""

    def feed(self, data: Bytes) -> list[tuple[int, bool]]:
        """More of the file: (bytes, is a hole) of the chunks that are complete now."""

    def finish(self) -> list[tuple[int, bool]]:
        """The end of the file: its last chunks."""


class FixedChunker:
    """Chunks of `size` bytes; the last of a file may be smaller."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._open = 0

    def feed(self, data: Bytes) -> list[tuple[int, bool]]:
        """See `Chunker`."""
        count, self._open = divmod(self._open + len(data), self._size)
        return [(self._size, False)] * count

    def finish(self) -> list[tuple[int, bool]]:
        """See `Chunker`."""
        left, self._open = self._open, 0
        return [(left, False)] if left else []


def content_chunker(limit: int) -> Chunker:
    """Cuts where podman does (`_ext/splitter.pyx`), but never makes a chunk of more than `limit` bytes."""
    return splitter.Splitter(limit)


def crc64(data: Bytes, crc: int = 0) -> int:
    """The checksum of tar-split, going on from `crc`."""
    return splitter.crc64(data, crc)
