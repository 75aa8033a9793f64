"""Files of the root that somebody removes, truncates or overwrites: noticed, mended, said once; never a wrong byte."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.images import BuiltImage, File, build_layer, put_image
from tests.fakes.registry import FakeRegistry

from .conftest import Daemon

FILES = {"small": os.urandom(3_000), "large": os.urandom(400_000), "etc/other": os.urandom(60_000)}
NAMES = ("ledger", "lock", "documents", "index", "content", "present", "blob", "everything of the layer")
DAMAGES = ("gone", "empty", "garbage")
NOTICE_SECONDS = 30.0


@pytest.fixture
def image(registry: FakeRegistry) -> BuiltImage:
    return put_image(registry, [build_layer([File(name, data) for name, data in FILES.items()])])


def read_all(daemon: Daemon, image: BuiltImage) -> None:
    """Everything is there, and right; past the kernel's own cache."""
    diff = daemon.layer(image) / "diff"
    for name, data in FILES.items():
        with (diff / name).open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            assert file.read() == data
    assert (daemon.layer(image) / "blob").read_bytes() == image.layers[0].blob
    assert (daemon.image(image) / "manifest").read_bytes() == image.manifest
    assert (daemon.image(image) / "config").read_bytes() == image.config


def files(daemon: Daemon, name: str) -> list[Path]:
    if name in ("ledger", "lock"):
        return [daemon.root / name]
    if name == "documents":
        return [*(daemon.root / name).iterdir()]
    if name == "blob":
        return [*(daemon.root / "blobs").iterdir()]
    return [*daemon.root.glob("layers/*/*" if name.startswith("every") else f"layers/*/{name}")]


def harm(path: Path, damage: str) -> None:
    size = path.stat().st_size
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(b"" if damage == "empty" else os.urandom(max(size, 64)))


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + NOTICE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def warnings(daemon: Daemon) -> list[str]:
    """What the guard and the readers complain about."""
    return [line for line in daemon.log_text().splitlines() if line.startswith(("warning:", "error:"))]


@pytest.mark.parametrize("damage", DAMAGES)
def test_files_that_are_damaged_while_the_daemon_is_stopped_one_after_the_other(
    daemon: Daemon, image: BuiltImage, damage: str
) -> None:
    daemon.start()
    for name in NAMES:
        read_all(daemon, image)
        assert daemon.stop() == 0
        for path in files(daemon, name):
            harm(path, damage)
        daemon.start()
        read_all(daemon, image)
        assert len(warnings(daemon)) <= (3 if name.startswith("every") else 2), (name, warnings(daemon))


@pytest.mark.parametrize("damage", DAMAGES)
def test_files_that_are_damaged_while_the_daemon_runs_one_after_the_other(
    daemon: Daemon, image: BuiltImage, damage: str
) -> None:
    daemon.start()
    read_all(daemon, image)
    for name in NAMES:
        before = len(warnings(daemon))
        for path in files(daemon, name):
            harm(path, damage)
        # Documents are checked when they are read; what a lock holds means nothing.
        if name != "documents" and (name != "lock" or damage == "gone"):
            wait_for(lambda before=before: len(warnings(daemon)) > before, f"nobody noticed {name}")  # type: ignore[misc]
        read_all(daemon, image)
        seen = warnings(daemon)[before:]
        assert len(seen) <= (5 if name.startswith("every") else 2), seen
    daemon.stop()
    daemon.start()
    read_all(daemon, image)
    assert warnings(daemon) == []


def test_the_control_socket_comes_back(daemon: Daemon) -> None:
    daemon.start()
    (daemon.root / "control.sock").unlink()
    wait_for((daemon.root / "control.sock").exists, "nobody noticed")
    assert daemon.stop() == 0


def test_a_whole_root_that_is_removed_under_the_daemon_comes_back(daemon: Daemon, image: BuiltImage) -> None:
    daemon.start()
    read_all(daemon, image)
    for path in daemon.root.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    wait_for((daemon.root / "lock").exists, "nobody noticed")
    wait_for((daemon.root / "ledger").exists, "nobody noticed")
    read_all(daemon, image)
    daemon.stop()
    daemon.start()
    read_all(daemon, image)


@pytest.mark.parametrize("seed", range(5))
def test_one_flipped_bit_in_every_file_never_gives_a_wrong_byte(daemon: Daemon, image: BuiltImage, seed: int) -> None:
    daemon.start()
    read_all(daemon, image)
    daemon.stop()
    for path in daemon.root.rglob("*"):
        if path.is_file() and path.stat().st_size:
            data = bytearray(path.read_bytes())
            data[seed * (len(data) - 1) // 4] ^= 1 << seed
            path.write_bytes(data)
    daemon.start()
    read_all(daemon, image)
