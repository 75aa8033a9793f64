"""The daemon under the terms of its systemd unit: notifications, reload, capabilities, system calls."""

import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from registry_storage.host.units import unit
from tests.fakes.images import File, build_layer, put_image
from tests.fakes.registry import FakeRegistry

from .conftest import Daemon

UNIT = unit(["registry-storage"], ["registry-storagectl", "upgrade"], root="/x", user=False)


class NotifySocket:
    """What systemd would be told."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(60)

    def wait_for(self, state: str) -> None:
        """Until a message holds the line."""
        while state not in self._socket.recv(4096).decode().splitlines():
            pass

    def close(self) -> None:
        self._socket.close()


def test_systemd_is_told_of_start_life_reload_and_end(
    daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = NotifySocket(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "300000")
    config = tmp_path / "config.toml"
    config.write_text('log_format = "text"\n')
    try:
        daemon.start("--config", str(config))
        told.wait_for("READY=1")
        told.wait_for("WATCHDOG=1")
        told.wait_for("WATCHDOG=1")
        config.write_text('log_format = "json"\nread_ahead_kib = 512\n')
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGHUP)
        told.wait_for("RELOADING=1")
        told.wait_for("READY=1")
        assert '"level": "info"' in daemon.log_text(), "the next worker has the new settings"
        config.write_text("colour = 1\n")
        daemon.process.send_signal(signal.SIGHUP)
        told.wait_for("RELOADING=1")
        told.wait_for("READY=1")
        assert "unknown key 'colour'" in daemon.log_text()
        assert "the old one goes on" in daemon.log_text()
        assert daemon.stop() == 0
        told.wait_for("STOPPING=1")
    finally:
        told.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has capabilities to lose")
def test_the_capabilities_of_the_unit_are_enough(daemon: Daemon, registry: FakeRegistry, tmp_path: Path) -> None:
    kept = " ".join(re.findall(r"^CapabilityBoundingSet=(.*)$", UNIT, re.MULTILINE))
    bounding = ",".join(["-all", *("+" + name.lower().removeprefix("cap_") for name in kept.split())])
    data = os.urandom(3 << 20)
    image = put_image(registry, [build_layer([File("file", data)])])
    plain = daemon.command
    words = ["setpriv", "--no-new-privs", f"--bounding-set={bounding}", f"--inh-caps={bounding}", "--"]
    daemon.command = lambda *more: [*words, *plain(*more)]  # type: ignore[method-assign]
    daemon.start()
    assert (daemon.layer(image) / "diff" / "file").read_bytes() == data
    locked = tmp_path / "graph" / "storage.lock"
    locked.parent.mkdir()
    with locked.open("w"), pytest.raises(FileNotFoundError):  # as a podman does that pulls: all of root's capabilities
        (daemon.layer(image) / "use").touch()
    assert str(locked.parent) in (daemon.root / "ledger").read_text()
    assert daemon.stop() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="root mounts")
def test_the_system_calls_of_the_unit_are_enough(daemon: Daemon, registry: FakeRegistry, tmp_path: Path) -> None:
    (sets,) = re.findall(r"^SystemCallFilter=(.*)$", UNIT, re.MULTILINE)
    allowed = set()
    todo = sets.split()
    while todo:
        command = ["systemd-analyze", "syscall-filter", todo.pop()]
        said = subprocess.run(command, capture_output=True, text=True, check=True)
        names = [line.strip() for line in said.stdout.splitlines()[1:] if line.strip() and "#" not in line]
        todo += [name for name in names if name.startswith("@")]
        allowed |= set(names)
    image = put_image(registry, [build_layer([File("file", os.urandom(1 << 20))])])
    trace = tmp_path / "trace"
    plain = daemon.command
    words = ["strace", "-f", "-c", "-S", "name", "-U", "name", "-o", str(trace)]
    daemon.command = lambda *more: [*words, *plain(*more)]  # type: ignore[method-assign]
    daemon.start()
    (daemon.layer(image) / "diff" / "file").read_bytes()
    assert daemon.process is not None
    children = Path(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGTERM)
    daemon.process.wait(60)
    daemon.process = None
    deadline = time.monotonic() + 60
    while not trace.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    used = set(re.findall(r"^([a-z_0-9]+)$", trace.read_text().replace(" ", ""), re.MULTILINE)) - {"syscall", "total"}
    assert {"mount", "preadv2"} & used
    assert used - allowed <= {"restart_syscall"}
