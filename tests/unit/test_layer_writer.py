"""Layers with the options and oddities that the conformance suite leaves out."""

import base64
import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
import zstandard

from registry_storage.convert import (
    LayerKind,
    LayerReader,
    WriteOptions,
    WrittenLayer,
    verify_written,
    write_layer,
)
from registry_storage.convert.accesses import FileAccess
from registry_storage.convert.tar_source import TarSource
from registry_storage.digest import Digest
from registry_storage.errors import FormatError, InvalidInputError, VerificationError
from registry_storage.formats.chunker import crc64
from registry_storage.formats.detect import detect
from registry_storage.formats.prefetch_ranges import PREFETCH_ANNOTATION, parse_ranges
from registry_storage.formats.tar.entry import TarEntry
from registry_storage.testing.sample_tar import entry, files_tar, make_tar, noise, sample_tar, text

LAZY = [LayerKind.ESTARGZ, LayerKind.ZSTD_CHUNKED_PODMAN, LayerKind.ZSTD_CHUNKED_STARGZ]
GOLDEN = Path(__file__).parent.parent / "golden"


def write(tar: bytes, kind: LayerKind, *, jobs: int = 2, **options: Any) -> tuple[bytes, WrittenLayer]:
    target = io.BytesIO()
    written = write_layer(io.BytesIO(tar), target, WriteOptions(kind, **options), jobs=jobs)
    verify_written(target, written)
    return target.getvalue(), written


def names(written: WrittenLayer) -> list[str]:
    return [one["name"] for one in json.loads(written.toc)["entries"]]


# Kinds -------------------------------------------------------------------------------------------------------


def test_podmans_kind_keeps_the_diff_id() -> None:
    tar = sample_tar(4096)
    _, written = write(tar, LayerKind.ZSTD_CHUNKED_PODMAN)
    assert written.diff_id == Digest.of(tar)


def test_podmans_chunks_are_those_that_podman_writes() -> None:
    blob = (GOLDEN / "zstd-chunked-skopeo-1.18" / "layer.blob").read_bytes()
    descriptor = json.loads((GOLDEN / "zstd-chunked-skopeo-1.18" / "manifest.json").read_text())["layers"][0]
    position = descriptor["annotations"]["io.github.containers.zstd-chunked.manifest-position"].split(":")
    offset, packed, unpacked = map(int, position[:3])
    theirs = json.loads(
        zstandard.ZstdDecompressor().decompress(blob[offset : offset + packed], max_output_size=unpacked)
    )
    # Theirs has no limit of the chunk size; a larger one of ours is none for this layer.
    _, written = write(blob, LayerKind.ZSTD_CHUNKED_PODMAN, chunk_size=64 << 20)
    ours = json.loads(written.toc)
    places = {"offset", "endOffset"}
    assert [{k: v for k, v in one.items() if k not in places} for one in ours["entries"]] == [
        {k: v for k, v in one.items() if k not in places} for one in theirs["entries"]
    ]


def test_tar_split_rebuilds_the_tar() -> None:
    tar = make_tar([
        (entry("dir/", type=tarfile.DIRTYPE), b""),
        (entry("dir/file"), noise(10_000)),
        (entry("n\udcff"), b"a name that is not UTF-8"),
        (entry("l" * 150 + "/" + "m" * 150), bytes(5000)),
    ], tar_format=tarfile.GNU_FORMAT)  # fmt: skip
    blob, written = write(tar, LayerKind.ZSTD_CHUNKED_PODMAN)
    toc = detect(written.descriptor).toc
    assert toc is not None
    assert toc.tar_split is not None
    split = toc.tar_split
    payload = blob[split.offset : split.offset + split.compressed_size]
    lines = zstandard.ZstdDecompressor().decompressobj().decompress(payload)
    assert len(lines) == split.uncompressed_size
    assert json.loads(written.toc.decode(errors="replace"))["tarSplitDigest"] == str(Digest.of(payload))
    rebuilt = b""
    with LayerReader.open(blob, descriptor=written.descriptor) as reader:
        for number, line in enumerate(map(json.loads, lines.splitlines())):
            assert line["position"] == number
            if line["type"] == 2:
                rebuilt += base64.b64decode(line["payload"])
                continue
            name = base64.b64decode(line["name_raw"]) if "name_raw" in line else line["name"].encode()
            if line["payload"] is not None:
                content = reader.read(name)
                assert len(content) == line["size"]
                assert base64.b64decode(line["payload"]) == crc64(content).to_bytes(8, "big")
                rebuilt += content
    assert rebuilt == tar


