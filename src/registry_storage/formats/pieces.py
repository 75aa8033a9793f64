"""Pieces of a blob and documents in it, decompressed within bounds."""

import enum
import hashlib
from collections.abc import Sequence

from .._ext import frames
from ..errors import FormatError
from .base import MAX_TOC_BYTES, Bytes, Compression, DecodeJob, LayerFormat


class Status(enum.IntEnum):
    """What became of a piece (`_ext/frames.pyi`)."""

    OK = 0
    TRUNCATED = 1
    CORRUPT = 2
    MISMATCH = 3
    TRAILING = 4
    NO_MEMORY = 5


_UNIT = {Compression.GZIP: "gzip member: ", Compression.ZSTD: "zstd frame: "}


def decode_piece(compression: Compression, piece: Bytes, inner_offset: int, size: int) -> bytearray:
    """`size` bytes of the decompressed piece from `inner_offset` on. Raises FormatError."""
    try:
        data = bytearray(size)
        status = frames.decode_into(compression, piece, inner_offset, data)
    except MemoryError:
        status = Status.NO_MEMORY
    if status:
        raise decode_error("piece", compression, status, inner_offset + size)
    return data


def decode_document(
    what: str, compression: Compression, data: Bytes, *, skip: int = 0, size: int, exact: bool = False
) -> bytes:
    """`size` decompressed bytes after the first `skip`; `exact`: and no more follow. Raises FormatError."""
    if skip + size > MAX_TOC_BYTES + (1 << 20):
        raise FormatError(f"{what}: wanted at most {MAX_TOC_BYTES} bytes, got {skip + size}")
    try:
        status, document = frames.decode_document(compression, data, skip, size, exact)
    except MemoryError:
        status, document = Status.NO_MEMORY, b""
    if status:
        raise decode_error(what, compression, status, skip + size)
    return document


def decode_and_digest(
    compression: Compression, span: Bytes, jobs: Sequence[DecodeJob]
) -> list[tuple[int, bytes]]:
    """Decode and verify many chunks in one call without the GIL; see `_ext/frames.pyi`."""
    try:
        return frames.decode_many(compression, span, jobs)
    except MemoryError:
        return [(Status.NO_MEMORY, b"")] * len(jobs)


def decode_each(layer_format: LayerFormat, span: Bytes, jobs: Sequence[DecodeJob]) -> list[tuple[int, bytes]]:
    """`LayerFormat.decode_many` by one `decode` after the other."""
    results: list[tuple[int, bytes]] = []
    view = memoryview(span)
    for at, piece_size, inner_offset, size, wanted in jobs:
        try:
            data = bytes(layer_format.decode(view[at : at + piece_size], inner_offset, size))
        except FormatError:
            results.append((Status.CORRUPT, b""))
            continue
        got = hashlib.sha256(data).digest()
        results.append((Status.OK, data) if got == wanted else (Status.MISMATCH, got))
    return results


def decode_error(what: str, compression: Compression, status: int, needed: int) -> FormatError:
    """The error for a status that is neither OK nor MISMATCH; `needed` counts decompressed bytes."""
    unit = _UNIT.get(compression, "")
    match status:
        case Status.TRUNCATED:
            got = "fewer before its end"
        case Status.CORRUPT:
            got = "a corrupt stream"
        case Status.TRAILING:
            got = "more input behind them"
        case _:
            got = "no memory"
    return FormatError(f"{what}: {unit}wanted {needed} decompressed bytes, got {got}")
