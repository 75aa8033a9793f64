"""A plain layer is unpacked whole, once, and nothing of it is there before its digests matched."""

import base64
import gzip
import hashlib
import io
import json
import os
import random
import tarfile
import tracemalloc
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest
import trio

from registry_storage._ext.writer import compress_pieces
from registry_storage.cache.content import Content, state_bytes
from registry_storage.descriptor import Descriptor
from registry_storage.digest import Digest
from registry_storage.errors import FormatError, RegistryStorageError, UnavailableError, VerificationError
from registry_storage.formats.plain import plain
from registry_storage.layer.plain import CHUNK_BYTES, remove_unfinished, tar_split_of, unpack_layer
from registry_storage.layer.tar_of_blob import TarOfBlob
from registry_storage.registry.hosts import LinkEstimate
from registry_storage.toc.index import TocIndex

GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"


class Source:
    """A blob that comes in small parts."""

    def __init__(self, blob: bytes, *, breaks_at: int | None = None) -> None:
        self.blob = blob
        self.breaks_at = breaks_at
        self.link = LinkEstimate()

    async def stream(self, offset: int, size: int) -> AsyncGenerator[bytes, None]:
        end = offset + size
        while offset < end:
            await trio.lowlevel.checkpoint()
            if self.breaks_at is not None and offset >= self.breaks_at:
                raise UnavailableError("the registry is gone")
            part = self.blob[offset : min(offset + 50_000, end)]
            offset += len(part)
            yield part


def compressed(tar: bytes, how: str) -> bytes:
    if how == "gzip":
        return gzip.compress(tar, 1, mtime=0)
    return compress_pieces(4, 1, tar, [len(tar)])[0] if how == "zstd" else tar


