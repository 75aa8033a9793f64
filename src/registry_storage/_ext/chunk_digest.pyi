"""sha256 of many spans in one call; owner: formats/verified.py."""

from collections.abc import Sequence

from typing_extensions import Buffer

def sha256_spans(data: Buffer, spans: Sequence[tuple[int, int]]) -> bytes:
    """The sha256 sums, 32 bytes each, of the spans (offset, size) of `data`, in bytes and in their order.

    Releases the GIL; `data` may not change meanwhile.
    ValueError: a span outside `data`. MemoryError: libcrypto or the allocation failed.
    """
