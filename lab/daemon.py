"""The daemon under test: started, waited for until its mount is there, stopped by its own id."""

import base64
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from lab import places, processes

MOUNT_TIMEOUT_SECONDS = 30.0


class Daemon:
    """`registry-storage` on a root directory and a mount point; may be started and stopped repeatedly.

    Parameters
    ----------
    root
        Its state; survives a stop.
    mountpoint
        Made when missing.
    registry_host
        A loopback registry, written as insecure into the private registries.conf that the daemon reads.
    options
        Further words of its command line.
    environment
        Further variables.
    prefix
        Words before its command line, such as those that enter a namespace.
    """

    def __init__(
        self,
        root: Path,
        mountpoint: Path,
        registry_host: str,
        *,
        log: Path,
        options: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        self.prefix = tuple(prefix)
        self.root = root
        self.mountpoint = mountpoint
        self.log = log
        self.options = options
        self._environment = dict(environment or {})
        self._process: processes.Background | None = None
        self.registries_conf = log.with_name(log.name + ".registries.conf")
        self.registries_conf.parent.mkdir(parents=True, exist_ok=True)
        self.registries_conf.write_text(f'[[registry]]\nlocation = "{registry_host}"\ninsecure = true\n')

    def start(self) -> None:
        """Starts it and waits for the mount; raises ProgramError with the end of its log."""
        self.root.mkdir(parents=True, exist_ok=True)
        if not places.mounts_below(self.mountpoint):  # a dead mount says no more whether it is a directory
            self.mountpoint.mkdir(parents=True, exist_ok=True)
        command: list[str | os.PathLike[str]] = [
            *self.prefix,
            *(sys.executable, "-m", "registry_storage.cli", "--root", self.root, "--log-level", "debug"),
            *self.options,
            self.mountpoint,
        ]
        self._process = processes.Background(
            command,
            log=self.log,
            environment={
                "CONTAINERS_REGISTRIES_CONF": os.fspath(self.registries_conf),
                "PYTHONUNBUFFERED": "1",
                "PYTHONPATH": os.pathsep.join(sys.path),
                **self._environment,
            },
        )
        self._process.wait_until(
            lambda: os.path.ismount(self.mountpoint), what="mounted", timeout_seconds=MOUNT_TIMEOUT_SECONDS
        )

    def stop(self) -> int:
        """SIGTERM; the exit status. The mount is gone afterwards, by force if the daemon left it."""
        status = 0
        if self._process is not None:
            status = self._process.stop()
            self._process = None
        self._unmount()
        return status

    def kill(self) -> None:
        """SIGKILL, as a crash: the mount stays, dead."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.is_running()

    @property
    def pid(self) -> int:
        if self._process is None:
            raise processes.ProgramError("the daemon is not running")
        # setpriv replaces itself by the daemon: its id is the daemon's.
        return self._process.pid

    def _unmount(self) -> None:
        for mounted in places.mounts_below(self.mountpoint):
            print(f"{mounted} was left mounted", file=sys.stderr)
            processes.run(["umount", "-l", mounted], allow_failure=True)

    def layer_directory(self, reference: str, digest: str) -> Path:
        """The store's directory of a layer, by layer digest or TOC digest."""
        return self.mountpoint / base64.b64encode(reference.encode()).decode() / digest

    def uses(self) -> list[tuple[str, str, int]]:
        """(reference, layer digest, count) of every layer whose reference count is not zero."""
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(self.root / "control.sock"))) as client:
            layers = client.get("http://daemon/v1/status").raise_for_status().json()["layers"]
        links = [(link, layer["layer_digest"]) for layer in layers for link in layer["links"] if link["uses"]]
        links.sort(key=lambda found: found[0]["number"])
        return [(link["reference"], digest, link["uses"]) for link, digest in links]

    def log_tail(self, lines: int = 40) -> str:
        return "\n".join(self.log_text().splitlines()[-lines:])

    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.is_file() else ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
