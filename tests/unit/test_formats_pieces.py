"""Decoding within bounds, and what becomes of broken pieces."""

import gc
import hashlib
import random
import resource
import struct
import threading
import zlib
from collections.abc import Callable
from typing import Any

import pytest
import zstandard

from registry_storage.errors import FormatError, RegistryStorageError, VerificationError
from registry_storage.formats import verified
from registry_storage.formats.base import Compression
from registry_storage.formats.estargz import ESTARGZ
from registry_storage.formats.pieces import decode_document, decode_piece
from registry_storage.formats.verified import (
    VerifiedChunk,
    decode_chunks,
    decoded_chunks,
    verify_chunk,
)
from registry_storage.formats.zstd_chunked import ZSTD_CHUNKED_PODMAN
from tests.fakes import layer_blobs
from tests.fakes.layer_blobs import Chunk, gzip_member, zstd_frame

DATA = random.Random(7).randbytes(100_000) + b"compressible " * 40_000
GZIP, ZSTD = Compression.GZIP, Compression.ZSTD
PACK: dict[Compression, Callable[..., bytes]] = {GZIP: gzip_member, ZSTD: zstd_frame}
BOTH = pytest.mark.parametrize("compression", [GZIP, ZSTD])


@BOTH
def test_several_members_or_frames_are_one_stream(compression: Compression) -> None:
    pack = PACK[compression]
    piece = pack(DATA[:1000]) + pack(b"") + pack(DATA[1000:300_000]) + pack(DATA[300_000:])
    assert decode_piece(compression, piece, 0, len(DATA)) == DATA
    assert decode_piece(compression, piece, 999, 300_000) == DATA[999:300_999]


def test_skippable_frames_are_passed_over() -> None:
    first, second = zstd_frame(DATA[:10]), zstd_frame(DATA[10:])
    piece = layer_blobs.skippable(b"abc") + first + layer_blobs.skippable(b"") + second
    assert decode_piece(ZSTD, piece, 0, len(DATA)) == DATA


@BOTH
def test_what_follows_the_chunk_does_not_matter(compression: Compression) -> None:
    piece = PACK[compression](DATA[:5000]) + b"no member and no frame"
    assert decode_piece(compression, piece, 100, 4900) == DATA[100:5000]


@BOTH
def test_garbage_before_the_chunk_is_complete_is_corrupt(compression: Compression) -> None:
    piece = PACK[compression](DATA[:5000]) + b"no member and no frame"
    with pytest.raises(FormatError, match="wanted 5001 decompressed bytes, got a corrupt stream"):
        decode_piece(compression, piece, 0, 5001)


@BOTH
def test_piece_that_ends_early_is_truncated(compression: Compression) -> None:
    piece = PACK[compression](DATA)
    for size in (0, 1, 5, 30, len(piece) // 2, len(piece) - 30):
        with pytest.raises(FormatError, match="fewer before its end"):
            decode_piece(compression, piece[:size], 0, len(DATA))
    with pytest.raises(FormatError, match="fewer before its end"):
        decode_piece(compression, piece, 1, len(DATA))


@BOTH
def test_bomb_is_stopped_at_the_bound(compression: Compression) -> None:
    bomb = PACK[compression](bytes(300 << 20), level=1)
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert decode_piece(compression, bomb, 5, 1000) == bytes(1000)
    assert decode_document("bomb", compression, bomb, size=1000) == bytes(1000)
    with pytest.raises(FormatError, match="more input behind them"):
        decode_document("bomb", compression, bomb, size=1000, exact=True)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 16 << 10, f"{grown} KiB"


def test_false_gzip_size_hint_changes_nothing() -> None:
    piece = gzip_member(DATA)
    for told in (0, 1, len(DATA) - 1, len(DATA) + 1, len(DATA) + 5000, 0xFFFFFFFF):
        bent = piece[:-4] + struct.pack("<I", told)
        assert decode_piece(GZIP, bent, 0, len(DATA)) == DATA
        assert decode_piece(GZIP, bent, 10, 500) == DATA[10:510]


def test_gzip_header_checksum_counts() -> None:
    piece = bytearray(gzip_member(DATA))
    piece[3] |= 2
    checked = bytes(piece[:10]) + struct.pack("<H", zlib.crc32(piece[:10]) & 0xFFFF) + bytes(piece[10:])
    assert decode_piece(GZIP, checked, 5, 1000) == DATA[5:1005]
    with pytest.raises(FormatError, match="corrupt"):
        decode_piece(GZIP, checked[:10] + b"xx" + checked[12:], 5, 1000)


def test_zstd_window_above_128_mib_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=28, strategy=1)
    engine = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    piece = engine.compress(b"a" * 1000) + engine.flush()
    with pytest.raises(FormatError, match="corrupt"):
        decode_piece(ZSTD, piece * 2, 0, 1200 + (1 << 27))


