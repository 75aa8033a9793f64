"""Chunks whose digest matched: the only bytes that may enter the cache or a reply."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import final

from .._ext import chunk_digest
from ..digest import Digest
from ..errors import RegistryStorageError, VerificationError
from .base import Bytes, LayerFormat, PieceOfBlob
from .pieces import Status, decode_error

BATCH_BYTES = 32 << 20
"""Decompressed bytes that `decoded_chunks` holds at once, unless one piece has more (four times as much then)."""

_KEY = object()
_DIGEST_SIZE = 32


@final
class VerifiedChunk:
    """A chunk's bytes and the digest that they have.

    Made only by the functions of this module, after the digest of these very bytes was computed and matched.
    """

    __slots__ = ("_data", "_digest_raw")

    def __init__(self, data: bytes, digest_raw: bytes, *, key: object) -> None:
        if key is not _KEY:
            raise TypeError("a VerifiedChunk comes from verify_chunk or decode_chunks")
        self._data = data
        self._digest_raw = digest_raw

    @property
    def data(self) -> bytes:
        """The bytes."""
        return self._data

    @property
    def digest_raw(self) -> bytes:
        """The 32 bytes of the sha256 sum of `data`."""
        return self._digest_raw

    @property
    def digest(self) -> Digest:
        """The sha256 digest of `data`."""
        return Digest.from_raw(self._digest_raw)

    def __len__(self) -> int:
        return len(self._data)

    def __repr__(self) -> str:
        return f"VerifiedChunk({len(self._data)} bytes, {self.digest})"


def verify_chunk(data: bytes, wanted_raw: bytes, what: str = "chunk") -> VerifiedChunk:
    """`data` as a VerifiedChunk when its sha256 is `wanted_raw` (32 bytes); raises VerificationError.

    `what` names it in the error. Data of some size are hashed without the GIL.
    """
    if not isinstance(data, bytes):
        raise TypeError(f"{what}: wanted bytes, which nobody can change, got {type(data).__name__}")
    got_raw = hashlib.sha256(data).digest()
    if got_raw != wanted_raw:
        raise _mismatch(what, wanted_raw, got_raw)
    return VerifiedChunk(data, wanted_raw, key=_KEY)


def sha256_spans(data: Bytes, spans: Sequence[tuple[int, int]]) -> list[bytes]:
    """The sha256 (32 bytes) of each span (offset, size), in one call without the GIL; ValueError: one outside."""
    sums = chunk_digest.sha256_spans(data, spans)
    return [sums[at : at + _DIGEST_SIZE] for at in range(0, len(sums), _DIGEST_SIZE)]


def decode_chunks(
    layer_format: LayerFormat, span: Bytes, span_offset: int, chunks: Sequence[PieceOfBlob]
) -> list[VerifiedChunk | RegistryStorageError]:
    """Decode and verify the chunks whose pieces are in `span`, in one call without the GIL.

    `span` is the blob from `span_offset` (bytes) on. One result per chunk, in their order: the chunk, or the
    FormatError or VerificationError that names it; one broken chunk does not spoil the others. Chunks of one
    piece are decompressed once. Call it in a worker thread. All of them are in memory at once, and a small span
    may hold very much: use `decoded_chunks` where the sizes come from a TOC that nobody vouches for.

    Raises ValueError for a hole and for a chunk whose piece is not in the span: mistakes of the caller.
    """
    jobs = []
    for chunk in chunks:
        if chunk.is_hole:
            raise ValueError(f"chunk {chunk.number}: a hole has nothing to decode")
        at = chunk.blob_offset - span_offset
        if at < 0 or at + chunk.blob_size > len(span):
            raise ValueError(
                f"chunk {chunk.number}: wanted blob bytes {chunk.blob_offset} to "
                f"{chunk.blob_offset + chunk.blob_size}, got {span_offset} to {span_offset + len(span)}"
            )
        jobs.append((at, chunk.blob_size, chunk.inner_offset, chunk.size, chunk.digest_raw))
    results: list[VerifiedChunk | RegistryStorageError] = []
    outcomes = layer_format.decode_many(span, jobs)
    for chunk, (status, payload) in zip(chunks, outcomes, strict=True):
        if status == Status.OK:
            results.append(VerifiedChunk(payload, chunk.digest_raw, key=_KEY))
            continue
        what = f"chunk {chunk.number} at blob offset {chunk.blob_offset}"
        if status == Status.MISMATCH:
            results.append(_mismatch(what, chunk.digest_raw, payload))
        else:
            needed = chunk.inner_offset + chunk.size
            results.append(decode_error(what, layer_format.compression, status, needed))
    return results


def decoded_chunks(
    layer_format: LayerFormat, span: Bytes, span_offset: int, chunks: Sequence[PieceOfBlob]
) -> Iterator[VerifiedChunk | RegistryStorageError]:
    """`decode_chunks`, a batch of about `BATCH_BYTES` after the other: drop each result before the next.

    Chunks of one piece should stand together, as in the chunk table, so that it is decompressed once.
    """
    first = size = 0
    for at, chunk in enumerate(chunks):
        new_piece = at > 0 and chunk.blob_offset != chunks[at - 1].blob_offset
        limit = BATCH_BYTES if new_piece else 4 * BATCH_BYTES
        if at > first and size + chunk.size > limit:
            yield from decode_chunks(layer_format, span, span_offset, chunks[first:at])
            first, size = at, 0
        size += chunk.size
    yield from decode_chunks(layer_format, span, span_offset, chunks[first:])


def _mismatch(what: str, wanted_raw: bytes, got_raw: bytes) -> VerificationError:
    return VerificationError(what, wanted=f"sha256:{wanted_raw.hex()}", got=f"sha256:{got_raw.hex()}")
