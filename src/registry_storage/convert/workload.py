"""Runs what an image is for, in a real container, and finds out which parts of which files it reads.

Everything is private to a work directory: podman's storage, and for lazily pullable images a daemon of our own
whose view of the reads is the record. Other images are pulled whole and watched with fanotify(7).
"""

import contextlib
import json
import logging
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ..config import STARTING_READ_AHEAD_KIB
from ..errors import RegistryStorageError
from .fanotify import Watch

_log = logging.getLogger(__name__)

START_SECONDS = 30.0
CLEANUP_SECONDS = 15.0


class WorkloadError(RegistryStorageError):
    """The workload cannot be run."""


@dataclass(frozen=True, slots=True)
class Workload:
    """How the container is started; what is left out is the image's own."""

    arguments: tuple[str, ...] = ()
    entrypoint: str | None = None
    environment: tuple[str, ...] = ()
    """``NAME=value``."""
    env_files: tuple[str, ...] = ()
    user: str | None = None
    directory: str | None = None
    mounts: tuple[str, ...] = ()
    """As ``podman run --mount`` takes them."""
    network: str = "none"
    terminal: bool = False
    interactive: bool = False
    period_seconds: float = 10.0
    """The container is ended then, if it has not ended by itself."""
    wait_on_line: str | None = None
    """Or as soon as a line of its output contains this."""

    def podman_options(self) -> list[str]:
        """The options of ``podman create``."""
        options = [f"--network={self.network}"]
        options += [f"--env={item}" for item in self.environment]
        options += [f"--env-file={item}" for item in self.env_files]
        options += [f"--mount={item}" for item in self.mounts]
        if self.entrypoint is not None:
            options.append(f"--entrypoint={self.entrypoint}")
        if self.user is not None:
            options.append(f"--user={self.user}")
        if self.directory is not None:
            options.append(f"--workdir={self.directory}")
        if self.terminal:
            options.append("--tty")
        if self.interactive:
            options.append("--interactive")
        return options


@dataclass(slots=True)
class Access:
    """A file of one layer that was read, and which parts of it."""

    path: str
    """As the layer's tree has it, without a leading slash."""
    layer_index: int
    """0 is the base layer."""
    manifest_digest: str
    ranges: list[tuple[int, int]] = field(default_factory=list)
    """(offset, size) in bytes, in the order of reading; empty: not known."""
    turns: list[int] = field(default_factory=list)
    """For each of the ranges, where it stands among all reads of the workload."""

    def to_json(self) -> dict[str, Any]:
        """A line of a record file; ``ranges`` and ``turns`` are fields of ours."""
        line: dict[str, Any] = {
            "path": self.path,
            "manifestDigest": self.manifest_digest,
            "layerIndex": self.layer_index,
        }
        if self.ranges:
            line["ranges"] = [list(part) for part in self.ranges]
            line["turns"] = self.turns
        return line


