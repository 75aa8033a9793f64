"""What a layer says of itself below ``/.registry-storage``, and which of its files are read."""

import json
import os
import signal
from pathlib import Path

import pytest

from registry_storage.store.layer_state import DOCUMENT_BYTES
from tests.fakes.images import File, build_layer, directory, put_image
from tests.fakes.registry import FakeRegistry

from .conftest import Daemon

SMALL, BIG = os.urandom(30_000), os.urandom(90_000)
FILES = [directory("a/"), File("a/small", SMALL), File("a/big", BIG), File(".no.prefetch.landmark", b"\x0f")]


@pytest.fixture
def diff(daemon: Daemon, registry: FakeRegistry) -> Path:
    image = put_image(registry, [build_layer(FILES, "estargz")])
    daemon.start()
    return daemon.layer(image) / "diff"


def state(diff: Path) -> dict[str, object]:
    (path,) = (diff / ".registry-storage").iterdir()
    document: dict[str, object] = json.loads(path.read_bytes())
    assert path.name == f"{document['digest']}.json"
    return document


def test_it_says_how_much_is_here_now(diff: Path) -> None:
    before = state(diff)
    assert (before["fetchedSize"], before["fetchedPercent"], before["lastError"]) == (0, 0.0, None)
    assert (diff / "a/big").read_bytes() == BIG
    after = state(diff)
    assert 90_000 <= int(str(after["fetchedSize"])) <= int(str(after["size"]))
    assert 74 <= float(str(after["fetchedPercent"])) <= 100
    assert (diff / "a/small").read_bytes() == SMALL
    assert state(diff)["fetchedPercent"] == 100.0


def test_no_listing_shows_it(diff: Path) -> None:
    assert state(diff)
    assert os.listdir(diff) == ["a"]
    assert [entry.name for entry in os.scandir(diff)] == ["a"]
    assert (diff / ".registry-storage").is_dir()
    assert not (diff / "a/.registry-storage").exists()


def test_nobody_changes_it(diff: Path) -> None:
    (path,) = (diff / ".registry-storage").iterdir()
    for change in (path.unlink, lambda: path.write_text("x"), (diff / ".registry-storage").rmdir):
        with pytest.raises(OSError, match="Read-only file system"):
            change()
    with pytest.raises(OSError, match=r"No such file|Read-only"):
        (path.parent / "other").write_text("x")


def test_it_is_the_same_file_after_the_worker_died(daemon: Daemon, diff: Path) -> None:
    (path,) = (diff / ".registry-storage").iterdir()
    with path.open("rb") as file:
        before = path.stat()
        served = daemon.log_text().count("serving")
        (worker,) = children(daemon)
        os.kill(worker, signal.SIGKILL)
        file.seek(0)
        assert json.loads(file.read())["digest"] in path.name
        assert (path.stat().st_ino, path.stat().st_size) == (before.st_ino, DOCUMENT_BYTES)
    assert daemon.log_text().count("serving") == served + 1


def children(daemon: Daemon) -> list[int]:
    assert daemon.process is not None
    pid = daemon.process.pid
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_it_tells_the_last_error(daemon: Daemon, registry: FakeRegistry) -> None:
    image = put_image(registry, [build_layer(FILES, "estargz")])
    daemon.start("--read-timeout-seconds", "2")
    diff = daemon.layer(image) / "diff"
    assert state(diff)["lastError"] is None
    registry.blobs.clear()
    with pytest.raises(OSError, match="Input/output error"):
        (diff / "a/big").read_bytes()
    error = state(diff)["lastError"]
    assert isinstance(error, dict)
    assert "404" in error["message"] or "not" in error["message"]


def test_what_a_layer_calls_so_itself_wins(daemon: Daemon, registry: FakeRegistry) -> None:
    files = [directory(".registry-storage/"), File(".registry-storage/own", b"mine")]
    image = put_image(registry, [build_layer(files, "estargz")])
    daemon.start()
    diff = daemon.layer(image) / "diff"
    assert os.listdir(diff / ".registry-storage") == ["own"]
    assert (diff / ".registry-storage/own").read_bytes() == b"mine"


def test_each_file_that_is_read_is_logged_once_at_debug_level(daemon: Daemon, diff: Path) -> None:
    for _ in range(2):
        for path in (diff / "a/small", diff / "a/big"):
            file = os.open(path, os.O_RDONLY)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            while os.read(file, 1 << 20):
                pass
            os.close(file)
    lines = [line for line in daemon.log_text().splitlines() if "file is read" in line]
    assert len(lines) == 2
    assert all("layer=sha256:" in line for line in lines)
    assert {word for line in lines for word in line.split() if word.startswith("path=")} == {
        "path=/a/small", "path=/a/big",
    }  # fmt: skip