@pytest.mark.parametrize("version", range(0x22, 0x28))
def test_formats_before_zstd_1_are_refused(version: int) -> None:
    old = bytes([version]) + zstd_frame(DATA)[1:]
    for piece in (old, zstd_frame(b"first") + old):
        with pytest.raises(FormatError, match="corrupt"):
            decode_piece(ZSTD, piece, 0, 1000)


@BOTH
def test_chunk_of_no_bytes_is_empty(compression: Compression) -> None:
    assert decode_piece(compression, PACK[compression](DATA), 0, 0) == b""


@BOTH
def test_document_of_another_size_is_refused_when_exact(compression: Compression) -> None:
    piece = PACK[compression](DATA)
    assert decode_document("doc", compression, piece, size=len(DATA), exact=True) == DATA
    with pytest.raises(FormatError, match=r"doc: .* got more input behind them"):
        decode_document("doc", compression, piece, size=len(DATA) - 1, exact=True)
    with pytest.raises(FormatError, match="more input behind them"):
        decode_document("doc", compression, piece + b"x", size=len(DATA), exact=True)
    with pytest.raises(FormatError, match="fewer"):
        decode_document("doc", compression, piece, size=len(DATA) + 1, exact=True)


def test_document_above_the_limit_is_refused() -> None:
    with pytest.raises(FormatError, match="wanted at most"):
        decode_document("doc", ZSTD, zstd_frame(b""), size=1 << 32)


def chunk(piece: bytes, offset: int, inner: int, wanted: bytes, number: int = 0) -> Chunk:
    return Chunk(number, offset, len(piece), inner, len(wanted), 0, sha256(wanted))


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def test_broken_chunks_do_not_spoil_their_neighbours() -> None:
    parts = [DATA[:9000], DATA[9000:18000], DATA[18000:27000], DATA[27000:]]
    layer = layer_blobs.zstd_chunked(parts, "podman")
    blob = bytearray(layer.blob)
    second, third = layer.chunks[1], layer.chunks[2]
    blob[second.blob_offset + 2000] ^= 1
    chunks = list(layer.chunks)
    chunks[2] = third._replace(blob_size=third.blob_size - 3000)
    results = decode_chunks(ZSTD_CHUNKED_PODMAN, bytes(blob), 0, chunks)
    assert isinstance(results[0], VerifiedChunk)
    assert isinstance(results[1], VerificationError | FormatError)
    assert isinstance(results[2], FormatError)
    assert isinstance(results[3], VerifiedChunk)
    assert f"chunk 1 at blob offset {second.blob_offset}" in str(results[1])


def test_digest_mismatch_tells_both_digests() -> None:
    piece = gzip_member(DATA)
    wanted = chunk(piece, 0, 0, DATA)._replace(digest_raw=bytes(32))
    (result,) = decode_chunks(ESTARGZ, piece, 0, [wanted])
    assert isinstance(result, VerificationError)
    assert result.wanted == "sha256:" + "00" * 32
    assert result.got == "sha256:" + sha256(DATA).hex()


def test_shared_member_with_a_corrupt_end_still_gives_what_comes_before() -> None:
    layer = layer_blobs.estargz([DATA[:60_000], DATA[:60_000], DATA[:60_000]], shared=True)
    blob = bytearray(layer.blob)
    blob[layer.chunks[0].blob_size - 30_000] ^= 0xFF
    results = decode_chunks(ESTARGZ, bytes(blob), 0, layer.chunks)
    assert isinstance(results[0], VerifiedChunk)
    assert isinstance(results[2], RegistryStorageError)


