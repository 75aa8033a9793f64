"""What is seen at the mount point."""

import json
import os
import stat
import time
from pathlib import Path

import pytest

from tests.fakes.images import KINDS, BuiltImage, File, build_layer, directory, put_image
from tests.fakes.registry import FakeRegistry

from .conftest import Daemon

BIG = b"".join(f"line {i}\n".encode() for i in range(40_000))

FILES = [
    directory("etc/"),
    File("etc/passwd", b"root:x:0:0::/root:/bin/sh\n", mode=0o600),
    File("etc/link", type="symlink", link="passwd", mode=0o777),
    File("etc/passwd-", type="hardlink", link="etc/passwd"),
    directory("usr/", mode=0o2755, uid=3, gid=4),
    File("usr/bin/tool", b"#!/bin/sh\n", mode=0o4755, uid=1, gid=2, xattrs={"user.note": b"hello"}),
    File("usr/big", BIG),
    File("usr/empty"),
    File("dev/null", type="char", major=1, minor=3, mode=0o666),
    File("dev/disk", type="block", major=8, minor=1, mode=0o660),
    File("dev/pipe", type="fifo", mode=0o644),
    File("gone/.wh.secret"),
    directory("fresh/"),
    File("fresh/.wh..wh..opq"),
    File(".no.prefetch.landmark", b"\x0f"),
]


@pytest.fixture(params=KINDS)
def image(request: pytest.FixtureRequest, registry: FakeRegistry) -> BuiltImage:
    return put_image(registry, [build_layer(FILES, request.param)])


@pytest.fixture
def diff(daemon: Daemon, image: BuiltImage) -> Path:
    daemon.start()
    return daemon.layer(image) / "diff"


def test_the_tree_is_what_the_toc_says(diff: Path) -> None:
    assert sorted(os.listdir(diff)) == ["dev", "etc", "fresh", "gone", "usr"]
    assert (diff / "etc/passwd").read_bytes() == b"root:x:0:0::/root:/bin/sh\n"
    assert (diff / "usr/big").read_bytes() == BIG
    assert (diff / "usr/empty").read_bytes() == b""
    assert os.readlink(diff / "etc/link") == "passwd"
    tool = (diff / "usr/bin/tool").stat()
    assert (stat.S_IMODE(tool.st_mode), tool.st_uid, tool.st_gid, tool.st_size) == (0o4755, 1, 2, 10)
    assert tool.st_mtime == 1714979289
    assert os.getxattr(diff / "usr/bin/tool", "user.note") == b"hello"
    assert os.listxattr(diff / "usr/bin/tool") == ["user.note"]
    with pytest.raises(OSError, match="No data available"):
        os.getxattr(diff / "usr/bin/tool", "user.other")


def test_hard_links_are_one_inode(diff: Path) -> None:
    one, other = (diff / "etc/passwd").stat(), (diff / "etc/passwd-").stat()
    assert (one.st_ino, one.st_nlink) == (other.st_ino, 2)


def test_directories_count_their_subdirectories(diff: Path) -> None:
    assert diff.stat().st_nlink == 2 + 5
    assert (diff / "usr").stat().st_nlink == 2 + 1
    assert stat.S_IMODE((diff / "usr").stat().st_mode) == 0o2755
    assert stat.S_IMODE((diff / "usr/bin").stat().st_mode) == 0o755


def test_devices_and_pipes_are_what_they_are(diff: Path) -> None:
    null, disk, pipe = ((diff / "dev" / name).lstat() for name in ("null", "disk", "pipe"))
    assert stat.S_ISCHR(null.st_mode)
    assert null.st_rdev == os.makedev(1, 3)
    assert stat.S_ISBLK(disk.st_mode)
    assert disk.st_rdev == os.makedev(8, 1)
    assert stat.S_ISFIFO(pipe.st_mode)


def test_whiteouts_are_devices_and_opaque_directories_say_so(diff: Path) -> None:
    secret = (diff / "gone/secret").lstat()
    assert stat.S_ISCHR(secret.st_mode)
    assert secret.st_rdev == 0
    assert os.listdir(diff / "fresh") == []
    for name in ("trusted.overlay.opaque", "user.overlay.opaque"):
        assert os.getxattr(diff / "fresh", name) == b"y"


def test_what_is_hidden_is_hidden(diff: Path) -> None:
    for name in (".no.prefetch.landmark", "stargz.index.json", ".wh.secret", "gone/.wh.secret", "fresh/.wh..wh..opq"):
        assert not os.path.lexists(diff / name)


def test_reads_anywhere_are_right(diff: Path) -> None:
    with (diff / "usr/big").open("rb", buffering=0) as file:
        places = ((0, 1), (65535, 2), (65536, 131072), (len(BIG) - 5, 100), (len(BIG) + 7, 10), (1, 300_000))
        for offset, size in places:
            assert os.pread(file.fileno(), size, offset) == BIG[offset : offset + size]


def test_the_tree_cannot_be_written(diff: Path) -> None:
    for attempt in (
        lambda: (diff / "new").write_text("x"),
        lambda: (diff / "usr/big").write_text("x"),
        lambda: (diff / "usr/big").unlink(),
        lambda: (diff / "fresh").rmdir(),
        lambda: (diff / "x").mkdir(),
        lambda: os.chmod(diff / "usr/big", 0),
        lambda: os.symlink("a", diff / "b"),
        lambda: os.setxattr(diff / "usr/big", "user.a", b"b"),
        lambda: os.rename(diff / "usr/big", diff / "usr/small"),
    ):
        with pytest.raises(OSError, match="Read-only file system"):
            attempt()


