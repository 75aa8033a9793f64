"""What every compression of layers must fulfil.

    from registry_storage.testing import Codec, LayerConformance

    class TestMine(LayerConformance):
        codec = Codec("mine", MyCompressor(), MyDecompressor(), unpack=my_decompress)
"""

import hashlib
import io
import json
import os
import stat
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from ..convert.blob_reader import LayerReader
from ..convert.layer_writer import WrittenLayer, write_layer
from ..convert.options import LayerKind, WriteOptions
from ..digest import Digest
from ..errors import InvalidInputError, NoSuchNodeError, RegistryStorageError, VerificationError
from ..formats.base import Compressor, ExternalToc, LayerFormat, TocLocation
from ..formats.detect import detect
from ..formats.estargz import TOC_DIGEST_ANNOTATION
from ..formats.zstd_chunked import PODMAN_CHECKSUM
from . import sample_tar as samples

CHUNK = 4096
"""The chunk size of the tests."""


@dataclass(frozen=True, slots=True)
class Codec:
    """A compression under test."""

    name: str
    compressor: Compressor
    decompressor: LayerFormat
    unpack: Callable[[bytes], bytes]
    """What an ordinary unpacker makes of a whole blob: the tar."""
    kind: LayerKind = LayerKind.ESTARGZ
    """Whose rules of cutting it is used with; a kind of its own has those of eStargz."""
    known: bool = False
    """`registry_storage.formats.detect` recognises it by media type and annotations."""


