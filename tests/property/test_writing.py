"""The writing kernels against their twins; what is written is what is read."""

import io
import itertools
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry_storage.convert import LayerKind, LayerReader, WriteOptions, verify_written, write_layer
from registry_storage.formats.base import Compression
from registry_storage.formats.chunker import content_chunker, crc64
from registry_storage.formats.pack import FrameStream, compress_pieces
from registry_storage.formats.unpacking import Unpacking
from registry_storage.testing.sample_tar import entry, make_tar
from tests.reference import slow_pack, slow_splitter

CODECS = st.sampled_from([Compression.GZIP, Compression.ZSTD])
KINDS = st.sampled_from([LayerKind.ESTARGZ, LayerKind.ZSTD_CHUNKED_PODMAN, LayerKind.ZSTD_CHUNKED_STARGZ])

RUNS = st.lists(
    st.one_of(
        st.binary(max_size=200),
        st.integers(1, 3000).map(bytes),
        st.sampled_from([1022, 1023, 1024, 1025, 2048]).map(bytes),
        st.tuples(st.binary(min_size=1, max_size=5), st.integers(1, 900)).map(lambda pair: pair[0] * pair[1]),
    ),
    max_size=8,
).map(b"".join)


def in_steps(data: bytes, steps: list[int]) -> list[bytes]:
    """`data` cut at these lengths."""
    found, at = [], 0
    for step in steps:
        found.append(data[at : at + step])
        at += step
    return [*found, data[at:]]


@given(data=RUNS, limit=st.integers(1024, 5000), steps=st.lists(st.integers(1, 2000), max_size=6))
def test_chunks_are_the_twins_however_the_file_comes(data: bytes, limit: int, steps: list[int]) -> None:
    chunker = content_chunker(limit)
    for _ in range(2):
        found = [chunk for part in in_steps(data, steps) for chunk in chunker.feed(part)]
        assert found + chunker.finish() == slow_splitter.split(data, limit)


def test_content_is_cut_where_the_sum_says() -> None:
    import random

    data = random.Random(1).randbytes(400_000)
    chunker = content_chunker(1 << 22)
    found = chunker.feed(data) + chunker.finish()
    assert found == slow_splitter.split(data, 1 << 22)
    assert len(found) > 2


@given(data=st.binary(max_size=300), cut=st.integers(0, 300))
def test_crc64_is_the_twins(data: bytes, cut: int) -> None:
    assert crc64(data) == slow_splitter.crc64(data)
    assert crc64(data[cut:], crc64(data[:cut])) == crc64(data)


def test_crc64_of_the_check_string() -> None:
    # The catalogue's CRC-64/GO-ISO.
    assert crc64(b"123456789") == 0xB90956C775A41001


@given(pieces=st.lists(RUNS.filter(bool), max_size=6), codec=CODECS, level=st.integers(1, 12))
def test_pieces_unpack_alone_and_together(pieces: list[bytes], codec: Compression, level: int) -> None:
    ends = list(itertools.accumulate(map(len, pieces)))
    packed, sizes = compress_pieces(codec, level, b"".join(pieces), ends)
    assert sum(sizes) == len(packed)
    at = 0
    for piece, size in zip(pieces, sizes, strict=True):
        assert slow_pack.unpack(codec, packed[at : at + size]) == piece
        at += size
    if pieces:
        assert slow_pack.unpack(codec, packed) == b"".join(pieces)


@pytest.mark.parametrize("ends", [[0], [3, 3], [4, 2], [9]])
def test_pieces_that_are_empty_or_outside_are_refused(ends: list[int]) -> None:
    with pytest.raises(ValueError, match="piece"):
        compress_pieces(Compression.GZIP, 6, b"12345", ends)


@given(parts=st.lists(RUNS, max_size=6), level=st.integers(1, 19))
def test_a_frame_grows_with_its_content(parts: list[bytes], level: int) -> None:
    stream = FrameStream(level)
    for part in parts:
        stream.feed(part)
    assert slow_pack.unpack(4, stream.finish()) == b"".join(parts)
    assert stream.size == sum(map(len, parts))


@given(pieces=st.lists(RUNS.filter(bool), min_size=1, max_size=4), codec=CODECS, steps=st.lists(st.integers(1, 300)))
def test_streams_unpack_however_they_come(pieces: list[bytes], codec: Compression, steps: list[int]) -> None:
    packed, _ = compress_pieces(codec, 3, b"".join(pieces), list(itertools.accumulate(map(len, pieces))))
    unpacking = Unpacking(codec)
    blocks = [block for part in in_steps(packed, steps) for block in unpacking.feed(part)]
    assert b"".join([*blocks, *unpacking.finish()]) == b"".join(pieces)


NAMES = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=12).filter(
        lambda text: text not in (".", "..") and not text.startswith(".wh.")
    ),
    min_size=1,
    max_size=4,
).map("/".join)


@settings(deadline=None)
@given(
    files=st.dictionaries(NAMES.map(lambda name: f"top/{name}"), RUNS, max_size=8),
    kind=KINDS,
    chunk_size=st.sampled_from([1024, 4096, 1 << 22]),
    min_chunk_size=st.sampled_from([0, 5000]),
    tar_format=st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    source=st.sampled_from(["plain", "gzip", "zstd"]),
)
def test_what_is_written_is_read(
    files: dict[str, bytes], kind: LayerKind, chunk_size: int, min_chunk_size: int, tar_format: int, source: str
) -> None:
    # A file that is the parent of another is no tree.
    files = {name: data for name, data in files.items() if not any(other.startswith(name + "/") for other in files)}
    tar = make_tar(((entry(name), data) for name, data in files.items()), tar_format=tar_format)
    if source != "plain":
        tar = compress_pieces(Compression.GZIP if source == "gzip" else Compression.ZSTD, 1, tar, [len(tar)])[0]
    target = io.BytesIO()
    shared = min_chunk_size if kind is LayerKind.ESTARGZ else 0
    written = write_layer(io.BytesIO(tar), target, WriteOptions(kind, None, chunk_size, shared), jobs=2)
    verify_written(target, written)
    with LayerReader.open(target.getvalue(), descriptor=written.descriptor) as reader:
        for name, data in files.items():
            assert reader.read(name) == data
