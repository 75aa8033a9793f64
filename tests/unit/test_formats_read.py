"""Footer, TOC and chunks of every format."""

import hashlib
import random

import pytest

from registry_storage.digest import Digest
from registry_storage.errors import FormatError, VerificationError
from registry_storage.formats.base import ExternalToc, TocLocation
from registry_storage.formats.detect import LazyLayer, detect
from registry_storage.formats.estargz import open_external_toc
from registry_storage.formats.verified import decode_chunks
from tests.fakes import layer_blobs
from tests.fakes.layer_blobs import Layer

RANDOM = random.Random(5)
PAYLOADS = [b"x", b"hello\n" * 400, RANDOM.randbytes(70_000), bytes(200_000), b"tail"]
LAYERS = {
    "estargz": layer_blobs.estargz(PAYLOADS),
    "estargz-legacy": layer_blobs.estargz(PAYLOADS, footer="legacy"),
    "estargz-external": layer_blobs.estargz(PAYLOADS, footer="external"),
    "estargz-shared": layer_blobs.estargz(PAYLOADS, shared=True),
    "podman": layer_blobs.zstd_chunked(PAYLOADS, "podman"),
    "podman-untold": layer_blobs.zstd_chunked(PAYLOADS, "podman", told=False),
    "podman-old": layer_blobs.zstd_chunked(PAYLOADS, "podman-old"),
    "stargz": layer_blobs.zstd_chunked(PAYLOADS, "stargz"),
    "stargz-untold": layer_blobs.zstd_chunked(PAYLOADS, "stargz", told=False),
}
INSIDE = sorted(set(LAYERS) - {"estargz-external"})


def footer_of(lazy: LazyLayer, blob: bytes) -> bytes:
    return blob[-lazy.format.footer_size :]


def location_of(layer: Layer) -> tuple[LazyLayer, TocLocation]:
    lazy = detect(layer.descriptor)
    location = lazy.locate_toc(footer_of(lazy, layer.blob))
    assert isinstance(location, TocLocation)
    return lazy, location


@pytest.mark.parametrize("name", INSIDE)
def test_toc_is_found_by_the_footer_and_verified(name: str) -> None:
    layer = LAYERS[name]
    lazy, location = location_of(layer)
    assert location.offset == layer.toc_offset
    assert lazy.format.open_toc(layer.blob[location.offset :], location, lazy.toc_digest) == layer.toc


@pytest.mark.parametrize("name", ["podman", "podman-old", "stargz"])
def test_toc_is_found_by_the_annotation_alone(name: str) -> None:
    layer = LAYERS[name]
    lazy = detect(layer.descriptor)
    assert lazy.toc is not None
    assert lazy.format.open_toc(layer.blob[lazy.toc.offset :], lazy.toc, lazy.toc_digest) == layer.toc


def test_external_toc_is_announced_and_read_from_its_own_layer() -> None:
    layer = LAYERS["estargz-external"]
    lazy = detect(layer.descriptor)
    assert lazy.locate_toc(footer_of(lazy, layer.blob)) == ExternalToc(layer.toc_offset)
    toc_layer = layer_blobs.gzip_member(layer_blobs.tar_entry(layer_blobs.TOC_NAME, layer.toc))
    assert open_external_toc(toc_layer, lazy.toc_digest) == layer.toc


