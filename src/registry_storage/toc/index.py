"""The packed index of a layer: built once from the TOC, kept on disk, read in place."""

import hashlib
import mmap
from typing import Final, TypeAlias

from .._ext import toc_builder, toc_index
from ..errors import FormatError
from .chunk import Chunk
from .entry import Attributes

Buffer: TypeAlias = bytes | bytearray | memoryview | mmap.mmap

MAX_TOC_BYTES: Final = 1 << 30
"""Of the uncompressed JSON."""
MAX_ENTRIES: Final = 10_000_000

_HEADER_BYTES: Final = 256
_SEALED_BYTES: Final = 224
"""Of the header; the sha256 of everything else fills the rest of it."""

_PROBLEMS: Final = {
    1: "the text ends inside a value",
    2: "not JSON",
    3: "a broken escape",
    4: "nested too deep",
    5: "too long",
    6: "a value of the wrong type",
    7: "an integer beyond 64 bits",
    11: "something stands after the document",
    12: "missing",
    13: "stands there twice",
    14: "wanted version 1, got {number}",
    15: "more than the limit allows",
    16: "not a valid value",
    17: "out of range: {number}",
    18: "{number} is outside the layer's data",
    19: "missing",
    20: "the root must be a directory",
    21: "lies below something that is not a directory",
    22: "there is no such entry to link to",
    23: "a hard link to a directory",
    24: "hard links in a circle",
    25: "a chunk that follows no regular file",
    26: "a chunk of another file than the one before it",
    27: "{number} is not where the chunk before it ends",
    28: "{number} goes beyond the end of the file",
    29: "the chunks end at {number}, before the file does",
    30: "{number} makes a chunk larger than 1 GiB",
    31: "too long",
    32: "holds a NUL",
    33: "{number} bytes of files are too many",
    34: "too many attributes",
    35: "the index would become too large",
    41: "a path of more than 4096 bytes",
    42: "a name of more than 255 bytes",
    44: "a path with '..'",
    45: "holds a NUL",
}
"""Words for the statuses of _ext/toc_builder.pyx."""
_SYNTAX: Final = frozenset({1, 2, 3, 4, 6, 11})
"""Problems whose place in the text is worth telling."""


def build_index(
    toc_json: Buffer, *, blob_size: int, toc_offset: int, max_entries: int = MAX_ENTRIES
) -> bytes:
    """The packed index of a layer.

    `toc_offset` is where the layer's data ends in the blob of `blob_size` bytes: at the TOC, or at the end
    when the TOC is kept elsewhere. At most `max_entries` entries, and as many inodes below the root (parents
    that the TOC leaves out count). The same arguments give the same bytes.

    Raises FormatError, with the entry and the field, for a TOC that breaks its format (estargz.md, "TOC") or
    the limits in `_ext/toc_builder.pyx`.
    """
    if not 0 <= toc_offset <= blob_size < 1 << 63:
        raise FormatError(f"TOC offset: wanted 0 to the blob's {blob_size} bytes, got {toc_offset}")
    try:
        return toc_builder.build(toc_json, blob_size, toc_offset, max_entries)
    except toc_builder.TocError as error:
        raise _format_error(error) from None


def _format_error(error: toc_builder.TocError) -> FormatError:
    where = "TOC"
    if error.entry is not None:
        where = f"TOC entry {error.entry}"
        if error.name is not None:
            where += f" ({error.name.decode(errors='backslashreplace')!r:.300})"
    if error.field is not None:
        where += f": {error.field}"
    problem = _PROBLEMS[error.status].format(number=error.number)
    if error.status in _SYNTAX:
        problem += f", at byte {error.position}"
    return FormatError(f"{where}: {problem}", entry=error.entry, field=error.field)


