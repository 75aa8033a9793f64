"""The daemon as a process, on a real mount, with a fake registry behind it."""

import base64
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.fakes.images import BuiltImage
from tests.fakes.registry import FakeRegistry

STARTUP_SECONDS = 20.0


@dataclass
class Daemon:
    """One daemon: its root and mount point outlive its processes."""

    directory: Path
    registries_conf: Path
    arguments: tuple[str, ...] = ("--no-background-fetch", "--no-prefetch")
    process: subprocess.Popen[bytes] | None = None
    logs: list[Path] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.directory / "root"

    @property
    def mountpoint(self) -> Path:
        return self.directory / "mnt"

    def command(self, *more: str) -> list[str]:
        return [sys.executable, "-m", "registry_storage", "--root", str(self.root), *self.arguments, *more]

    def environment(self) -> dict[str, str]:
        return os.environ | {
            "CONTAINERS_REGISTRIES_CONF": str(self.registries_conf),
            "REGISTRY_AUTH_FILE": str(self.directory / "auth.json"),
            "HOME": str(self.directory),
        }

    def start(self, *more: str) -> "Daemon":
        """Start and wait until it serves."""
        log = self.directory / f"log{len(self.logs)}"
        self.logs.append(log)
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [*self.command("--log-level", "debug", *more), str(self.mountpoint)],
                stdout=output,
                stderr=output,
                env=self.environment(),
            )
        deadline = time.monotonic() + STARTUP_SECONDS
        while "serving" not in self.log_text():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the daemon did not start:\n{self.log_text()}")
            time.sleep(0.02)
        return self

    def log_text(self) -> str:
        """What the last process logged."""
        return self.logs[-1].read_text("utf-8", "replace")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait; returns the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        status = self.process.wait(20)
        self.process = None
        return status

    def image(self, image: BuiltImage) -> Path:
        """The directory of an image's reference."""
        return self.mountpoint / base64.b64encode(image.reference.encode()).decode()

    def layer(self, image: BuiltImage, position: int = 0, *, by_toc: bool = True) -> Path:
        """The directory of one of its layers."""
        layer = image.layers[position]
        return self.image(image) / str(layer.toc_digest if by_toc else layer.descriptor.digest)


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry().in_thread() as running:
        yield running


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """Not started yet; whatever is left of it is cleaned up at the end."""
    (tmp_path / "registries.conf").write_text("")
    one = Daemon(tmp_path, tmp_path / "registries.conf")
    try:
        yield one
    finally:
        if one.process is not None:
            one.process.kill()
            one.process.wait()
        subprocess.run(["umount", "-l", str(one.mountpoint)], check=False, stderr=subprocess.DEVNULL)