class Profiler:
    """A context manager; the work directory is removed at its end. Needs root, podman and, to be lazy, /dev/fuse."""

    def __init__(
        self, work: Path, *, lazy: bool, manifest_digest: str = "", plain_http: bool = False
    ) -> None:
        """`manifest_digest`: what the record shall name. `plain_http`: the image's registry speaks nothing else."""
        self._work = work
        self._lazy = lazy
        self._plain_http = plain_http
        self._manifest_digest = manifest_digest
        self._record = work / "record"
        self._daemon: subprocess.Popen[bytes] | None = None
        self._monitor: int | None = None
        if shutil.which("podman") is None:
            raise WorkloadError("podman is not installed; optimizing runs the image in a container")
        if os.geteuid() != 0:
            raise WorkloadError("optimizing runs the image in a container and watches it: be root")

    def __enter__(self) -> "Profiler":
        self._work.mkdir(parents=True)
        store = ""
        if self._lazy:
            self._start_daemon()
            store = f'additionallayerstores = ["{self._work}/store:ref"]'
        (self._work / "storage.conf").write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{self._work}/graph"\nrunroot = "{self._work}/run"\n'
            f"[storage.options]\n{store}\n"
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._podman("rm", "--all", "--force", "--time=0", check=False)
        if self._monitor is not None:
            select.select([self._monitor], [], [], CLEANUP_SECONDS)
            os.close(self._monitor)
        self._podman("rmi", "--all", "--force", check=False)
        if self._daemon is not None:
            self._daemon.terminate()
            self._daemon.wait(START_SECONDS)
        self._remove()

    def run(self, image: str, workload: Workload, output: IO[str]) -> list[Access]:
        """Run `workload` in `image` (a name that podman pulls); what it reads, in the order of first reading.

        What the container says goes to `output`. Raises WorkloadError.
        """
        options = ["--tls-verify=false"] if self._plain_http else []
        image = self._podman("pull", "--quiet", *options, image).strip().splitlines()[-1]
        name = "workload"
        self._podman("create", f"--name={name}", *workload.podman_options(), image, *workload.arguments)
        self._podman("init", name)
        self._watch_monitor(name)
        if self._lazy:
            before = self._record.stat().st_size if self._record.exists() else 0
            self._attend(name, workload, output)
            return merge_record(self._read_record(before), self._manifest_digest)
        merged = Path(self._podman("inspect", "--format={{.GraphDriver.Data.MergedDir}}", name).strip())
        with Watch(merged) as watch:
            self._attend(name, workload, output)
            paths = watch.paths()
        return self._find_layers(image, paths)

    def _remove(self) -> None:
        deadline = time.monotonic() + CLEANUP_SECONDS
        while self._work.exists():
            overlay = self._work / "graph" / "overlay"
            if os.path.ismount(overlay):  # podman mounts it on itself
                subprocess.run(["umount", "-l", str(overlay)], capture_output=True, check=False)
            shutil.rmtree(self._work, ignore_errors=True)
            if time.monotonic() > deadline:
                _log.warning("%s cannot be removed", self._work)
                return
            time.sleep(0.1)

    def _watch_monitor(self, name: str) -> None:
        """conmon becomes the podman that cleans up behind the container: late, and making directories anew."""
        text = self._podman("inspect", "--format={{.State.ConmonPid}}", name).strip()
        with contextlib.suppress(ValueError, OSError):
            self._monitor = os.pidfd_open(int(text))

    def _start_daemon(self) -> None:
        log = self._work / "daemon.log"
        command = [
            *(sys.executable, "-m", "registry_storage", "--root", str(self._work / "root")),
            *("--record", str(self._record), "--read-ahead-kib", str(STARTING_READ_AHEAD_KIB)),
            *("--no-prefetch", "--no-background-fetch", str(self._work / "store")),
        ]
        with log.open("wb") as file:
            self._daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        deadline = time.monotonic() + START_SECONDS
        while not os.path.ismount(self._work / "store"):
            if self._daemon.poll() is not None or time.monotonic() > deadline:
                raise WorkloadError(f"the recording daemon does not start: {log.read_text().strip()[-500:]}")
            time.sleep(0.05)

    def _podman(self, *words: str, check: bool = True) -> str:
        environment = os.environ | {"CONTAINERS_STORAGE_CONF": str(self._work / "storage.conf")}
        done = subprocess.run(["podman", *words], env=environment, capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise WorkloadError(f"podman {words[0]}: exit status {done.returncode}: {done.stderr.strip()[-1000:]}")
        return done.stdout

    def _attend(self, name: str, workload: Workload, output: IO[str]) -> None:
        """Start the container, pass on what it says, and end it when it is time."""
        environment = os.environ | {"CONTAINERS_STORAGE_CONF": str(self._work / "storage.conf")}
        command = ["podman", "start", "--attach", *(["--interactive"] if workload.interactive else []), name]
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=None if workload.interactive else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        ready = threading.Event()

        def listen() -> None:
            for line in process.stdout or ():
                output.write(line)
                if workload.wait_on_line is not None and workload.wait_on_line in line:
                    ready.set()

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        interrupted = False
        try:
            end = time.monotonic() + workload.period_seconds
            while process.poll() is None and time.monotonic() < end and not ready.wait(0.05):
                pass
        except KeyboardInterrupt:  # whoever watches has seen enough
            interrupted = True
        if process.poll() is None:
            self._podman("stop", "--time=2", name, check=False)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
        listener.join(5)
        if interrupted:
            _log.info("interrupted: what was read until now counts")

    def _read_record(self, start: int) -> Iterator[dict[str, Any]]:
        with self._record.open(encoding="utf-8") as file:
            file.seek(start)
            for line in file:
                yield json.loads(line)

    def _find_layers(self, image: str, paths: Iterable[str]) -> list[Access]:
        """Each path with the topmost layer that has it."""
        text = self._podman(
            "image", "inspect", "--format={{.GraphDriver.Data.UpperDir}}\n{{.GraphDriver.Data.LowerDir}}", image
        )
        upper, _, lower = text.strip().partition("\n")
        directories = [Path(part) for part in (upper, *lower.split(":")) if part and part != "<no value>"]
        found = []
        for path in paths:
            for position, directory in enumerate(directories):
                if os.path.lexists(directory / path):
                    found.append(Access(path, len(directories) - 1 - position, self._manifest_digest))
                    break
        return found


def check_lazy() -> None:
    """Raises WorkloadError where no file system of ours can be mounted."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise WorkloadError("/dev/fuse cannot be opened")


def merge_record(lines: Iterable[dict[str, Any]], manifest_digest: str) -> list[Access]:
    """One entry for each file, in the order of first reading, with its parts merged where they touch.

    `manifest_digest`: of the image whose layers these are; what ran may have been a copy in another format.
    """
    found: dict[tuple[int, str], Access] = {}
    for turn, line in enumerate(lines):
        key = line["layerIndex"], line["path"]
        access = found.get(key)
        if access is None:
            access = found[key] = Access(line["path"], line["layerIndex"], manifest_digest)
        offset, size = line["offset"], line["size"]
        if access.ranges and sum(access.ranges[-1]) == offset:
            access.ranges[-1] = (access.ranges[-1][0], access.ranges[-1][1] + size)
        else:
            access.ranges.append((offset, size))
            access.turns.append(turn)
    return list(found.values())


def write_record(accesses: Sequence[Access], file: IO[str]) -> None:
    """As JSON lines, readable by other tools."""
    for access in accesses:
        file.write(json.dumps(access.to_json()) + "\n")
