"""What the dynamic loader reads of an ELF file whatever the program does (elf(5), ld.so(8)).

Only 64-bit little-endian files are known, which is what x86_64, aarch64 and riscv64 run. Everything comes from images:
what does not fit into the file, or is too much, is left out.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

MAGIC = b"\x7fELF\x02\x01\x01"
"""64-bit, little-endian, version 1."""
HEAD_BYTES = 2048
"""Of a file: header and program headers are in it, or the file is left alone."""
MAX_SEGMENTS = 32
MAX_TABLES_BYTES = 1 << 20
"""Of one segment: symbols, strings and relocations, or the data that they change."""
MAX_DYNAMIC_BYTES = 8192
MAX_NEEDED = 64
MAX_NAME_BYTES = 255
MAX_PATHS_BYTES = 1024

_HEADER = struct.Struct("<16s2x2x4x8xQ8x4x2xHH")
_SEGMENT = struct.Struct("<IIQQ8xQ8x8x")
_TAG = struct.Struct("<qQ")
_LOAD, _DYNAMIC, _INTERPRETER = 1, 2, 3
_EXECUTABLE, _WRITABLE = 1, 2
_NULL, _NEEDED, _STRINGS, _RPATH, _RUNPATH = 0, 1, 5, 15, 29


class Span(NamedTuple):
    """A part of the file."""

    offset: int
    size: int


class _Segment(NamedTuple):
    kind: int
    flags: int
    offset: int
    address: int
    size: int


class Program:
    """A program or a library, as its head describes it."""

    def __init__(self, head: bytes, file_size: int) -> None:
        """`head`: the first HEAD_BYTES of the file, or all of it. What is no ELF file has no parts."""
        self._segments = [part for part in _segments(head) if part.offset + part.size <= file_size]

    def always_read(self) -> Iterator[Span]:
        """Tables before the code and data behind it."""
        for part in self._segments:
            tables = part.kind == _LOAD and part.offset == 0 and not part.flags & _EXECUTABLE
            data = part.kind == _LOAD and part.flags & _WRITABLE
            if (tables or data) and part.size:
                yield Span(part.offset, min(part.size, MAX_TABLES_BYTES))

    @property
    def interpreter(self) -> Span | None:
        """The path of the dynamic loader."""
        return self._one(_INTERPRETER, MAX_NAME_BYTES)

    @property
    def dynamic(self) -> Span | None:
        """What `Dynamic` reads."""
        return self._one(_DYNAMIC, MAX_DYNAMIC_BYTES)

    def at_address(self, address: int, size: int) -> Span | None:
        """Up to `size` bytes that will be loaded at an address."""
        for part in self._segments:
            if part.kind == _LOAD and part.address <= address < part.address + part.size:
                inside = address - part.address
                return Span(part.offset + inside, min(size, part.size - inside))
        return None

    def _one(self, kind: int, most: int) -> Span | None:
        for part in self._segments:
            if part.kind == kind and part.size:
                return Span(part.offset, min(part.size, most))
        return None


def _segments(head: bytes) -> Iterator[_Segment]:
    if len(head) < _HEADER.size or not head.startswith(MAGIC):
        return
    _, table, entry_size, count = _HEADER.unpack_from(head)
    if entry_size != _SEGMENT.size or count > MAX_SEGMENTS or table + count * entry_size > len(head):
        return
    for number in range(count):
        yield _Segment._make(_SEGMENT.unpack_from(head, table + number * entry_size))


class Dynamic:
    """The section that names what else is to be loaded; strings are given as addresses, for `Program.at_address`."""

    def __init__(self, data: bytes) -> None:
        strings = 0
        needed: list[int] = []
        paths: list[int] = []
        for tag, value in _TAG.iter_unpack(data[: len(data) - len(data) % _TAG.size]):
            if tag == _NULL:
                break
            if tag == _STRINGS:
                strings = value
            elif tag == _NEEDED and len(needed) < MAX_NEEDED:
                needed.append(value)
            elif tag in (_RPATH, _RUNPATH):
                paths = [value]
        self.needed = [strings + value for value in needed]
        """Names of libraries, each of at most MAX_NAME_BYTES."""
        self.paths = [strings + value for value in paths]
        """Where to look for them first: directories between colons, at most MAX_PATHS_BYTES."""
