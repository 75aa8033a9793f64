"""The content file of a plain layer, written while its files arrive."""

import os
from array import array
from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path

from ..errors import FormatError
from ..toc.index import TocIndex

MAX_CONTENT_BYTES = 1 << 43
"""Holes included; that of the index (`_ext/toc_build.pxd`)."""
_FLUSH_BYTES = 1 << 20
_TELL_BYTES = 8 << 20
_PAGE = 4096
_WORD = 8


class ContentWriter:
    """Puts every file where the index will place it, unless the tar names one twice (`settle`)."""

    def __init__(self, path: Path, grew: Callable[[int], None]) -> None:
        """`grew` is told how many bytes were written, from time to time; what it raises ends the writing."""
        self._grew = grew
        self._untold = 0
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._buffer = bytearray()
        self._end = 0
        """Bytes of the file so far, those in the buffer included."""
        # Where each chunk is: in the tar (ascending), and in the file.
        self._tar_offsets = array("Q")
        self._places = array("Q")

    def close(self) -> None:
        """Give the file back."""
        os.close(self._file)

    def begin(self, size: int) -> None:
        """A file of `size` bytes, at least 1; the rule is that of `_ext/toc_finish.pxd`, place_content.

        Raises FormatError.
        """
        if size > MAX_CONTENT_BYTES - self._end:
            raise FormatError(f"tar: files: wanted at most {MAX_CONTENT_BYTES} bytes together, got more")
        self._skip(-self._end % (_PAGE if size >= _PAGE else _WORD))

    def chunk(self, tar_offset: int) -> None:
        """What follows is a chunk that begins there in the tar."""
        self._tar_offsets.append(tar_offset)
        self._places.append(self._end)

    def data(self, data: bytes | memoryview) -> None:
        """The next bytes of the file."""
        self._buffer += data
        self._end += len(data)
        if len(self._buffer) >= _FLUSH_BYTES:
            self._flush()

    def hole(self, size: int) -> None:
        """`size` zeros, which take no space where there are many."""
        self._skip(size)

    def settle(self, index: TocIndex) -> None:
        """Bring everything to where `index` says it is, and give the file its final size. Raises FormatError."""
        self._flush()
        self._tell()
        moves = [
            (place, chunk.content_offset, chunk.size)
            for number in range(index.chunk_count)
            if not (chunk := index.chunk(number)).is_hole
            and (place := self._place(chunk.blob_offset)) != chunk.content_offset
        ]
        # Places only come nearer to the start when files are left out, so nothing is overwritten before it was moved.
        for place, offset, size in moves:
            if offset > place:
                raise FormatError(f"content: a file belongs at {offset}, behind its place {place}")
            self._move(place, offset, size)
        os.ftruncate(self._file, index.content_size)

    def _place(self, tar_offset: int) -> int:
        at = bisect_left(self._tar_offsets, tar_offset)
        if at == len(self._tar_offsets) or self._tar_offsets[at] != tar_offset:
            raise FormatError(f"content: no chunk begins at byte {tar_offset} of the tar")
        return self._places[at]

    def _move(self, source: int, target: int, size: int) -> None:
        while size:
            data = os.pread(self._file, min(size, _FLUSH_BYTES), source)
            if not data:
                raise FormatError(f"content: the file ends before byte {source}")
            _write(self._file, data, target)
            source, target, size = source + len(data), target + len(data), size - len(data)

    def _skip(self, size: int) -> None:
        if size < _PAGE:
            self.data(bytes(size))
        else:
            self._flush()
            self._end += size

    def _flush(self) -> None:
        _write(self._file, self._buffer, self._end - len(self._buffer))
        self._untold += len(self._buffer)
        if self._untold >= _TELL_BYTES:
            self._tell()
        self._buffer.clear()

    def _tell(self) -> None:
        told, self._untold = self._untold, 0
        self._grew(told)


def _write(file: int, data: bytes | bytearray, offset: int) -> None:
    with memoryview(data) as view:
        at = 0
        while at < len(view):
            at += os.pwrite(file, view[at:], offset + at)
