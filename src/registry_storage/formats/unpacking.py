"""The tar in a layer blob of any compression, as a stream of blocks."""

from collections.abc import Callable, Iterator
from typing import Final, Protocol

from .._ext import unpack
from ..errors import FormatError
from .base import Compression

READ_BYTES: Final = 1 << 18
BLOCK_BYTES: Final = 1 << 20

_MAGICS: Final = (
    (b"\x1f\x8b", Compression.GZIP),
    (b"\x28\xb5\x2f\xfd", Compression.ZSTD),
    (b"BZh", Compression.BZIP2),
    (b"\xfd7zXZ\0", Compression.XZ),
)
_SKIPPABLE_FRAMES: Final = range(0x184D2A50, 0x184D2A60)


def detect_compression(start: bytes) -> Compression:
    """What a stream that begins with these bytes (8 are enough) is compressed with; NONE: nothing known."""
    for magic, compression in _MAGICS:
        if start.startswith(magic):
            return compression
    # A zstd stream may begin with a skippable frame (RFC 8878 section 3.1.2).
    if len(start) >= 4 and int.from_bytes(start[:4], "little") in _SKIPPABLE_FRAMES:
        return Compression.ZSTD
    return Compression.NONE


class Readable(Protocol):
    """A file, or what is read like one."""

    def read(self, size: int, /) -> bytes:
        """Some bytes, about `size` of them; none at the end."""


def unpacked_blocks(source: Readable, progress: Callable[[int], None]) -> Iterator[bytes]:
    """The decompressed stream in blocks of up to `BLOCK_BYTES`; `progress` gets the bytes taken from `source`.

    Raises FormatError: another compression than gzip and zstd, a corrupt or cut stream.
    """
    taken = 0

    def read() -> bytes:
        nonlocal taken
        data = source.read(READ_BYTES)
        taken += len(data)
        progress(taken)
        return data

    data = read()
    while data and len(data) < 8:
        more = read()
        if not more:
            break
        data += more
    compression = detect_compression(data)
    if compression is Compression.NONE:
        while data:
            yield data
            data = read()
        return
    if compression not in (Compression.GZIP, Compression.ZSTD):
        raise FormatError(f"layer: wanted gzip, zstd or no compression, got {compression.name.lower()}")
    unpacking = Unpacking(compression)
    while data:
        yield from unpacking.feed(data)
        data = read()
    yield from unpacking.finish()


class Unpacking:
    """A whole gzip or zstd stream, decompressed as it comes."""

    def __init__(self, compression: Compression) -> None:
        self._name = compression.name.lower()
        self._unpacker = unpack.Unpacker(compression)
        self._taken = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The blocks that more input gives. Raises FormatError."""
        try:
            yield from _unpack(self._unpacker, data)
        except ValueError:
            raise FormatError(f"layer: a corrupt {self._name} stream, behind byte {self._taken}") from None
        self._taken += len(data)

    def finish(self) -> Iterator[bytes]:
        """What the library still holds although all input is used up. Raises FormatError: cut off."""
        yield from self.feed(b"")
        if not self._unpacker.complete:
            raise FormatError(f"layer: the {self._name} stream is cut off after {self._taken} bytes")


def _unpack(unpacker: unpack.Unpacker, data: bytes) -> Iterator[bytes]:
    block = unpacker.feed(data, BLOCK_BYTES)
    while block or not unpacker.hungry:
        if block:
            yield block
        if unpacker.hungry:
            if len(block) < BLOCK_BYTES:
                return
            block = unpacker.feed(b"", BLOCK_BYTES)
        else:
            block = unpacker.more(BLOCK_BYTES)
