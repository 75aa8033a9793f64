"""Decode pieces of a layer blob; owner: formats/pieces.py.

Codecs: 2 gzip, 4 zstd. Status: 0 ok; 1 truncated, the input ends before the wanted bytes; 2 corrupt, not a
valid stream (RFC 1952, RFC 8878; zstd windows up to 128 MiB) before the wanted bytes are complete; 3 another
digest; 4 trailing, more input than the document; 5 no memory.

All release the GIL for the work and may run in several threads at once. No buffer may change meanwhile.
ValueError: an unknown codec, a position outside the buffer. MemoryError: a size that cannot be allocated.
"""

from collections.abc import Sequence

from typing_extensions import Buffer

def decode_into(codec: int, piece: Buffer, inner_offset: int, out: Buffer) -> int:
    """Fill `out` (writable) with the decompressed bytes from `inner_offset` on; the status (0, 1, 2, 5).

    `inner_offset` counts bytes of the decompressed piece. After an error the content of `out` is undefined.
    """

def decode_many(
    codec: int, span: Buffer, jobs: Sequence[tuple[int, int, int, int, bytes]]
) -> list[tuple[int, bytes]]:
    """Decode and verify chunks: (piece offset in `span`, piece size, inner offset, size, wanted sha256) each.

    The results, in the order of the jobs: (0, the `size` bytes), (3, the sha256 found), (1, 2 or 5, nothing).
    Chunks with equal piece offset and piece size are decoded in one pass over the piece.
    """

def decode_document(codec: int, data: Buffer, skip: int, size: int, exact: bool) -> tuple[int, bytes]:
    """The `size` decompressed bytes after the first `skip`; (0, bytes) or (1, 2, 4 or 5, nothing).

    With `exact` the data must decompress to `skip + size` bytes, all of it (status 4 otherwise).
    Memory is touched only as far as data are decoded.
    """
