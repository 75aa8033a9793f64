"""The instruments of these tests measure: the link counts and delays, the comparison sees every kind of change."""

import os
import shutil
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.link import Link
from lab.registry import Registry
from tests.interop.trees import differences, walk


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "storage", tmp_path / "scratch")


def test_the_link_counts_what_crosses_it_and_begins_anew(registry: Registry) -> None:
    with registry, Link(registry.host) as link:
        with urllib.request.urlopen(f"http://{link.host}/v2/_catalog", timeout=10) as response:
            body = response.read()
        crossed = link.crossed()
        assert crossed.down_bytes > len(body)
        assert crossed.requests == crossed.connections == 1
        assert link.crossed().down_bytes == 0


def test_the_link_delays_by_its_round_trip(registry: Registry) -> None:
    with registry, Link(registry.host, rtt_ms=100) as link:
        begin = time.monotonic()
        with urllib.request.urlopen(f"http://{link.host}/v2/", timeout=10) as response:
            response.read()
        assert time.monotonic() - begin >= 0.2  # one for the handshake, one for the request


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes owners and makes devices")
@pytest.mark.parametrize(
    ("change", "fields"),
    [
        (lambda top: (top / "file").write_bytes(b"Text"), {"sha256"}),
        (lambda top: (top / "file").write_bytes(b"text, longer"), {"sha256", "size"}),
        (lambda top: (top / "file").chmod(0o600), {"mode"}),
        (lambda top: os.chown(top / "file", 7, 8), {"uid", "gid"}),
        (lambda top: os.utime(top / "file", (5, 5)), {"mtime_ns"}),
        (lambda top: os.setxattr(top / "file", "user.note", b"2"), {"xattrs"}),
        (lambda top: (top / "directory/new").touch(), {"name", "mtime_ns"}),
        (lambda top: (top / "directory/inner").rmdir(), {"name", "nlink", "mtime_ns"}),
        (lambda top: _replace(top / "link", lambda path: path.symlink_to("elsewhere")), {"target", "size"}),
        (lambda top: _replace(top / "device", lambda path: os.mknod(path, 0o20600, 259)), {"rdev"}),
        (lambda top: _replace(top / "device", lambda path: os.mkfifo(path, 0o600)), {"type", "rdev"}),
        (
            lambda top: _replace(top / "second", lambda path: shutil.copy2(top / "file", path)),
            {"nlink", "same_file_as"},
        ),
    ],
)
def test_the_comparison_sees_each_kind_of_change(
    tmp_path: Path, change: Callable[[Path], object], fields: set[str]
) -> None:
    top = tmp_path / "top"
    (top / "directory/inner").mkdir(parents=True)
    (top / "file").write_bytes(b"text")
    os.setxattr(top / "file", "user.note", b"1")
    os.utime(top / "file", (9, 9))
    os.link(top / "file", top / "second")
    (top / "link").symlink_to("file")
    os.mknod(top / "device", 0o20600, 258)
    before = walk(top)
    assert differences(before, walk(top)) == []
    change(top)
    ignored = {"mtime_ns"} if "mtime_ns" not in fields else set()
    assert {one.field for one in differences(before, walk(top))} - ignored == fields


def _replace(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)