def test_the_uncompressed_kind_is_the_tar_itself() -> None:
    tar = sample_tar(4096)
    blob, written = write(gzip.compress(tar), LayerKind.UNCOMPRESSED)
    assert blob == tar
    assert written.diff_id == written.descriptor.digest == Digest.of(tar)
    assert written.descriptor.annotations == {}


@pytest.mark.parametrize("kind", LAZY)
def test_a_converted_layer_converts_again(kind: LayerKind) -> None:
    tar = sample_tar(4096)
    first = write(tar, LayerKind.ESTARGZ)[0]
    again = write(first, kind)
    assert again == write(write(first, kind)[0], kind)
    assert "stargz.index.json" not in names(again[1])
    assert names(again[1]).count(".no.prefetch.landmark") == (kind is not LayerKind.ZSTD_CHUNKED_PODMAN)


@pytest.mark.parametrize("kind", LAZY)
def test_end_of_archive_blocks_are_added_where_the_source_has_none(kind: LayerKind) -> None:
    tar = files_tar({"f": b"x"})
    blob, written = write(tar[:1024], kind)
    assert written.entry_count == 1
    unpacked = io.BytesIO()
    write_layer(io.BytesIO(blob), unpacked, WriteOptions(LayerKind.UNCOMPRESSED))
    assert unpacked.getvalue().endswith(bytes(1024))


# External TOC, diffID ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [False, True])
def test_an_external_toc_describes_the_blob(keep: bool) -> None:
    tar = sample_tar(4096)
    blob, written = write(tar, LayerKind.ESTARGZ, external_toc=True, keep_diff_id=keep, chunk_size=4096)
    assert (written.diff_id == Digest.of(tar)) == keep
    assert Digest.of(gzip.decompress(blob)) == written.diff_id
    assert written.external_toc is not None
    assert Digest.of(gzip.decompress(written.external_toc)) == written.external_toc_diff_id
    with tarfile.open(fileobj=io.BytesIO(written.external_toc)) as archive:
        assert archive.getnames() == ["stargz.index.json"]
    with LayerReader.open(blob, descriptor=written.descriptor, external_toc=written.external_toc) as reader:
        assert reader.read("etc/hostname") == b"sample\n"
    with pytest.raises(FormatError, match="another image"):
        LayerReader.open(blob, descriptor=written.descriptor)


