"""What `_ext/chunk_digest.pyx` does, with hashlib."""

import hashlib
from collections.abc import Sequence


def sha256_spans(data: bytes, spans: Sequence[tuple[int, int]]) -> bytes:
    """The same result as the kernel's; spans inside `data` only."""
    return b"".join(hashlib.sha256(data[offset : offset + size]).digest() for offset, size in spans)
