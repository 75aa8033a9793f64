"""Bytes of a tar in order, in whatever pieces the parser wants them."""

from collections.abc import Iterator
from typing import BinaryIO, Protocol

from ...errors import FormatError


class TarBytes(Protocol):
    """What the parser of a tar reads from."""

    position: int
    """Bytes taken so far."""

    def take(self, size: int) -> bytes:
        """Exactly `size` bytes; raises FormatError where the tar ends before."""

    def take_block(self) -> bytes:
        """512 bytes, or fewer at the end."""

    def views(self, size: int) -> Iterator[memoryview]:
        """`size` bytes piece by piece; each is good until the next is asked for. Raises FormatError."""

    def rest(self) -> Iterator[bytes]:
        """Everything that is left."""


class BlockStream:
    """TarBytes over an iterator of blocks; `tee` gets every byte that is taken."""

    def __init__(self, blocks: Iterator[bytes], tee: BinaryIO | None = None) -> None:
        self._blocks = blocks
        self._tee = tee
        self._block = b""
        self._at = 0
        self.position = 0

    def _next(self) -> bool:
        self._block = next(self._blocks, b"")
        self._at = 0
        if self._tee is not None:
            self._tee.write(self._block)
        return bool(self._block)

    def take(self, size: int) -> bytes:
        """See `TarBytes`."""
        data = self._up_to(size)
        if len(data) < size:
            raise _cut(self.position)
        return data

    def take_block(self) -> bytes:
        """See `TarBytes`."""
        return self._up_to(512)

    def _up_to(self, size: int) -> bytes:
        at = self._at
        if at + size <= len(self._block):
            self._at = at + size
            self.position += size
            return self._block[at : at + size]
        parts: list[bytes] = []
        left = size
        while left:
            if self._at == len(self._block) and not self._next():
                break
            part = self._block[self._at : self._at + left]
            self._at += len(part)
            left -= len(part)
            parts.append(part)
        self.position += size - left
        return b"".join(parts)

    def views(self, size: int) -> Iterator[memoryview]:
        """See `TarBytes`."""
        while size:
            if self._at == len(self._block) and not self._next():
                raise _cut(self.position)
            part = memoryview(self._block)[self._at : self._at + size]
            self._at += len(part)
            self.position += len(part)
            size -= len(part)
            yield part

    def rest(self) -> Iterator[bytes]:
        """See `TarBytes`."""
        while self._at < len(self._block) or self._next():
            part = self._block[self._at :]
            self._at = len(self._block)
            self.position += len(part)
            yield part


class FileStream(BlockStream):
    """TarBytes over a file that is read at any place."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        super().__init__(iter(lambda: file.read(1 << 18), b""))

    def seek(self, position: int) -> None:
        """Go on at `position`, bytes from the start of the file."""
        start = self.position - self._at
        if start <= position <= start + len(self._block):
            self._at = position - start
        else:
            self._file.seek(position)
            self._block, self._at = b"", 0
        self.position = position


def _cut(position: int) -> FormatError:
    return FormatError(f"tar: cut off after {position} bytes")
