"""The system's clock is set while the daemon runs: forward, back, by years."""

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from registry_storage.control.client import connect
from tests.fakes.images import BuiltImage, File, build_layer, put_image
from tests.fakes.registry import FakeRegistry

from .conftest import Daemon

YEAR = 365 * 86400
FILES = {f"f{number}": os.urandom(100_000) for number in range(6)}
# What the system's clock says comes from time.time and time.time_ns; trio's clock, as every monotonic one, is not set.
CLOCK = """
import time
_time, _time_ns, _path = time.time, time.time_ns, {path!r}
def _ahead():
    with open(_path) as file:
        return int(file.read())
time.time = lambda: _time() + _ahead()
time.time_ns = lambda: _time_ns() + _ahead() * 10**9
"""


@pytest.fixture
def set_clock(daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets the daemon's clock to so many seconds before or after ours."""
    ahead = tmp_path / "ahead"

    def set_it(seconds: int) -> None:
        new = ahead.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(ahead)

    set_it(0)
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(CLOCK.format(path=str(ahead)))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}:{os.environ.get('PYTHONPATH', '')}")
    return set_it


def start(daemon: Daemon, private: FakeRegistry) -> BuiltImage:
    image = put_image(private, [build_layer([File(*item) for item in FILES.items()])])
    login = base64.b64encode(b"me:secret").decode()
    (daemon.directory / "auth.json").write_text(json.dumps({"auths": {private.host: {"auth": login}}}))
    daemon.start()
    return image


async def tidy_up(daemon: Daemon) -> Any:
    """What happens every hour; the daemon's state afterwards."""
    async with connect(daemon.root / "control.sock") as client:
        await client.post("/v1/repair", {})
        await client.post("/v1/collect", {})
        return await client.get("/v1/status")


def test_reads_go_on_and_what_a_pull_uses_stays(daemon: Daemon, set_clock: Callable[[int], None]) -> None:
    private = FakeRegistry(auth="bearer", users={"me": "secret"}, token_seconds=1, redirect_blobs=True)
    with private.in_thread():
        image = start(daemon, private)
        layer = daemon.layer(image)
        with pytest.raises(FileNotFoundError):
            (layer / "use").touch()  # podman, in the middle of a pull
        seen = []
        for name, years in zip(FILES, (0, 10, -10, 40, -50, 0), strict=True):
            set_clock(years * YEAR)
            assert (layer / "diff" / name).read_bytes() == FILES[name]
            status = trio.run(tidy_up, daemon)
            seen.append([found["uses"] for found in status["layers"]])
            assert 0 < status["uptime_seconds"] < 3600
        assert seen == [[1]] * len(FILES)
        private.revoke_tokens()
        assert (layer / "info").read_bytes()
    assert "error:" not in daemon.log_text()
    assert daemon.stop() == 0


@pytest.mark.parametrize("years", [-20, 20])
def test_a_daemon_starts_in_another_year_with_what_it_has(
    daemon: Daemon, registry: FakeRegistry, set_clock: Callable[[int], None], years: int
) -> None:
    image = start(daemon, registry)
    path = daemon.layer(image) / "diff/f0"
    assert path.read_bytes() == FILES["f0"]
    daemon.stop()
    set_clock(years * YEAR)
    asked = len(registry.requests("/blobs/"))
    daemon.start()
    assert path.read_bytes() == FILES["f0"]
    assert len(registry.requests("/blobs/")) == asked
    assert (path.parent / "f1").read_bytes() == FILES["f1"]