class Unpacked:
    """A layer after `unpack_layer`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.index = TocIndex((directory / "index").read_bytes())
        count = self.index.chunk_count
        state = memoryview(bytearray(state_bytes(count)))
        self.content = Content(directory, size=self.index.content_size, chunk_count=count, state=state)

    def inode(self, path: str) -> int:
        inode = 0
        for part in path.split("/"):
            found = self.index.lookup(inode, part.encode())
            assert found is not None, path
            inode = found
        return inode

    def read(self, path: str) -> bytes:
        inode = self.inode(path)
        return self.content.read(self.index.content_offset(inode), self.index.attributes(inode).size)

    def check_chunks(self) -> None:
        """What a later daemon hashes again is right."""
        for number in range(self.index.chunk_count):
            chunk = self.index.chunk(number)
            if not chunk.is_hole:
                assert self.content.is_present(number)
                assert Digest.of(self.content.read_chunk(chunk)).raw == chunk.digest_raw


async def unpack(
    directory: Path, tar: bytes, how: str = "gzip", *, blob: bytes | None = None, diff_id: Digest | None = None,
    digest: Digest | None = None, source: Source | None = None,
) -> Unpacked:  # fmt: skip
    blob = compressed(tar, how) if blob is None else blob
    descriptor = Descriptor(GZIP, digest or Digest.of(blob), len(blob))
    await unpack_layer(
        directory / "layer", source or Source(blob), descriptor, diff_id or Digest.of(tar),
        trio.CapacityLimiter(1), lambda _: None, lambda _: None,
    )  # fmt: skip
    return Unpacked(directory / "layer")


def make_tar(fill: Callable[[tarfile.TarFile], None]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        fill(archive)
    return buffer.getvalue()


def add(archive: tarfile.TarFile, name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, **more: object) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mtime = kind, len(data), 1_700_000_000
    for key, value in more.items():
        setattr(info, key, value)
    archive.addfile(info, io.BytesIO(data))


def some_files(archive: tarfile.TarFile) -> None:
    chance = random.Random(7)
    add(archive, "etc", kind=tarfile.DIRTYPE, mode=0o755)
    add(archive, "etc/hosts", b"127.0.0.1 localhost\n", mode=0o640, uid=5, gid=6)
    add(archive, "empty")
    for number in range(300):
        add(archive, f"many/{number}", chance.randbytes(chance.choice((1, 7, 8, 100, 4095, 4096, 4097, 20_000))))
    add(archive, "large", chance.randbytes(CHUNK_BYTES + 12_345))
    add(archive, "zeros", bytes(100_000))
    add(archive, "link", kind=tarfile.SYMTYPE, linkname="etc/hosts")
    add(archive, "hard", kind=tarfile.LNKTYPE, linkname="large")
    add(archive, "etc/.wh.gone")
    add(archive, "null", kind=tarfile.CHRTYPE, devmajor=1, devminor=3)
    add(archive, "with attributes", b"x", pax_headers={"SCHILY.xattr.user.colour": "blue"})


@pytest.mark.parametrize("how", ["gzip", "zstd", "none"])
async def test_the_tree_is_what_the_tar_says(tmp_path: Path, how: str) -> None:
    tar = make_tar(some_files)
    layer = await unpack(tmp_path, tar, how)
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        for member in archive:
            if member.isreg() and ".wh." not in member.name:
                extracted = archive.extractfile(member)
                assert extracted is not None
                assert layer.read(member.name) == extracted.read(), member.name
    hosts = layer.index.attributes(layer.inode("etc/hosts"))
    assert (hosts.mode & 0o7777, hosts.uid, hosts.gid) == (0o640, 5, 6)
    assert layer.inode("hard") == layer.inode("large")
    assert layer.index.read_link(layer.inode("link")) == b"etc/hosts"
    assert layer.index.xattr(layer.inode("with attributes"), b"user.colour") == b"blue"
    assert layer.index.attributes(layer.inode("etc/gone")).rdev == 0
    layer.check_chunks()
    assert sorted(os.listdir(layer.directory)) == ["content", "index", "present", "tar-split.gz"]


async def test_a_name_that_comes_twice_is_what_came_last(tmp_path: Path) -> None:
    def fill(archive: tarfile.TarFile) -> None:
        add(archive, "a", b"first" * 5000)
        add(archive, ".prefetch.landmark", b"\x0f")
        add(archive, "b", b"between" * 3000)
        add(archive, "a", b"second" * 100)
        add(archive, "c", b"behind" * 5000)

    layer = await unpack(tmp_path, make_tar(fill))
    assert layer.read("a") == b"second" * 100
    assert layer.read("b") == b"between" * 3000
    assert layer.read("c") == b"behind" * 5000
    layer.check_chunks()
    assert (layer.directory / "content").stat().st_size == layer.index.content_size


def reassemble(split: Path, layer: Unpacked) -> bytes:
    """What podman does with a tar-split."""
    tar = b""
    with gzip.open(split) as lines:
        for position, line in enumerate(lines):
            entry = json.loads(line)
            assert entry["position"] == position
            if entry["type"] == 2:
                tar += base64.b64decode(entry["payload"])
            elif entry["payload"]:
                data = layer.read(entry["name"])
                assert len(data) == entry["size"]
                tar += data
    return tar


async def test_the_tar_split_gives_the_tar_back(tmp_path: Path) -> None:
    tar = make_tar(some_files)
    layer = await unpack(tmp_path, tar)
    split = tar_split_of(layer.directory)
    assert split is not None
    assert reassemble(split, layer) == tar


async def test_a_chunk_can_be_fetched_again_from_the_tar(tmp_path: Path) -> None:
    tar = make_tar(some_files)
    for how in ("gzip", "zstd", "none"):
        blob = compressed(tar, how)
        (tmp_path / how).mkdir()
        layer = await unpack(tmp_path / how, tar, how)
        source = TarOfBlob("x", Source(blob), len(blob), trio.CapacityLimiter(1))
        for path in ("etc/hosts", "large"):
            first, end = layer.index.chunk_range(layer.inode(path), 0, 1 << 40)
            for number in range(first, end):
                chunk = layer.index.chunk(number)
                span = b"".join([part async for part in source.stream(chunk.blob_offset, chunk.blob_size)])
                job = (0, len(span), chunk.inner_offset, chunk.size, chunk.digest_raw)
                layer_format = plain(Descriptor(GZIP, Digest.of(blob), len(blob))).format
                assert layer_format.decode_many(span, [job]) == [(0, layer.content.read_chunk(chunk))]


def sparse_tar(real_size: int, parts: list[tuple[int, bytes]]) -> bytes:
    """GNU's format 1.0."""
    lines = [str(len(parts))] + [str(number) for offset, data in parts for number in (offset, len(data))]
    text = ("\n".join(lines) + "\n").encode()
    text += bytes(-len(text) % 512)
    data = text + b"".join(data for _, data in parts)
    headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "sparse",
        "GNU.sparse.realsize": str(real_size),
    }

    def fill(archive: tarfile.TarFile) -> None:
        add(archive, "GNUSparseFile/sparse", data, pax_headers=headers)
        add(archive, "behind", b"behind it")

    return make_tar(fill)