class LayerConformance:
    """Inherit, name the class ``Test…``, and set `codec`."""

    codec: ClassVar[Codec]

    # Tools ---------------------------------------------------------------------------------------------------

    def write(self, tar: bytes, *, jobs: int = 2, **options: Any) -> tuple[bytes, WrittenLayer]:
        """A blob of `tar`; `options` are those of WriteOptions."""
        target = io.BytesIO()
        options.setdefault("chunk_size", CHUNK)
        written = write_layer(
            io.BytesIO(tar),
            target,
            WriteOptions(self.codec.kind, **options),
            jobs=jobs,
            compressor=self.codec.compressor,
        )
        return target.getvalue(), written

    def open(self, blob: bytes, written: WrittenLayer) -> LayerReader:
        """The blob with its TOC verified."""
        return LayerReader.open(blob, layer_format=self.codec.decompressor, toc_digest=written.toc_digest)

    def toc(self, written: WrittenLayer) -> list[dict[str, Any]]:
        """The entries of the TOC."""
        entries: list[dict[str, Any]] = json.loads(written.toc)["entries"]
        return entries

    # Round trip ----------------------------------------------------------------------------------------------

    def test_every_file_reads_as_it_was_written(self) -> None:
        entries = samples.sample_entries(CHUNK)
        blob, written = self.write(samples.make_tar(entries))
        with self.open(blob, written) as reader:
            for info, content in {info.name: (info, content) for info, content in entries}.values():
                if info.isreg() and "/.wh." not in info.name:
                    assert reader.read(info.name) == content, info.name

    def test_any_part_of_a_file_reads_alone(self) -> None:
        content = samples.noise(3 * CHUNK + 100)
        blob, written = self.write(samples.files_tar({"before": b"x", "file": content, "after": b"y"}))
        reader = self.open(blob, written)
        for offset in (0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 99, 3 * CHUNK + 100, 9 * CHUNK):
            for size in (0, 1, 2, CHUNK, CHUNK + 1, 9 * CHUNK):
                assert reader.read("file", offset, size) == content[offset : offset + size]

    def test_metadata_is_kept(self) -> None:
        blob, written = self.write(samples.sample_tar(CHUNK))
        reader = self.open(blob, written)
        assert reader.stat("bin/tool").mode == stat.S_IFREG | 0o4755
        assert reader.stat("bin/tool").xattrs == ((b"user.note", b"text"),)
        assert reader.stat("bin/tool").inode == reader.stat("bin/again").inode
        assert reader.stat("bin/tool").nlink == 2
        assert (reader.stat("etc/hostname").uid, reader.stat("etc/hostname").gid) == (1000, 100)
        assert reader.stat("etc/link").target == "../etc/hostname"
        assert reader.stat("dev/null").mode == stat.S_IFCHR | 0o666
        assert reader.stat("dev/null").rdev == os.makedev(1, 3)
        assert reader.stat("dev/disk").rdev == os.makedev(8, 17)
        assert stat.S_ISFIFO(reader.stat("dev/pipe").mode)
        assert reader.stat("times/fraction").mtime_ns == 1_500_000_000_250_000_000
        assert reader.stat("etc/hostname").mtime_ns == samples.MTIME * 10**9
        assert reader.stat("gone/file").mode & 0o170000 == stat.S_IFCHR
        assert dict(reader.stat("opaque").xattrs)[b"trusted.overlay.opaque"] == b"y"
        assert reader.read("twice") == b"second"

    def test_lookups_find_what_is_there_and_nothing_else(self) -> None:
        blob, written = self.write(samples.files_tar({"a/b/c": b"1", "a/d": b"2"}))
        reader = self.open(blob, written)
        assert [one.path for one in reader.list()] == ["a", "a/b", "a/b/c", "a/d"]
        for path in ("a/x", "x", "a/b/c/d", ".no.prefetch.landmark", "stargz.index.json"):
            with pytest.raises(NoSuchNodeError):
                reader.stat(path)

    def test_an_empty_layer_can_be_written_and_read(self) -> None:
        for tar in (samples.files_tar({}), bytes(1024)):
            blob, written = self.write(tar)
            reader = self.open(blob, written)
            assert list(reader.list()) == []
            reader.verify()
            assert written.entry_count == 0

    # The tar -------------------------------------------------------------------------------------------------

    def test_an_ordinary_unpacker_sees_the_same_tar(self) -> None:
        source = samples.sample_tar(CHUNK)
        blob, written = self.write(source)
        tar = self.codec.unpack(blob)
        assert Digest.of(tar) == written.diff_id
        assert len(tar) == written.tar_size
        assert tar.endswith(bytes(1024))
        assert _tar_entries(tar) == _tar_entries(source)

    def test_the_blob_is_what_its_descriptor_says(self) -> None:
        blob, written = self.write(samples.sample_tar(CHUNK))
        assert written.descriptor.size == len(blob)
        assert written.descriptor.digest == Digest.of(blob)
        assert written.descriptor.media_type == self.codec.compressor.media_type
        families = {TOC_DIGEST_ANNOTATION, PODMAN_CHECKSUM} & written.descriptor.annotations.keys()
        assert len(families) <= 1
        if self.codec.known:
            assert len(families) == 1
            lazy = detect(written.descriptor)
            assert lazy.toc_digest == written.toc_digest
            LayerReader.open(blob, descriptor=written.descriptor).verify()

    def test_the_same_tar_gives_the_same_bytes(self) -> None:
        # More than a batch, so that batches are compressed at the same time.
        tar = samples.files_tar({f"f{n}": samples.text(40_000, n) for n in range(80)})
        blobs = {self.write(tar, jobs=jobs, chunk_size=1 << 16)[0] for jobs in (1, 2, 7)}
        assert len(blobs) == 1

    # Pieces --------------------------------------------------------------------------------------------------

    def test_a_piece_has_the_same_bytes_whatever_stands_around_it(self) -> None:
        pieces = [samples.text(size, size) for size in (1, 700, 5000, 20_000)]
        ends = [sum(map(len, pieces[: n + 1])) for n in range(len(pieces))]
        whole, sizes = self.codec.compressor.compress(b"".join(pieces), ends)
        assert len(whole) == sum(sizes)
        alone = [self.codec.compressor.compress(piece, [len(piece)])[0] for piece in pieces]
        assert b"".join(alone) == whole
        assert [len(piece) for piece in alone] == sizes

    def test_a_piece_decodes_alone_at_any_inner_offset(self) -> None:
        data = samples.text(20_000)
        piece, _ = self.codec.compressor.compress(data, [len(data)])
        for inner, size in ((0, 1), (0, 20_000), (1, 19_999), (512, 4096), (19_999, 1)):
            assert self.codec.decompressor.decode(piece, inner, size) == data[inner : inner + size]
        with pytest.raises(RegistryStorageError):
            self.codec.decompressor.decode(piece, 1, 20_000)
        with pytest.raises(RegistryStorageError):
            self.codec.decompressor.decode(piece[: len(piece) // 2], 0, 20_000)

    def test_many_chunks_are_decoded_and_compared(self) -> None:
        data = samples.text(9000)
        piece, _ = self.codec.compressor.compress(data, [len(data)])
        good, bad = hashlib.sha256(data[100:200]).digest(), bytes(32)
        span = b"before" + piece + b"after"
        jobs = [(6, len(piece), 100, 100, good), (6, len(piece), 100, 100, bad), (6, len(piece) // 2, 0, 9000, good)]
        first, second, third = self.codec.decompressor.decode_many(span, jobs)
        assert first == (0, data[100:200])
        assert second == (3, good)
        assert third[0] in (1, 2)

    def test_chunks_are_cut_at_the_boundary(self) -> None:
        sizes = (CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 1)
        blob, written = self.write(samples.files_tar({f"f{size}": b"\x01" * size for size in sizes}))
        reader = self.open(blob, written)
        for size in sizes:
            assert reader.stat(f"f{size}").chunk_count == -(-size // CHUNK)
            assert reader.read(f"f{size}") == b"\x01" * size
        reader.verify()

    def test_small_payloads_share_a_piece_when_asked(self) -> None:
        files = {f"f{n:02}": samples.text(600, n) for n in range(40)}
        if self.codec.kind is not LayerKind.ESTARGZ:  # a piece for each chunk, and no way to ask for less
            with pytest.raises(InvalidInputError):
                self.write(samples.files_tar(files), min_chunk_size=8192)
            return
        blob, written = self.write(samples.files_tar(files), min_chunk_size=8192)
        entries = [one for one in self.toc(written) if one["name"] in files]
        assert len({one["offset"] for one in entries}) < 10
        assert any("innerOffset" in one for one in entries)
        reader = self.open(blob, written)
        assert all(reader.read(name) == content for name, content in files.items())
        reader.verify()

    # Priorities ----------------------------------------------------------------------------------------------

    def test_prioritized_files_come_first_in_their_order(self) -> None:
        entries = samples.sample_entries(CHUNK)
        wanted = ("small/030", "bin/again", "etc/hostname", "small/002")
        blob, written = self.write(samples.make_tar(entries), prioritized=wanted)
        names = [one["name"] for one in self.toc(written)]
        end = names.index(".prefetch.landmark")
        assert names[:end] == ["small/030", "bin/tool", "bin/again", "etc/", "etc/hostname", "small/002"]
        assert ".no.prefetch.landmark" not in names
        reader = self.open(blob, written)
        assert {one.path for one in reader.list() if one.prioritized} >= {"small/030", "bin/tool", "small/002"}
        assert not reader.stat("small/031").prioritized
        assert reader.index.prefetch_end > 0
        assert sorted(_tar_entries(self.codec.unpack(blob))) == sorted(_tar_entries(samples.make_tar(entries)))

    def test_without_priorities_the_landmark_says_so(self) -> None:
        blob, written = self.write(samples.files_tar({"f": b"x"}))
        assert self.open(blob, written).index.prefetch_end == 0
        if self.codec.kind is not LayerKind.ZSTD_CHUNKED_PODMAN:
            assert self.open(blob, written).index.no_prefetch
            assert self.toc(written)[0]["name"] == ".no.prefetch.landmark"

    # Verification --------------------------------------------------------------------------------------------

    def test_verification_reads_everything(self) -> None:
        blob, written = self.write(samples.sample_tar(CHUNK))
        verified = self.open(blob, written).verify()
        assert verified.blob_digest == written.descriptor.digest
        assert verified.diff_id in (None, written.diff_id)
        # "twice" was overwritten: its first content is no part of the tree.
        assert 0 < verified.chunks <= written.chunk_count

    def test_a_wrong_toc_digest_is_refused(self) -> None:
        blob, _ = self.write(samples.files_tar({"f": b"x"}))
        with pytest.raises(VerificationError):
            LayerReader.open(blob, layer_format=self.codec.decompressor, toc_digest=Digest("1" * 64))

    def test_a_changed_byte_is_noticed(self) -> None:
        content = samples.noise(CHUNK)
        blob, written = self.write(samples.files_tar({"file": content}))
        chunk = next(one for one in self.toc(written) if one["name"] == "file")
        for step in (40, 1000, 3000):
            broken = bytearray(blob)
            broken[chunk["offset"] + step] ^= 1
            reader = self.open(bytes(broken), written)
            with pytest.raises(RegistryStorageError):
                reader.read("file")
            with pytest.raises(RegistryStorageError):
                reader.verify()

    def test_a_changed_or_cut_end_is_noticed(self) -> None:
        blob, written = self.write(samples.files_tar({"file": b"content"}))
        location = self.codec.decompressor.parse_footer(blob[-self.codec.decompressor.footer_size :], len(blob))
        toc_offset = location.data_end if isinstance(location, ExternalToc) else location.offset
        size = len(blob)
        for at in {toc_offset + 20, (toc_offset + size) // 2, size - 1, size - 30}:
            broken = bytearray(blob)
            broken[at] ^= 0x55
            with pytest.raises(RegistryStorageError):
                self.open(bytes(broken), written).verify()
        with pytest.raises(RegistryStorageError):
            self.open(blob[:-1], written)

    def test_the_footer_says_where_the_toc_is(self) -> None:
        blob, written = self.write(samples.files_tar({"file": samples.noise(CHUNK * 3)}))
        tail = blob[-self.codec.decompressor.footer_size :]
        location = self.codec.decompressor.parse_footer(tail, len(blob))
        assert isinstance(location, TocLocation)
        assert written.toc_digest is not None
        raw = blob[location.offset :]
        assert self.codec.decompressor.open_toc(raw, location, written.toc_digest) == written.toc


def _tar_entries(tar: bytes) -> list[tuple[object, ...]]:
    """Everything of each entry; without landmarks and TOC."""
    found: list[tuple[object, ...]] = []
    with tarfile.open(fileobj=io.BytesIO(tar), errors="surrogateescape", encoding="utf-8") as archive:
        for info in archive:
            if info.name in (".prefetch.landmark", ".no.prefetch.landmark", "stargz.index.json"):
                continue
            file = archive.extractfile(info) if info.isreg() else None
            found.append((
                info.name, info.type, info.size, info.mode, info.uid, info.gid, info.uname, info.gname,
                str(info.mtime), info.linkname, info.devmajor, info.devminor, str(sorted(info.pax_headers.items())),
                file.read() if file is not None else b"",
            ))  # fmt: skip
    return found
