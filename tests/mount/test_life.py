"""How the daemon starts, shares, restarts and ends."""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.fakes.images import BuiltImage, BuiltLayer, File, build_layer, put_image
from tests.fakes.registry import FakeRegistry

from .conftest import Daemon

BIG = os.urandom(600_000)


@pytest.fixture
def layer() -> BuiltLayer:
    return build_layer([File("big", BIG), File("small", b"small")])


@pytest.fixture
def image(registry: FakeRegistry, layer: BuiltLayer) -> BuiltImage:
    return put_image(registry, [layer])


def blob_requests(registry: FakeRegistry, layer: BuiltLayer) -> int:
    return len(registry.requests(f"/blobs/{layer.descriptor.digest}"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_unmounts_and_ends_with_success(daemon: Daemon, number: int) -> None:
    daemon.start()
    assert os.path.ismount(daemon.mountpoint)
    assert daemon.stop(number) == 0
    assert not os.path.ismount(daemon.mountpoint)


def test_an_unmount_from_outside_ends_it_too(daemon: Daemon) -> None:
    daemon.start()
    subprocess.run(["umount", str(daemon.mountpoint)], check=True)
    assert daemon.process is not None
    assert daemon.process.wait(10) == 0


def test_a_mount_in_use_is_detached(daemon: Daemon, image: BuiltImage) -> None:
    daemon.start()
    held = os.open(daemon.layer(image) / "diff", os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert daemon.stop() == 0
    finally:
        os.close(held)
    assert not os.path.ismount(daemon.mountpoint)
    assert "still in use" in daemon.log_text()


def test_a_dead_mount_is_replaced(daemon: Daemon, image: BuiltImage) -> None:
    daemon.start()
    assert daemon.stop(signal.SIGKILL) == -signal.SIGKILL
    with pytest.raises(OSError, match=r"not connected|connection abort"):
        os.listdir(daemon.mountpoint)
    daemon.start()
    assert (daemon.layer(image) / "diff/small").read_bytes() == b"small"
    assert "replacing the mount of a daemon that is gone" in daemon.log_text()


def test_a_second_daemon_is_refused_with_the_reason(daemon: Daemon, tmp_path: Path) -> None:
    daemon.start()
    same_root = subprocess.run(
        [*daemon.command(), str(tmp_path / "other")], capture_output=True, text=True, check=False
    )
    assert same_root.returncode == 1
    assert daemon.process is not None
    wanted = f"root directory {daemon.root}: in use by another daemon, process {daemon.process.pid}"
    assert wanted in same_root.stderr
    same_place = subprocess.run(
        [sys.executable, "-m", "registry_storage", "--root", str(tmp_path / "root2"), str(daemon.mountpoint)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert same_place.returncode == 1
    assert f"mount point {daemon.mountpoint}: registry-storage is mounted there and alive" in same_place.stderr
    assert os.path.ismount(daemon.mountpoint)


def test_systemd_is_told_ready_and_stopping(
    daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        channel.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        daemon.start()
        told = [channel.recv(200) for _ in range(3)]
        assert [b"FDSTORE=1\nFDNAME=" in word for word in told] == [True, True, False], "the mount, the verified bits"
        assert told[2].startswith(b"READY=1\nSTATUS=serving ")
        daemon.stop()
        assert channel.recv(200) == b"STOPPING=1"


def test_what_was_fetched_is_served_without_the_registry_after_a_restart(
    daemon: Daemon, registry: FakeRegistry, image: BuiltImage
) -> None:
    daemon.start()
    directory = daemon.layer(image) / "diff"
    assert (directory / "big").read_bytes() == BIG
    daemon.stop()
    seen = len(registry.log)
    registry.inject("disconnect", path=".*", times=None)
    daemon.start()
    assert (directory / "big").read_bytes() == BIG
    assert len(registry.log) == seen


def test_readers_of_one_chunk_share_one_fetch(
    daemon: Daemon, registry: FakeRegistry, image: BuiltImage, layer: BuiltLayer
) -> None:
    daemon.start()
    path = daemon.layer(image) / "diff/small"
    path.stat()
    before = blob_requests(registry, layer)
    registry.inject("delay", path="/blobs/", seconds=0.5, times=None)
    results: list[bytes] = []

    def read() -> None:
        with path.open("rb", buffering=0) as file:
            results.append(os.pread(file.fileno(), 10, 0))

    threads = [threading.Thread(target=read) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [b"small"] * 16
    assert blob_requests(registry, layer) - before == 1


def test_concurrent_lookups_of_one_layer_resolve_it_once(
    daemon: Daemon, registry: FakeRegistry, image: BuiltImage
) -> None:
    daemon.start()
    registry.inject("delay", seconds=0.3, times=None)
    threads = [threading.Thread(target=(daemon.layer(image) / "diff").stat) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(registry.requests("/manifests/")) == 1
    assert blob_requests(registry, image.layers[0]) == 1


def test_the_rest_is_fetched_in_the_background_when_the_layer_is_in_use(
    daemon: Daemon, registry: FakeRegistry, image: BuiltImage
) -> None:
    daemon.arguments = ()
    daemon.start()
    directory = daemon.layer(image)
    (directory / "diff").stat()
    with pytest.raises(FileNotFoundError):
        (directory / "use").write_text("")
    wait_for_log(daemon, "complete")
    registry.inject("disconnect", times=None)
    assert (directory / "diff/big").read_bytes() == BIG


def test_prioritized_files_are_fetched_at_once(daemon: Daemon, registry: FakeRegistry) -> None:
    first, second = os.urandom(100_000), os.urandom(100_000)
    layer = build_layer([File("first", first), File(".prefetch.landmark", b"\x0f"), File("second", second)])
    image = put_image(registry, [layer])
    daemon.arguments = ("--no-background-fetch", "--read-timeout-seconds", "3")
    daemon.start()
    directory = daemon.layer(image)
    (directory / "diff").stat()
    with pytest.raises(FileNotFoundError):
        (directory / "use").write_text("")
    wait_for_log(daemon, "prioritized files are here")
    registry.inject("disconnect", times=None)
    assert (directory / "diff/first").read_bytes() == first
    with pytest.raises(OSError, match="Input/output error"):
        (directory / "diff/second").read_bytes()


def test_two_images_share_the_content_of_a_common_layer(
    daemon: Daemon, registry: FakeRegistry, image: BuiltImage, layer: BuiltLayer
) -> None:
    other = put_image(registry, [layer, build_layer([File("own", b"own")])], "team/other:v1")
    daemon.start()
    assert (daemon.layer(image) / "diff/big").read_bytes() == BIG
    before = blob_requests(registry, layer)
    assert (daemon.layer(other) / "diff/big").read_bytes() == BIG
    assert blob_requests(registry, layer) == before


def test_one_repository_that_lost_a_blob_leaves_the_other(
    daemon: Daemon, registry: FakeRegistry, image: BuiltImage, layer: BuiltLayer
) -> None:
    other = put_image(registry, [layer], "team/other:v1")
    daemon.start()
    (daemon.layer(other) / "diff").stat()
    (daemon.layer(image) / "diff").stat()
    del registry.blobs["team/other", str(layer.descriptor.digest)]
    assert (daemon.layer(image) / "diff/big").read_bytes() == BIG


def wait_for_log(daemon: Daemon, text: str, seconds: float = 20.0) -> None:
    """The log says so, in time."""
    waiting = threading.Event()
    for _ in range(int(seconds / 0.05)):
        if text in daemon.log_text():
            return
        waiting.wait(0.05)
    raise AssertionError(f"the log never said {text!r}:\n{daemon.log_text()}")