def test_external_toc_of_another_layer_is_refused() -> None:
    lazy = detect(LAYERS["estargz-external"].descriptor)
    toc_layer = layer_blobs.gzip_member(layer_blobs.tar_entry(layer_blobs.TOC_NAME, b"{}"))
    with pytest.raises(VerificationError, match=f"wanted {lazy.toc_digest}"):
        open_external_toc(toc_layer, lazy.toc_digest)


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_every_chunk_decodes_and_matches_its_digest(name: str) -> None:
    layer = LAYERS[name]
    lazy = detect(layer.descriptor)
    results = decode_chunks(lazy.format, layer.blob, 0, layer.chunks)
    assert [getattr(result, "data", result) for result in results] == layer.payloads


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_one_chunk_decodes_alone(name: str) -> None:
    layer = LAYERS[name]
    lazy = detect(layer.descriptor)
    for chunk, payload in zip(layer.chunks, layer.payloads, strict=True):
        piece = layer.blob[chunk.blob_offset :][: chunk.blob_size]
        assert lazy.format.decode(piece, chunk.inner_offset, chunk.size) == payload


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_footer_with_one_flipped_bit_is_refused(name: str) -> None:
    layer = LAYERS[name]
    lazy = detect(layer.descriptor)
    tail = footer_of(lazy, layer.blob)
    messages = []
    strict = lazy.toc is not None or name == "estargz-external"
    size = {"estargz-legacy": 47, "estargz-external": 46}.get(name, len(tail))
    for bit in range((len(tail) - size) * 8, len(tail) * 8):
        bent = bytearray(tail)
        bent[bit // 8] ^= 1 << bit % 8
        try:
            location = lazy.locate_toc(bytes(bent))
        except FormatError as error:
            messages.append(str(error))
            continue
        # Another digit of the offset is a well-formed footer; what is there is no TOC.
        assert not strict
        assert isinstance(location, TocLocation)
        with pytest.raises((FormatError, VerificationError)):
            lazy.format.open_toc(layer.blob[location.offset :], location, lazy.toc_digest)
    assert messages
    assert all("wanted" in message and "got" in message for message in messages)


@pytest.mark.parametrize("name", INSIDE)
def test_toc_with_one_flipped_bit_is_refused(name: str) -> None:
    layer = LAYERS[name]
    lazy, location = location_of(layer)
    assert location.compressed_size is not None
    raw = layer.blob[location.offset :]
    harmless = 0
    for bit in range(location.compressed_size * 8):
        bent = bytearray(raw)
        bent[bit // 8] ^= 1 << bit % 8
        try:
            toc = lazy.format.open_toc(bytes(bent), location, lazy.toc_digest)
        except (FormatError, VerificationError):
            continue
        # Bits of the gzip header, of the rest of the tar and of the trailer do not touch the JSON.
        assert toc == layer.toc
        harmless += 1
    assert harmless == 0 or lazy.format.name == "eStargz"


@pytest.mark.parametrize("name", INSIDE)
def test_truncated_toc_is_refused(name: str) -> None:
    layer = LAYERS[name]
    lazy, location = location_of(layer)
    assert location.compressed_size is not None
    raw = layer.blob[location.offset :][: location.compressed_size]
    for size in range(0, len(raw), 7):
        with pytest.raises(FormatError, match="wanted"):
            lazy.format.open_toc(raw[:size], location, lazy.toc_digest)


@pytest.mark.parametrize("name", INSIDE)
def test_toc_of_another_layer_is_refused(name: str) -> None:
    layer = LAYERS[name]
    lazy, location = location_of(layer)
    other = Digest(hashlib.sha256(b"other").hexdigest())
    with pytest.raises(VerificationError, match=f"wanted {other}, got"):
        lazy.format.open_toc(layer.blob[location.offset :], location, other)


@pytest.mark.parametrize("name", INSIDE)
def test_tail_shorter_than_the_footer_is_refused(name: str) -> None:
    layer = LAYERS[name]
    lazy = detect(layer.descriptor)
    for size in range(46):
        with pytest.raises(FormatError, match="wanted"):
            lazy.locate_toc(layer.blob[len(layer.blob) - size :])


def test_stargz_toc_with_another_compressed_digest_is_refused() -> None:
    layer = LAYERS["stargz"]
    descriptor = layer.descriptor
    other = Digest(hashlib.sha256(b"other").hexdigest())
    layer_annotations = {**descriptor.annotations, "io.containers.zstd-chunked.manifest-checksum": str(other)}
    bent = Layer(layer.blob, layer.media_type, layer_annotations, layer.toc, layer.toc_offset)
    lazy = detect(bent.descriptor)
    assert lazy.toc is not None
    with pytest.raises(VerificationError, match=f"compressed TOC: wanted {other}"):
        lazy.format.open_toc(layer.blob[lazy.toc.offset :], lazy.toc, lazy.toc_digest)


@pytest.mark.parametrize("change", [-1, 1, 1000])
def test_zstd_toc_of_another_size_than_announced_is_refused(change: int) -> None:
    layer = LAYERS["podman"]
    lazy, location = location_of(layer)
    assert location.uncompressed_size is not None
    bent = TocLocation(location.offset, location.compressed_size, location.uncompressed_size + change)
    with pytest.raises(FormatError, match="wanted"):
        lazy.format.open_toc(layer.blob[location.offset :], bent, lazy.toc_digest)


def test_estargz_toc_member_must_hold_the_toc_entry() -> None:
    layer = LAYERS["estargz"]
    lazy, location = location_of(layer)
    entry = bytearray(layer_blobs.tar_entry(layer_blobs.TOC_NAME, layer.toc))
    cases = {
        "name": layer_blobs.tar_entry("stargz.index.jsoN", layer.toc),
        "checksum": bytes(entry[:1]) + b"T" + bytes(entry[2:]),
        "typeflag": bytes(entry[:156]) + b"5" + bytes(entry[157:]),
        "size": bytes(entry[:124]) + b"7777777777z\0" + bytes(entry[136:]),
    }
    for field, bent in cases.items():
        if field in ("typeflag", "size"):
            head = bytearray(bent[:512])
            head[148:156] = b" " * 8
            head[148:156] = b"%06o\0 " % sum(head)
            bent = bytes(head) + bent[512:]
        elif field == "checksum":
            bent = bytes(entry[:329]) + b"1" + bytes(entry[330:])
        member = layer_blobs.gzip_member(bent)
        with pytest.raises(FormatError, match=field) as caught:
            lazy.format.open_toc(member, TocLocation(location.offset, len(member), None), lazy.toc_digest)
        assert caught.value.field == field


def test_estargz_toc_larger_than_its_member_is_refused_without_using_memory() -> None:
    layer = LAYERS["estargz"]
    lazy, location = location_of(layer)
    head = bytearray(layer_blobs.tar_entry(layer_blobs.TOC_NAME, b"{}")[:512])
    head[124:136] = b"%011o\0" % (900 << 20)
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    member = layer_blobs.gzip_member(bytes(head) + b"{}")
    with pytest.raises(FormatError, match="fewer before its end"):
        lazy.format.open_toc(member, TocLocation(location.offset, len(member), None), lazy.toc_digest)


def test_toc_above_the_limit_is_refused_before_anything_is_decompressed() -> None:
    layer = LAYERS["estargz"]
    lazy, location = location_of(layer)
    head = bytearray(layer_blobs.tar_entry(layer_blobs.TOC_NAME, b"{}")[:512])
    head[124:136] = b"%011o\0" % ((1 << 30) + 1)
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    member = layer_blobs.gzip_member(bytes(head) + b"{}")
    with pytest.raises(FormatError, match="wanted 1 to 1073741824 bytes, got 1073741825"):
        lazy.format.open_toc(member, TocLocation(location.offset, len(member), None), lazy.toc_digest)
