"""Layers that other tools made (`tests/golden/README.md`)."""

import hashlib
from functools import cache
from pathlib import Path

import pytest

from registry_storage.descriptor import Manifest
from registry_storage.digest import Digest
from registry_storage.errors import FormatError, RegistryStorageError
from registry_storage.formats.base import TocLocation
from registry_storage.formats.detect import LazyLayer, detect
from registry_storage.formats.verified import VerifiedChunk, decode_chunks
from tests.reference.slow_toc_chunks import files_of_toc

GOLDEN = Path(__file__).parent.parent / "golden"
FORMATS = {
    "estargz-ctr-remote-0.12": "eStargz",
    "zstd-chunked-ctr-remote-0.12": "zstd:chunked (stargz)",
    "zstd-chunked-skopeo-1.18": "zstd:chunked",
    "zstd-chunked-skopeo-1.9": "zstd:chunked (old keys)",
}
ALL = pytest.mark.parametrize("name", sorted(FORMATS))


@cache
def load(name: str) -> tuple[LazyLayer, bytes]:
    manifest = Manifest.parse((GOLDEN / name / "manifest.json").read_bytes(), name)
    blob = (GOLDEN / name / "layer.blob").read_bytes()
    assert Digest.of(blob) == manifest.layers[0].digest
    return detect(manifest.layers[0]), blob


def locate(lazy: LazyLayer, blob: bytes) -> TocLocation:
    location = lazy.locate_toc(blob[-lazy.format.footer_size :])
    assert isinstance(location, TocLocation)
    return location


def open_toc_by(lazy: LazyLayer, tail: bytes, blob: bytes) -> bytes:
    location = lazy.locate_toc(tail)
    assert isinstance(location, TocLocation)
    return lazy.format.open_toc(blob[location.offset :], location, lazy.toc_digest)


def contents(lazy: LazyLayer, blob: bytes, toc: bytes, data_end: int) -> dict[str, str]:
    """The sha256 of every regular file, put together from its verified chunks."""
    sums = {}
    for name, (entry, chunks) in files_of_toc(toc, data_end).items():
        data = bytearray(entry.get("size", 0))
        present = [chunk for chunk in chunks if not chunk.is_hole]
        for chunk, result in zip(present, decode_chunks(lazy.format, blob, 0, present), strict=True):
            assert isinstance(result, VerifiedChunk), result
            data[chunk.content_offset : chunk.content_offset + chunk.size] = result.data
        sums[name] = hashlib.sha256(data).hexdigest()
        if "digest" in entry:
            assert entry["digest"] == f"sha256:{sums[name]}"
    return sums


@ALL
def test_golden_layer_is_recognised(name: str) -> None:
    lazy, _ = load(name)
    assert lazy.format.name == FORMATS[name]


@ALL
def test_golden_footer_and_annotations_agree(name: str) -> None:
    lazy, blob = load(name)
    location = locate(lazy, blob)
    assert lazy.toc in (None, location)
    # The footer alone tells the same place.
    alone = lazy.format.parse_footer(blob[-lazy.format.footer_size :], len(blob))
    assert isinstance(alone, TocLocation)
    assert (alone.offset, alone.compressed_size) == (location.offset, location.compressed_size)


@ALL
def test_golden_files_are_whole_and_the_same_in_every_format(name: str) -> None:
    lazy, blob = load(name)
    location = locate(lazy, blob)
    toc = lazy.format.open_toc(blob[location.offset :], location, lazy.toc_digest)
    sums = contents(lazy, blob, toc, location.offset)
    sums.pop(".no.prefetch.landmark", None)
    assert len(sums) == 27
    assert sums["srv/sparse"] == "b39edc32b0382c75951af3c135090b0aef30b52d19009e4692cbb10dee8f1d44"
    assert sums["srv/big"] == "532309dcf76ae16051c0dd4cdaf7208a9bd1f3b0cd842d643220c36d52577311"
    assert sums["etc/hostname"] == hashlib.sha256(b"golden\n").hexdigest()


@ALL
def test_golden_footer_with_one_flipped_bit_is_refused(name: str) -> None:
    lazy, blob = load(name)
    tail = blob[-lazy.format.footer_size :]
    for bit in range(len(tail) * 8):
        bent = bytearray(tail)
        bent[bit // 8] ^= 1 << bit % 8
        with pytest.raises(RegistryStorageError):
            open_toc_by(lazy, bytes(bent), blob)


@ALL
def test_golden_chunk_with_one_flipped_byte_never_gives_other_bytes(name: str) -> None:
    lazy, blob = load(name)
    location = locate(lazy, blob)
    toc = lazy.format.open_toc(blob[location.offset :], location, lazy.toc_digest)
    chunks = [
        chunk
        for _, chunks in files_of_toc(toc, location.offset).values()
        for chunk in chunks
        if not chunk.is_hole and chunk.size < 100_000
    ]
    refused = 0
    for chunk in chunks:
        for at in range(chunk.blob_offset, chunk.blob_offset + min(chunk.blob_size, 60)):
            bent = bytearray(blob)
            bent[at] ^= 0x10
            (result,) = decode_chunks(lazy.format, bytes(bent), 0, [chunk])
            if isinstance(result, VerifiedChunk):
                # A bit that does not count: time or system in the gzip header, or behind the chunk.
                assert hashlib.sha256(result.data).digest() == chunk.digest_raw
            else:
                refused += 1
    assert refused > 10 * len(chunks)


@ALL
def test_golden_layer_cut_short_has_no_footer(name: str) -> None:
    lazy, blob = load(name)
    for cut in (1, 10, 47, 100, 3000):
        short = blob[:-cut]
        with pytest.raises(FormatError):
            lazy.locate_toc(short[-lazy.format.footer_size :])