class TocIndex:
    """Answers about one layer from its packed index, which it holds and never changes.

    Inode 0 is the root directory. A number that the layer does not have raises IndexError; asking a file for
    its children, or the like, raises ValueError. Safe to use from several threads.
    """

    __slots__ = ("_reader", "buffer")

    def __init__(self, buffer: Buffer, *, verify: bool = True) -> None:
        """Raises FormatError when `buffer` is no intact index; `verify` False trusts its checksum."""
        try:
            self._reader = toc_index.Reader(buffer)
        except ValueError as error:
            raise FormatError(f"index: {error}") from None
        self.buffer = buffer
        if verify:
            whole = memoryview(buffer)
            digest = hashlib.sha256(whole[:_SEALED_BYTES])
            digest.update(whole[_HEADER_BYTES:])
            if digest.digest() != whole[_SEALED_BYTES:_HEADER_BYTES]:
                raise FormatError("index: its checksum does not match")

    @property
    def inode_count(self) -> int:
        return self._reader.inode_count

    @property
    def chunk_count(self) -> int:
        return self._reader.chunk_count

    @property
    def content_size(self) -> int:
        """Bytes of the sparse content file."""
        return self._reader.content_size

    @property
    def total_file_bytes(self) -> int:
        """Sizes of all regular files together."""
        return self._reader.total_file_bytes

    @property
    def blob_size(self) -> int:
        """Bytes of the compressed blob."""
        return self._reader.blob_size

    @property
    def toc_offset(self) -> int:
        """Where the layer's data ends in the blob."""
        return self._reader.toc_offset

    @property
    def prefetch_end(self) -> int:
        """The blob before this offset is prioritized; 0: the layer says nothing about it."""
        return self._reader.prefetch_end

    @property
    def no_prefetch(self) -> bool:
        """The layer says that nothing is prioritized."""
        return self._reader.no_prefetch

    def lookup(self, directory: int, name: bytes) -> int | None:
        """The inode of `name` in `directory`, or None."""
        return self._reader.lookup(directory, name)

    def attributes(self, inode: int) -> Attributes:
        return Attributes._make(self._reader.attributes(inode))

    def mode(self, inode: int) -> int:
        """Type bits and permissions."""
        return self._reader.mode(inode)

    def read_link(self, inode: int) -> bytes:
        """The target of a symbolic link."""
        return self._reader.read_link(inode)

    def child_count(self, directory: int) -> int:
        return self._reader.child_count(directory)

    def child(self, directory: int, position: int) -> tuple[bytes, int]:
        """Name and inode; the positions 0 to child_count - 1 never change."""
        return self._reader.child(directory, position)

    def children(self, directory: int, start: int, limit: int) -> list[tuple[bytes, int]]:
        """Up to `limit` names with their inodes from position `start` on, sorted by name."""
        return self._reader.children(directory, start, limit)

    def parent(self, directory: int) -> int:
        """The inode of the directory above; the root is its own parent."""
        return self._reader.parent(directory)

    def path(self, inode: int) -> bytes:
        """A path from the root, without a leading slash, for messages: searches, except for directories."""
        return self._reader.path(inode)

    def xattrs(self, inode: int) -> tuple[tuple[bytes, bytes], ...]:
        """Names and values of all extended attributes."""
        return self._reader.xattrs(inode)

    def xattr(self, inode: int, name: bytes) -> bytes | None:
        """The value of one extended attribute, or None."""
        return next((value for known, value in self._reader.xattrs(inode) if known == name), None)

    def content_offset(self, inode: int) -> int:
        """Where a regular file starts in the content file."""
        return self._reader.content_offset(inode)

    def chunk_range(self, inode: int, file_offset: int, size: int) -> tuple[int, int]:
        """Numbers of the first chunk and of the one after the last that `size` bytes at `file_offset` touch.

        What lies past the end of the file is left out; equal numbers: nothing is left.
        """
        return self._reader.chunk_range(inode, file_offset, size)

    def chunk(self, number: int) -> Chunk:
        return Chunk._make(self._reader.chunk(number))

    def owner_of_chunk(self, number: int) -> int:
        """The inode of the file that a chunk belongs to."""
        return self._reader.owner_of_chunk(number)
