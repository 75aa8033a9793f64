"""The kernels `frames` and `chunk_digest` beside their slow twins."""

import hashlib
import zlib
from typing import NamedTuple

import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from registry_storage._ext import chunk_digest, frames
from tests.fakes.layer_blobs import skippable
from tests.reference import slow_digest, slow_frames
from tests.reference.slow_frames import CORRUPT, GZIP, MISMATCH, OK, ZSTD

CODECS = st.sampled_from([GZIP, ZSTD])


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    """Nothing, noise, or repetitions that need several deflate or zstd blocks."""
    part = draw(st.binary(max_size=200))
    return part * draw(st.sampled_from([0, 1, 1, 7, 1000]))


def pack(codec: int, text: bytes, variant: int) -> bytes:
    if codec == GZIP:
        engine = zlib.compressobj(variant % 10, wbits=31)
        return engine.compress(text) + engine.flush()
    if variant % 7 == 0:
        return skippable(text[:50])
    told, checksum = variant % 2 == 0, variant % 3 == 0
    frame = zstandard.ZstdCompressor(variant % 5 + 1, write_content_size=told, write_checksum=checksum)
    if variant % 5 == 0:
        # A frame of several blocks that does not tell its size.
        stream = frame.compressobj()
        half = len(text) // 2
        first = stream.compress(text[:half]) + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        return first + stream.compress(text[half:]) + stream.flush()
    return frame.compress(text)


class Piece(NamedTuple):
    """Members or frames in a row, and what is asked of them."""

    codec: int
    data: bytes
    inner_offset: int
    size: int


@st.composite
def pieces(draw: st.DrawFn, codec: int | None = None) -> Piece:
    """Whole ones and ones cut short, with positions near every edge."""
    codec = draw(CODECS) if codec is None else codec
    parts = draw(st.lists(st.tuples(texts(), st.integers(0, 34)), max_size=3))
    data = b"".join(pack(codec, text, variant) for text, variant in parts)
    total = len(slow_frames.decompress(codec, data)[0])
    edge = st.sampled_from([0, 1, total // 2, max(total - 1, 0), total, total + 1])
    inner_offset = draw(st.one_of(edge, st.integers(0, total + 2)))
    rest = max(total - inner_offset, 0)
    size = draw(st.one_of(st.sampled_from([0, 1, rest, rest + 1]), st.integers(0, rest + 2)))
    cut = draw(st.one_of(st.just(0), st.integers(0, len(data))))
    data = data[: len(data) - cut] + draw(st.sampled_from([b"", b"", b"", b"\0", b"garbage " * 4]))
    return Piece(codec, data, inner_offset, size)


def fast_decode(piece: Piece) -> tuple[int, bytes]:
    out = bytearray(piece.size)
    status = frames.decode_into(piece.codec, piece.data, piece.inner_offset, out)
    return status, bytes(out) if status == OK else b""


def assert_alike(piece: Piece, fast: tuple[int, bytes], slow: tuple[int, bytes]) -> None:
    """Equal, but a zstd stream reads ahead: a broken block or checksum right behind spoils the chunk."""
    if fast == slow:
        return
    assert piece.codec == ZSTD
    assert fast == (CORRUPT, b"")
    assert slow_frames.decompress(piece.codec, piece.data)[1] == CORRUPT


@given(pieces())
def test_decode_into_is_its_slow_twin(piece: Piece) -> None:
    assert_alike(piece, fast_decode(piece), slow_frames.decode_piece(*piece))


@given(pieces(), st.booleans())
def test_decode_document_is_its_slow_twin(piece: Piece, exact: bool) -> None:
    wanted = slow_frames.decode_document(*piece, exact)
    assert_alike(piece, frames.decode_document(*piece, exact), wanted)


@st.composite
def spans(draw: st.DrawFn) -> tuple[int, bytes, list[tuple[int, int, int, int, bytes]]]:
    """Several pieces one behind the other; several chunks in each, right and wrong digests, any order."""
    codec = draw(CODECS)
    span, jobs = b"", []
    for piece in draw(st.lists(pieces(codec), max_size=4)):
        whole, _ = slow_frames.decompress(codec, piece.data)
        for _ in range(draw(st.integers(0, 3))):
            at = draw(st.integers(0, len(whole) + 1))
            size = draw(st.integers(0, max(len(whole) - at, 0) + 1))
            digest = hashlib.sha256(whole[at : at + size]).digest()
            wanted = draw(st.sampled_from([digest, digest, bytes(32)]))
            jobs.append((len(span), len(piece.data), at, size, wanted))
        span += piece.data
    return codec, span, draw(st.permutations(jobs))


@given(spans())
def test_decode_many_is_its_slow_twin(
    case: tuple[int, bytes, list[tuple[int, int, int, int, bytes]]],
) -> None:
    codec, span, jobs = case
    for job, fast, slow in zip(jobs, frames.decode_many(*case), slow_frames.decode_many(*case), strict=True):
        piece = Piece(codec, span[job[0] : job[0] + job[1]], job[2], job[3])
        assert_alike(piece, fast, slow)


@settings(max_examples=200)
@given(pieces(), st.data())
def test_bent_bytes_never_give_a_wrong_chunk(piece: Piece, data: st.DataObject) -> None:
    right, wanted = slow_frames.decode_piece(*piece)
    bent = bytearray(piece.data)
    for _ in range(data.draw(st.integers(0, 3)) if bent else 0):
        bent[data.draw(st.integers(0, len(bent) - 1))] ^= data.draw(st.integers(1, 255))
    bent_piece = piece._replace(data=bytes(bent))
    if piece.codec == GZIP:
        # Two versions of libzstd may see a bent frame differently: zlib is the same on both sides.
        fast_status, fast = fast_decode(bent_piece)
        slow_status, slow = slow_frames.decode_piece(*bent_piece)
        if fast_status == OK != slow_status:
            # The twin lost the last bytes to the error behind them.
            short = piece.inner_offset + piece.size - slow_frames.LOST
            assert slow_status == CORRUPT
            assert len(slow_frames.decompress(piece.codec, bent_piece.data)[0]) >= short
        else:
            assert (fast_status, fast) == (slow_status, slow)
    digest = hashlib.sha256(wanted).digest()
    job = (0, len(bent), piece.inner_offset, piece.size, digest)
    ((status, got),) = frames.decode_many(piece.codec, bytes(bent), [job])
    assert (status, got) == (OK, wanted) if status == OK else status == MISMATCH or got == b""
    assert right == OK or status != OK or wanted == b""


@given(st.binary(max_size=300), CODECS, st.integers(0, 1000), st.integers(0, 1000))
def test_noise_is_refused_or_decoded_alike(data: bytes, codec: int, inner_offset: int, size: int) -> None:
    piece = Piece(codec, data, inner_offset, size)
    assert_alike(piece, fast_decode(piece), slow_frames.decode_piece(*piece))


@given(st.binary(max_size=2000), st.data())
def test_sha256_spans_is_its_slow_twin(data: bytes, draw: st.DataObject) -> None:
    asked = []
    for _ in range(draw.draw(st.integers(0, 5))):
        at = draw.draw(st.integers(0, len(data)))
        asked.append((at, draw.draw(st.integers(0, len(data) - at))))
    assert chunk_digest.sha256_spans(data, asked) == slow_digest.sha256_spans(data, asked)