@pytest.mark.parametrize(
    "options",
    [
        {"kind": LayerKind.ESTARGZ, "level": 13},
        {"kind": LayerKind.ESTARGZ, "level": 0},
        {"kind": LayerKind.ESTARGZ, "chunk_size": 1},
        {"kind": LayerKind.ESTARGZ, "keep_diff_id": True},
        {"kind": LayerKind.ZSTD_CHUNKED_STARGZ, "keep_diff_id": True},
        {"kind": LayerKind.ZSTD_CHUNKED_PODMAN, "min_chunk_size": 5000},
        {"kind": LayerKind.ZSTD_CHUNKED_PODMAN, "external_toc": True},
        {"kind": LayerKind.ZSTD_CHUNKED_PODMAN, "keep_diff_id": True, "prioritized": ("a",)},
        {"kind": LayerKind.UNCOMPRESSED, "level": 1},
        {"kind": LayerKind.UNCOMPRESSED, "prioritized": ("a",)},
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        WriteOptions(**options)


# Reproducible ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LAZY)
def test_cores_time_zone_and_place_change_nothing(
    kind: LayerKind, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tar = files_tar({f"f{n}": text(70_000, n) + bytes(3000) for n in range(60)} | {"big": noise(3_000_000)})
    digests = set()
    for jobs, zone in ((1, "UTC"), (8, "Asia/Tokyo")):
        monkeypatch.setenv("TZ", zone)
        monkeypatch.chdir(tmp_path)
        digests.add(write(tar, kind, jobs=jobs, chunk_size=1 << 20)[1].descriptor.digest)
    assert len(digests) == 1


# Priorities --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LAZY)
def test_missing_prioritized_files_are_refused_or_named(kind: LayerKind) -> None:
    tar = files_tar({"a": b"1", "b": b"2"})
    with pytest.raises(InvalidInputError, match="'nowhere'"):
        write(tar, kind, prioritized=("b", "nowhere"))
    _, written = write(tar, kind, prioritized=("/b", "nowhere"), allow_missing=True)
    assert written.missing == ("nowhere",)
    assert names(written) == ["b", ".prefetch.landmark", "a"]


def test_an_entry_that_occurs_twice_stays_where_it_is() -> None:
    tar = make_tar([(entry("x"), b"1"), (entry("twice"), b"old"), (entry("y"), b"2"), (entry("twice"), b"new")])
    blob, written = write(tar, LayerKind.ESTARGZ, prioritized=("twice", "y"))
    assert names(written) == ["y", ".prefetch.landmark", "x", "twice", "twice"]
    assert LayerReader.open(blob).read("twice") == b"new"


def test_parents_and_hard_link_targets_come_along() -> None:
    tar = make_tar([
        (entry("z/", type=tarfile.DIRTYPE), b""),
        (entry("a/", type=tarfile.DIRTYPE), b""),
        (entry("a/b/", type=tarfile.DIRTYPE), b""),
        (entry("z/target"), b"content"),
        (entry("a/b/link", type=tarfile.LNKTYPE, linkname="./z/target"), b""),
    ])  # fmt: skip
    blob, written = write(tar, LayerKind.ESTARGZ, prioritized=("a/b/link",))
    assert names(written) == ["a/", "a/b/", "z/", "z/target", "a/b/link", ".prefetch.landmark"]
    assert LayerReader.open(blob).stat("z/target").prioritized


# Oddities of tars --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tar_format", ["gnu", "pax"])
@pytest.mark.parametrize("version", ["0.0", "0.1", "1.0"])
@pytest.mark.parametrize("kind", LAZY)
def test_sparse_files_become_whole(kind: LayerKind, version: str, tar_format: str, tmp_path: Path) -> None:
    content = bytes(100_000) + b"middle" * 1000 + bytes(300_000) + b"end"
    with (tmp_path / ("s" * 120)).open("wb") as file:
        for at in range(0, len(content), 1000):
            if content[at : at + 1000].strip(b"\0"):
                file.seek(at)
                file.write(content[at : at + 1000])
    (tmp_path / "after").write_bytes(b"after")
    sparse = [f"--sparse-version={version}"] if tar_format == "pax" else []
    made = subprocess.run(
        ["tar", "-c", "-S", f"--format={tar_format}", *sparse,
         "-C", tmp_path, "s" * 120, "after"],
        check=True, capture_output=True,
    ).stdout  # fmt: skip
    blob, written = write(made, kind)
    with LayerReader.open(blob, descriptor=written.descriptor) as reader:
        assert reader.read("s" * 120) == content
        assert reader.read("after") == b"after"
    plain = io.BytesIO()
    write_layer(io.BytesIO(blob), plain, WriteOptions(LayerKind.UNCOMPRESSED))
    with tarfile.open(fileobj=io.BytesIO(plain.getvalue())) as archive:
        file_ = archive.extractfile("s" * 120)
        assert file_ is not None
        assert file_.read() == content
    with pytest.raises(FormatError, match="sparse"):
        write(made, LayerKind.ZSTD_CHUNKED_PODMAN, keep_diff_id=True)


@pytest.mark.parametrize("kind", LAZY)
def test_names_that_are_not_utf8_stay_bytes(kind: LayerKind) -> None:
    name = os.fsdecode(b"caf\xe9/\xff\xfe")
    blob, written = write(make_tar([(entry(name), b"x")], tar_format=tarfile.GNU_FORMAT), kind)
    reader = LayerReader.open(blob, descriptor=written.descriptor)
    assert reader.read(b"caf\xe9/\xff\xfe") == b"x"
    assert [one.path for one in reader.list()][-1] == name


def first_entry(tar: bytes) -> TarEntry:
    return next(TarSource(io.BytesIO(tar), lambda _: None).entries()).entry


def test_numbers_beyond_octal_are_read() -> None:
    tar = make_tar(
        [(entry("f", uid=3_000_000_000, gid=2_500_000, mtime=-5), b"x")], tar_format=tarfile.GNU_FORMAT
    )
    one = first_entry(tar)
    assert (one.uid, one.gid, one.mtime_ns) == (3_000_000_000, 2_500_000, -5_000_000_000)


def test_numbers_without_an_end_are_read() -> None:
    header = bytearray(files_tar({"f": b""})[:512])
    header[100:108] = b"00000755"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    assert first_entry(bytes(header) + bytes(1024)).mode == 0o755


def test_global_headers_are_left_out_unless_the_diff_id_is_kept() -> None:
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "0123456789abcdef"}
    ) as archive:
        archive.addfile(entry("f"))
    tar = buffer.getvalue()
    assert write(tar, LayerKind.ZSTD_CHUNKED_PODMAN)[1].diff_id != Digest.of(tar)
    assert write(tar, LayerKind.ZSTD_CHUNKED_PODMAN, keep_diff_id=True)[1].diff_id == Digest.of(tar)


@pytest.mark.parametrize(
    ("tar", "message"),
    [
        (make_tar([(entry("f", type=b"V"), b"")]), "type 'V'"),
        (make_tar([(entry("a/../../f"), b"x")]), "'..'"),
        (files_tar({"f": noise(2000)})[:1500], "cut off"),
        (b"\x01" + files_tar({"f": b"x"})[1:], "checksum"),
        (b"not a tar at all", "cut off"),
        (b"BZh91AY&SY" + bytes(100), "bzip2"),
        (gzip.compress(sample_tar(4096))[:-20], "cut off"),
        (gzip.compress(sample_tar(4096))[:2000] + bytes(2000), "corrupt|checksum"),
        (make_tar([(entry("n" * 300), b"x")]), "255"),
    ],
)
def test_a_source_that_cannot_be_a_layer_is_refused(tar: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        write(tar, LayerKind.ESTARGZ)


def test_what_another_has_changed_is_not_verified() -> None:
    blob, written = write(sample_tar(4096), LayerKind.ESTARGZ)
    broken = bytearray(blob)
    # The operating system in the first member's header: nothing that is unpacked, but not the blob.
    broken[9] ^= 1
    with pytest.raises(VerificationError, match="layer blob"):
        verify_written(io.BytesIO(bytes(broken)), written)


def test_a_full_target_is_reported() -> None:
    class Full(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: Any, /) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_layer(io.BytesIO(sample_tar(4096)), Full(), WriteOptions(LayerKind.ESTARGZ))  # type: ignore[arg-type]


def test_progress_counts_the_source() -> None:
    source = gzip.compress(sample_tar(4096))
    told: list[int] = []
    write_layer(io.BytesIO(source), io.BytesIO(), WriteOptions(LayerKind.ESTARGZ), progress=told.append)
    assert told == sorted(told)
    assert told[-1] == len(source)


def test_a_file_of_many_batches_has_its_digest() -> None:
    data = noise(9_000_000)
    for kind in LAZY:
        _, written = write(files_tar({"big": data}), kind, chunk_size=1 << 20)
        one = next(one for one in json.loads(written.toc)["entries"] if one["name"] == "big")
        assert one["digest"] == f"sha256:{hashlib.sha256(data).hexdigest()}"


# What is read of files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LAZY)
def test_a_file_that_is_read_in_parts_comes_last_and_one_that_is_hardly_read_stays_behind_the_landmark(
    kind: LayerKind,
) -> None:
    big = 1 << 20
    tar = files_tar({"other": b"1", "hardly": noise(big), "partly": noise(big), "whole": noise(big), "small": b"2"})
    accesses = (
        FileAccess("hardly", 0, 4096),
        FileAccess("partly", 0, 3 * big // 4),
        FileAccess("whole", 0, big),
        FileAccess("small", 0, 1),
    )
    wanted = ("hardly", "partly", "whole", "small")
    _, written = write(tar, kind, prioritized=wanted, accesses=accesses)
    entries = json.loads(written.toc)["entries"]
    order = [one["name"] for one in entries if one["type"] == "reg"]
    assert order == ["whole", "small", "partly", ".prefetch.landmark", "other", "hardly"]
    chunks = {name: sum(one["name"] == name for one in entries) for name in wanted}
    if kind is not LayerKind.ZSTD_CHUNKED_PODMAN:  # which finds its chunks in the content
        assert chunks == {"hardly": 16, "partly": 16, "whole": 1, "small": 1}
    ranges = parse_ranges(written.descriptor.annotations[PREFETCH_ANNOTATION], written.descriptor.size)
    assert sum(size for _, size in ranges) < 2.1 * big


def test_what_is_read_through_a_hard_link_is_read_of_its_target() -> None:
    tar = make_tar([(entry("target"), noise(500_000)), (entry("link", type=tarfile.LNKTYPE, linkname="target"), b"")])
    accesses = (FileAccess("link", 0, None),)
    _, written = write(tar, LayerKind.ESTARGZ, prioritized=("link",), accesses=accesses)
    [(_, size)] = parse_ranges(written.descriptor.annotations[PREFETCH_ANNOTATION], written.descriptor.size)
    assert size >= 500_000


def test_nothing_is_told_where_nobody_knows_what_is_read() -> None:
    _, written = write(files_tar({"a": b"1"}), LayerKind.ESTARGZ, prioritized=("a",))
    assert PREFETCH_ANNOTATION not in written.descriptor.annotations
