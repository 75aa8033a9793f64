"""The content of one entry of a tar."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ..base import Bytes
from .entry import TarEntry
from .parser import BLOCK
from .stream import TarBytes

_ZEROS: Final = memoryview(bytes(1 << 18))


@dataclass(slots=True)
class SourceEntry:
    """An entry whose content has not been read yet."""

    entry: TarEntry
    stream: TarBytes

    def content(self) -> Iterator[Bytes]:
        """`entry.size` bytes; to be gone through once, and before `padding`."""
        if self.entry.sparse is None:
            yield from self.stream.views(self.entry.stored_size)
            return
        at = 0
        for offset, size in self.entry.sparse:
            yield from _zeros(offset - at)
            yield from self.stream.views(size)
            at = offset + size
        yield from _zeros(self.entry.size - at)

    def padding(self) -> bytes:
        """What fills the last block of the content."""
        padding = self.stream.take(-self.entry.stored_size % BLOCK)
        return padding if self.entry.sparse is None else bytes(-self.entry.size % BLOCK)

    def skip(self) -> None:
        """Go past the content and the padding."""
        for _ in self.stream.views(self.entry.stored_size + -self.entry.stored_size % BLOCK):
            pass


def _zeros(size: int) -> Iterator[memoryview]:
    while size > 0:
        yield _ZEROS[:size]
        size -= len(_ZEROS)