def test_layer_is_another_name_of_diff(daemon: Daemon, diff: Path, image: BuiltImage) -> None:
    assert os.readlink(daemon.layer(image) / "layer") == "diff"
    assert (daemon.layer(image) / "layer/etc/passwd").exists()


def test_info_speaks_to_both_generations_of_podman(daemon: Daemon, diff: Path, image: BuiltImage) -> None:
    layer = image.layers[0]
    new = json.loads((daemon.layer(image) / "info").read_bytes())
    assert new["toc-digest"] == str(layer.toc_digest)
    assert new["flags"] == {"expected-layer-diffid": str(image.diff_ids[0])}
    assert "diff-digest" not in new
    old = json.loads((daemon.layer(image, by_toc=False) / "info").read_bytes())
    assert old["diff-digest"] == str(image.diff_ids[0])
    assert old["compressed-diff-digest"] == str(layer.descriptor.digest)
    assert old["compressed-size"] == len(layer.blob)
    assert new["compression"] == old["compression"] == (2 if "gzip" in layer.descriptor.media_type else 4)


def test_blob_manifest_and_config_are_those_of_the_registry(daemon: Daemon, diff: Path, image: BuiltImage) -> None:
    assert (daemon.layer(image) / "blob").read_bytes() == image.layers[0].blob
    assert (daemon.layer(image) / "blob").stat().st_size == len(image.layers[0].blob)
    assert (daemon.image(image) / "manifest").read_bytes() == image.manifest
    assert (daemon.image(image) / "config").read_bytes() == image.config


def test_the_file_system_reports_the_space_of_the_cache(daemon: Daemon, diff: Path) -> None:
    shown, real = os.statvfs(diff), os.statvfs(daemon.root)
    assert (shown.f_blocks, shown.f_bsize, shown.f_namemax) == (real.f_blocks, real.f_bsize, 255)


def test_uses_are_counted_and_always_answered_with_enoent(daemon: Daemon, diff: Path, image: BuiltImage) -> None:
    directory = daemon.layer(image)
    for expected in (1, 2):
        with pytest.raises(FileNotFoundError):
            (directory / "use").write_text("")
        assert f"one more use, {expected} now" in daemon.log_text()
    assert not (directory / "use").exists()
    for expected in (1, 0, 0):
        with pytest.raises(FileNotFoundError):
            directory.rmdir()
        assert f"one use less, {expected} now" in daemon.log_text()
    assert (directory / "diff/etc/passwd").exists()


def test_a_chain_is_the_merged_tree(daemon: Daemon, registry: FakeRegistry) -> None:
    layers = [
        build_layer([File("a/one", b"1"), File("a/two", b"2"), File("b/three", b"3"), File("c", b"c")]),
        build_layer(
            [File("a/.wh.one"), File("a/four", b"4"), directory("b/"), File("b/.wh..wh..opq"), File("b/five", b"5")]
        ),
        build_layer([File(".wh.c"), File("a/two", b"new")], "estargz"),
    ]
    image = put_image(registry, layers, "team/chained:v1")
    daemon.start()
    top = daemon.layer(image, 2) / "chain"
    assert sorted(os.listdir(top)) == ["a", "b"]
    assert sorted(os.listdir(top / "a")) == ["four", "two"]
    assert (top / "a/two").read_bytes() == b"new"
    assert (top / "a/four").read_bytes() == b"4"
    assert os.listdir(top / "b") == ["five"]
    middle = daemon.layer(image, 1) / "chain"
    assert sorted(os.listdir(middle)) == ["a", "b", "c"]
    assert (middle / "a/two").read_bytes() == b"2"
    bottom = daemon.layer(image, 0) / "chain"
    assert sorted(os.listdir(bottom / "a")) == ["one", "two"]
    assert (bottom / "b/three").read_bytes() == b"3"


def test_a_directory_of_thousands_is_listed_whole(daemon: Daemon, registry: FakeRegistry) -> None:
    names = [f"file-{i:05d}-{'x' * (i % 200)}" for i in range(3000)]
    image = put_image(registry, [build_layer([File(f"many/{name}") for name in names])])
    daemon.start()
    assert sorted(os.listdir(daemon.layer(image) / "diff/many")) == names


def test_inode_numbers_survive_a_restart(daemon: Daemon, image: BuiltImage) -> None:
    daemon.start()
    directory = daemon.layer(image) / "diff"
    before = {path: path.lstat().st_ino for path in sorted(directory.rglob("*"))}
    assert daemon.stop() == 0
    daemon.start()
    assert {path: path.lstat().st_ino for path in sorted(directory.rglob("*"))} == before


def test_unknown_names_are_absent_without_delay(daemon: Daemon, image: BuiltImage) -> None:
    daemon.start()
    started = time.monotonic()
    assert not (daemon.mountpoint / "not base64").exists()
    assert not (daemon.mountpoint / "bm90IGEgcmVmZXJlbmNlIQ==").exists()
    assert not (daemon.image(image) / "no-digest").exists()
    assert not (daemon.image(image) / ("sha256:" + "0" * 64)).exists()
    assert not (daemon.layer(image) / "nothing").exists()
    assert time.monotonic() - started < 5