async def test_holes_of_a_sparse_file_cost_nothing(tmp_path: Path) -> None:
    tar = sparse_tar(1 << 40, [(0, b"start"), (1 << 30, b"middle" * 1000)])
    layer = await unpack(tmp_path, tar)
    inode = layer.inode("sparse")
    assert layer.index.attributes(inode).size == 1 << 40
    place = layer.index.content_offset(inode)
    assert layer.content.read(place, 10) == b"start\0\0\0\0\0"
    assert layer.content.read(place + (1 << 30), 12) == b"middlemiddle"
    assert layer.read("behind") == b"behind it"
    assert (layer.directory / "content").stat().st_blocks * 512 < 1 << 20
    layer.check_chunks()
    assert tar_split_of(layer.directory) is None, "its content is not in the tar as a whole"


async def test_a_file_that_is_one_hole(tmp_path: Path) -> None:
    layer = await unpack(tmp_path, sparse_tar(1 << 20, []))
    assert layer.read("sparse") == bytes(1 << 20)


async def _refused(tmp_path: Path, kind: type[RegistryStorageError], words: str, **how: object) -> None:
    with pytest.raises(kind, match=words) as caught:
        await unpack(tmp_path, make_tar(some_files), **how)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


async def test_what_does_not_match_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    tar, other = make_tar(some_files), Digest.of(b"other")
    blob = compressed(tar, "gzip")
    await _refused(tmp_path, VerificationError, "the blob: wanted", digest=other)
    await _refused(tmp_path, VerificationError, "the diffID of its tar: wanted", diff_id=other)
    await _refused(tmp_path, FormatError, "corrupt gzip stream", blob=blob[:1000] + b"\0" * 1000 + blob[2000:])
    await _refused(tmp_path, FormatError, "cut off", blob=blob[:-20])
    await _refused(tmp_path, FormatError, "cut off", blob=gzip.compress(tar[:100_000]))
    await _refused(tmp_path, FormatError, "bzip2", blob=b"BZh91AY&SY" + bytes(100))
    await _refused(tmp_path, UnavailableError, "gone", source=Source(blob, breaks_at=200_000))


async def test_who_gives_up_leaves_nothing(tmp_path: Path) -> None:
    class Stalled(Source):
        async def stream(self, offset: int, size: int) -> AsyncGenerator[bytes, None]:
            yield self.blob[:200_000]
            stalled.set()
            await trio.sleep_forever()

    stalled = trio.Event()
    tar = make_tar(some_files)
    async with trio.open_nursery() as nursery:
        source = Stalled(compressed(tar, "gzip"))
        nursery.start_soon(lambda: unpack(tmp_path, tar, source=source))
        await stalled.wait()
        nursery.cancel_scope.cancel()
    assert os.listdir(tmp_path) == []


async def test_what_a_killed_daemon_had_begun_is_removed(tmp_path: Path) -> None:
    layer = await unpack(tmp_path, make_tar(some_files))
    unfinished = tmp_path / f".{layer.directory.name}.new"
    unfinished.mkdir()
    (unfinished / "content").write_bytes(b"x")
    remove_unfinished(tmp_path)
    assert os.listdir(tmp_path) == ["layer"]


async def test_memory_does_not_depend_on_the_size_of_a_file(tmp_path: Path) -> None:
    """A gibibyte of zeros in a megabyte of gzip: written piece by piece."""

    def fill(archive: tarfile.TarFile) -> None:
        info = tarfile.TarInfo("zeros")
        info.size = 1 << 28
        with open("/dev/zero", "rb") as zeros:
            archive.addfile(info, zeros)

    path = tmp_path / "blob"
    with gzip.open(path, "wb", compresslevel=1) as packed, tarfile.open(fileobj=packed, mode="w|") as archive:
        fill(archive)

    with gzip.open(path) as packed:
        diff_id = Digest(hashlib.file_digest(packed, "sha256").hexdigest())
    tracemalloc.start()
    try:
        layer = await unpack(tmp_path, b"", blob=path.read_bytes(), diff_id=diff_id)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert layer.index.total_file_bytes == 1 << 28
    assert peak < 24 << 20