def test_chunks_may_come_in_any_order_and_overlap() -> None:
    piece = gzip_member(DATA)
    spans = [(500, 1000), (0, 600), (400_000, 7), (500, 1000), (0, len(DATA))]
    # The padding takes the size hint away, so that the stream must go back and forth.
    for span in (piece, piece + gzip_member(bytes(1))):
        chunks = [chunk(span, 0, at, DATA[at : at + size], n) for n, (at, size) in enumerate(spans)]
        results = decode_chunks(ESTARGZ, span, 0, chunks)
        assert all(isinstance(result, VerifiedChunk) for result in results)
        wanted = [DATA[at : at + size] for at, size in spans]
        assert [getattr(result, "data", None) for result in results] == wanted


def test_piece_outside_the_span_is_the_callers_mistake() -> None:
    piece = gzip_member(DATA)
    for offset, span_offset in ((0, 1), (1, 0), (1 << 63, 0)):
        with pytest.raises(ValueError, match="wanted blob bytes"):
            decode_chunks(ESTARGZ, piece, span_offset, [chunk(piece, offset, 0, DATA)])


def test_hole_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="hole"):
        decode_chunks(ZSTD_CHUNKED_PODMAN, b"", 0, [Chunk(3, 0, 0, 0, 4096, 0, bytes(32), is_hole=True)])


def test_spans_that_are_not_at_the_start_of_the_blob() -> None:
    layer = layer_blobs.estargz([DATA[:5000], DATA[5000:90_000]])
    first, second = layer.chunks
    span = layer.blob[second.blob_offset :]
    results = decode_chunks(ESTARGZ, memoryview(span), second.blob_offset, [second])
    assert isinstance(results[0], VerifiedChunk)
    assert results[0].data == DATA[5000:90_000]
    assert results[0].digest.raw == second.digest_raw
    assert first.blob_size == second.blob_offset


def test_verified_chunk_cannot_be_made_without_verification() -> None:
    with pytest.raises(TypeError):
        VerifiedChunk(b"x", bytes(32), key=None)
    with pytest.raises(TypeError, match="bytearray"):
        verify_chunk(bytearray(b"x"), sha256(b"x"))  # type: ignore[arg-type]
    with pytest.raises(VerificationError, match=r"content of layer 7: wanted sha256:0000.*, got sha256:"):
        verify_chunk(b"x", bytes(32), "content of layer 7")
    chunk = verify_chunk(b"x", sha256(b"x"))
    assert (chunk.data, len(chunk)) == (b"x", 1)
    with pytest.raises(AttributeError):
        chunk.data = b"y"  # type: ignore[misc]


def test_more_than_the_memory_holds_is_a_format_error() -> None:
    piece = zstd_frame(DATA)
    with pytest.raises(FormatError, match="no memory"):
        decode_piece(ZSTD, piece, 0, 1 << 60)
    chunks = [Chunk(n, 0, len(piece), 0, size, 0, bytes(32)) for n, size in enumerate((10, 1 << 60))]
    results = decode_chunks(ZSTD_CHUNKED_PODMAN, piece, 0, chunks)
    assert ["no memory" in str(result) for result in results] == [True, True]


def test_batches_bound_what_is_in_memory_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [DATA[n * 1000 : n * 1000 + 10_000 * n] for n in range(1, 8)]
    layer = layer_blobs.estargz(parts)
    shared = layer_blobs.estargz(parts, shared=True)
    calls: list[int] = []

    def counted(*arguments: Any) -> list[VerifiedChunk | RegistryStorageError]:
        calls.append(sum(chunk.size for chunk in arguments[3]))
        return decode_chunks(*arguments)

    monkeypatch.setattr(verified, "BATCH_BYTES", 60_000)
    monkeypatch.setattr(verified, "decode_chunks", counted)
    for wanted in (layer, shared):
        results = list(decoded_chunks(ESTARGZ, wanted.blob, 0, wanted.chunks))
        assert [getattr(result, "data", result) for result in results] == parts
    assert calls == [60_000, 40_000, 50_000, 60_000, 70_000, 210_000, 70_000]
    assert list(decoded_chunks(ESTARGZ, b"", 0, [])) == []


def test_many_threads_decode_at_once() -> None:
    layer = layer_blobs.estargz([DATA[n * 100 :] for n in range(20)])
    failures: list[object] = []

    def work() -> None:
        for _ in range(5):
            results = decode_chunks(ESTARGZ, layer.blob, 0, layer.chunks)
            failures.extend(r for r in results if not isinstance(r, VerifiedChunk))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
