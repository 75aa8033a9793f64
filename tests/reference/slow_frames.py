"""What `_ext/frames.pyx` does, with zlib, zstandard and hashlib, one byte of input at a time."""

import hashlib
import zlib
from collections.abc import Sequence
from typing import Any

import zstandard

GZIP, ZSTD = 2, 4
OK, TRUNCATED, CORRUPT, MISMATCH, TRAILING = range(5)


def decompress(codec: int, piece: bytes) -> tuple[bytes, int]:
    """All that comes out of `piece`, and how it ends: OK (a whole member or frame), TRUNCATED or CORRUPT.

    What the library would have given together with an error is lost: less than `LOST` bytes.
    """
    out, engine = bytearray(), None
    for at in range(len(piece)):
        if engine is None:
            engine = _engine(codec)
        try:
            out += engine.decompress(piece[at : at + 1])
        except (zlib.error, zstandard.ZstdError):
            return bytes(out), CORRUPT
        if engine.eof:
            engine = None
    return bytes(out), OK if engine is None else TRUNCATED


LOST = 1024


def decode_piece(codec: int, piece: bytes, inner_offset: int, size: int) -> tuple[int, bytes]:
    """The status and, when it is OK, the bytes."""
    data, end = decompress(codec, piece)
    if len(data) >= inner_offset + size:
        return OK, data[inner_offset : inner_offset + size]
    return (CORRUPT if end == CORRUPT else TRUNCATED), b""


def decode_many(
    codec: int, span: bytes, jobs: Sequence[tuple[int, int, int, int, bytes]]
) -> list[tuple[int, bytes]]:
    """The same results as the kernel's."""
    results = []
    for offset, piece_size, inner_offset, size, wanted in jobs:
        status, data = decode_piece(codec, span[offset : offset + piece_size], inner_offset, size)
        if status == OK and hashlib.sha256(data).digest() != wanted:
            status, data = MISMATCH, hashlib.sha256(data).digest()
        results.append((status, data))
    return results


def decode_document(codec: int, data: bytes, skip: int, size: int, exact: bool) -> tuple[int, bytes]:
    """The same result as the kernel's."""
    status, document = decode_piece(codec, data, skip, size)
    if status == OK and exact:
        whole, end = decompress(codec, data)
        if end != OK or len(whole) != skip + size:
            return TRAILING, b""
    return status, document


def _engine(codec: int) -> Any:
    if codec == GZIP:
        return zlib.decompressobj(wbits=31)
    return zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
