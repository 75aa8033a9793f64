"""status, ls and top beside a daemon at work; top in a real terminal (tmux)."""

import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lab.terminal import Terminal
from tests.fakes.faults import Fault
from tests.fakes.images import BuiltImage, File, build_layer, put_image
from tests.fakes.registry import FakeRegistry

from .conftest import Daemon

DATA = random.Random(1).randbytes(300_000)
MORE = random.Random(2).randbytes(12_000_000)


def control(daemon: Daemon, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "registry_storage.ctl", *words, "--root", str(daemon.root)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=daemon.environment())


@pytest.fixture
def image(daemon: Daemon, registry: FakeRegistry) -> BuiltImage:
    """Half of it was read, over a link so slow that nothing but the link was waited for."""
    registry.faults.append(Fault("drip", "/blobs/", times=None, at=65536, seconds=0.02))
    built = put_image(registry, [build_layer([File("usr/bin/first", DATA), File("usr/bin/second", MORE)])])
    daemon.start()
    assert (daemon.layer(built) / "diff/usr/bin/first").read_bytes() == DATA
    return built


def test_status_and_ls(daemon: Daemon, registry: FakeRegistry, image: BuiltImage) -> None:
    said = control(daemon, "status")
    assert said.returncode == 0, said.stderr
    assert "images    1 with 1 layers" in said.stdout
    assert f"host      {registry.host}" in said.stdout
    document = json.loads(control(daemon, "status", "--json").stdout)
    assert document["mountpoint"] == str(daemon.mountpoint)
    assert document["activity"]["lane"]["read_bytes"] >= len(DATA)
    host = document["activity"]["hosts"][registry.host]
    assert host["requests"]["206"] >= 1
    assert 0 < host["link"]["round_trip_seconds"] < 60
    assert host["link"]["bytes_per_second"] > 1000
    listed = control(daemon, "ls").stdout
    assert image.reference in listed
    assert str(image.layers[0].descriptor.digest).removeprefix("sha256:")[:12] in listed
    assert json.loads(control(daemon, "ls", "--json", "team/").stdout)[0]["reference"] == image.reference
    assert json.loads(control(daemon, "ls", "--json", "nothing").stdout) == []


def test_without_a_daemon_each_says_so(daemon: Daemon) -> None:
    for command in ("status", "ls", "top"):
        said = control(daemon, command, *(["--json"] if command == "top" else []))
        assert said.returncode == 1
        assert "no daemon listens there" in said.stderr


def test_top_wants_a_terminal(daemon: Daemon) -> None:
    said = control(daemon, "top")
    assert said.returncode == 2
    assert "--json is for machines" in said.stderr


@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 60)])
def test_top_is_readable_updates_and_ends_cleanly(
    daemon: Daemon, image: BuiltImage, tmp_path: Path, width: int, height: int
) -> None:
    command = f"{sys.executable} -m registry_storage.ctl top --interval 0.2 --root {daemon.root}"
    with Terminal(tmp_path / "tmux", width, height, command) as terminal:
        screen = terminal.shows(lambda text: "LONGEST WAITS" in text and "/usr/bin/first" in text)
        lines = screen.rstrip("\n").splitlines()
        assert len(lines) <= height
        assert all(len(line) <= width for line in lines)
        assert "registry-storage" in lines[0]
        (row,) = [line for line in lines if image.reference in line]
        assert row.split()[1] == "1", "one layer"
        assert re.search(r"B/s [0-9.]+ ms$", next(line for line in lines if line.startswith("127.0.0.1:"))), "the link"
        assert "100 %" not in row
        assert (daemon.layer(image) / "diff/usr/bin/second").read_bytes() == MORE
        terminal.shows(lambda text: "/usr/bin/second" in text and "100 %" in text)
        terminal.types("q")
        ended = terminal.shows(lambda text: "ended with 0" in text)
        assert "LONGEST WAITS" not in ended, "the screen of before is back"
        assert "Traceback" not in ended
