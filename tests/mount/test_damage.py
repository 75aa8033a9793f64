"""Files of the root that somebody removes, truncates or overwrites: noticed, mended, said once; never a wrong byte."""

import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from registry_storage.digest import Digest
from tests.fakes.images import BuiltImage, File, build_layer, put_image
from tests.fakes.registry import FakeRegistry

from .conftest import Daemon

FILES = {"small": os.urandom(3_000), "large": os.urandom(400_000), "etc/other": os.urandom(60_000)}
DAMAGES = ("gone", "cut", "garbage")
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


def files(daemon: Daemon, image: BuiltImage) -> dict[str, Path]:
    """Each file of the root by what it is."""
    (layer,), (blob,) = (daemon.root / "layers").iterdir(), (daemon.root / "blobs").iterdir()
    found = {name: daemon.root / name for name in ("ledger", "lock")}
    found |= {name: layer / name for name in ("index", "content", "present")} | {"blob": blob}
    found["manifest"] = daemon.root / "documents" / Digest.of(image.manifest).hex
    found["config"] = daemon.root / "documents" / Digest.of(image.config).hex
    there = {path for path in daemon.root.rglob("*") if path.is_file() and daemon.root / "images" not in path.parents}
    assert there == {*found.values()}, "one is not tried"
    return found


def harm(path: Path, damage: str) -> None:
    size = path.stat().st_size
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        os.truncate(path, size // 2)
    else:
        path.write_bytes(os.urandom(max(size, 64)))


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + NOTICE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def warnings(daemon: Daemon) -> list[str]:
    """What the guard and the readers complain about."""
    return [line for line in daemon.log_text().splitlines() if line.startswith(("warning:", "error:"))]


def fetched_whole(daemon: Daemon, path: Path) -> int:
    """How often the log says that a file with this name came from the registry."""
    return len(re.findall(rf"^info: .*{path.name}.* is fetched", daemon.log_text(), re.MULTILINE))


@pytest.mark.parametrize("damage", DAMAGES)
def test_files_that_are_damaged_while_the_daemon_is_stopped_one_after_the_other(
    daemon: Daemon, image: BuiltImage, damage: str
) -> None:
    daemon.start()
    read_all(daemon, image)
    for name, path in files(daemon, image).items():
        assert daemon.stop() == 0
        harm(path, damage)
        daemon.start()
        read_all(daemon, image)
        said = warnings(daemon)
        if name == "lock":
            assert said == [], "what it held means nothing"
        elif name in ("blob", "config") and damage == "gone":
            assert said == [], "it may not have been there"
            assert fetched_whole(daemon, path) == 1
        elif name == "present" and damage == "garbage":
            assert len(said) <= 1, "which bits were set nobody knows; what they say is hashed"
        else:
            assert len(said) == 1, (name, said)
            assert path.name in said[0] or (name == "content" and "chunk" in said[0])


@pytest.mark.parametrize("damage", DAMAGES)
def test_files_that_are_damaged_while_the_daemon_runs_one_after_the_other(
    daemon: Daemon, image: BuiltImage, damage: str
) -> None:
    daemon.start()
    read_all(daemon, image)
    for name, path in files(daemon, image).items():
        before, fetched = len(warnings(daemon)), fetched_whole(daemon, path)
        harm(path, damage)
        if name not in ("manifest", "config") and (name != "lock" or damage == "gone"):
            wait_for(lambda before=before: len(warnings(daemon)) > before, f"nobody noticed {name}")  # type: ignore[misc]
        read_all(daemon, image)
        said = warnings(daemon)[before:]
        if name == "lock" and damage != "gone":
            assert said == [], "what it holds means nothing"
        elif name == "config" and damage == "gone":
            assert said == [], "it may not have been there"
            assert fetched_whole(daemon, path) == fetched + 1
        else:
            assert len(said) == 1, (name, said)
            assert path.name in said[0]
    daemon.stop()
    daemon.start()
    read_all(daemon, image)
    assert warnings(daemon) == []


@pytest.mark.parametrize("damage", DAMAGES)
def test_everything_of_a_layer_is_damaged(daemon: Daemon, image: BuiltImage, damage: str) -> None:
    daemon.start()
    read_all(daemon, image)
    for path in daemon.root.glob("layers/*/*"):
        harm(path, damage)
    wait_for(lambda: warnings(daemon) != [], "nobody noticed")
    read_all(daemon, image)
    assert len(warnings(daemon)) <= 5
    assert daemon.stop() == 0
    for path in daemon.root.glob("layers/*/*"):
        harm(path, damage)
    daemon.start()
    read_all(daemon, image)
    assert len(warnings(daemon)) <= 3


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
