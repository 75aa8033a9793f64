"""The control socket of a running daemon."""

import os
import signal
from pathlib import Path

import pytest

from registry_storage import __version__
from registry_storage.control.client import connect
from tests.fakes.images import File, build_layer, put_image
from tests.fakes.registry import FakeRegistry

from .conftest import Daemon
from .test_supervision import worker_of


async def test_status_tells_what_is_served_and_how_much_of_it_is_here(daemon: Daemon, registry: FakeRegistry) -> None:
    layer = build_layer([File("some", os.urandom(100_000)), File("other", os.urandom(300_000))])
    image = put_image(registry, [layer])
    daemon.start()
    (daemon.layer(image) / "diff/some").read_bytes()
    with pytest.raises(FileNotFoundError):
        (daemon.layer(image) / "use").touch()
    assert daemon.process is not None
    async with connect(daemon.root / "control.sock") as client:
        status = await client.get("/v1/status")
    assert status["version"] == __version__
    parents = Path(f"/proc/{status['pid']}/stat").read_text().rpartition(")")[2].split()
    assert int(parents[1]) == daemon.process.pid  # the worker, whom the supervisor started
    assert (status["root"], status["mountpoint"]) == (str(daemon.root), str(daemon.mountpoint))
    assert 0 < status["uptime_seconds"] < 3600
    (found,) = status["layers"]
    assert found["layer_digest"] == str(layer.descriptor.digest)
    assert found["toc_digest"] == str(layer.toc_digest)
    assert 0 < found["present_chunks"] <= found["chunk_count"]
    assert found["disk_bytes"] >= 100_000
    assert found["content_bytes"] >= 400_000
    assert (found["open"], found["uses"]) == (True, 1)
    assert [(link["reference"], link["uses"]) for link in found["links"]] == [(image.reference, 1)]


def test_the_socket_is_private_and_gone_after_a_stop(daemon: Daemon, tmp_path: Path) -> None:
    place = tmp_path / "run" / "control.sock"
    daemon.start("--control-socket", str(place))
    assert place.stat().st_mode & 0o777 == 0o600
    assert not (daemon.root / "control.sock").exists()
    daemon.stop()
    assert not place.exists()


def test_a_socket_that_a_killed_daemon_left_is_replaced(daemon: Daemon) -> None:
    daemon.start()
    os.kill(worker_of(daemon), signal.SIGSTOP)  # or it may see that its supervisor is gone, and clean up
    daemon.stop(9)
    assert (daemon.root / "control.sock").exists()
    daemon.start()
    assert daemon.stop() == 0


def test_a_socket_that_cannot_be_made_is_said_and_nothing_stays_mounted(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(AssertionError, match="something else is there"):
        daemon.start("--control-socket", str(tmp_path / "file"))
    assert not os.path.ismount(daemon.mountpoint)
