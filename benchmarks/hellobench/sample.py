"""One sample: a container is started from nothing until it is ready, and everything is wiped again."""

import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from benchmarks.hellobench.plan import Step
from benchmarks.store import Store, Usage
from lab import processes
from lab.chroot import RunningDebian
from lab.link import Link
from lab.podman import Podman
from lab.processes import ProgramError

READY_SECONDS = 300.0
_PARTIAL_PULLS = '[storage.options.pull_options]\nenable_partial_images = "true"\nuse_hard_links = "false"\n'
_NO_PARTIAL_PULLS = '[storage.options.pull_options]\nenable_partial_images = "false"\n'


@dataclass(frozen=True, slots=True)
class Sample:
    """What was measured; bytes and requests are those that crossed the link until the container was ready."""

    image: str
    mode: str
    link: str
    number: int
    pull_seconds: float
    create_seconds: float
    run_seconds: float
    bytes: int
    requests: int
    store_cpu_seconds: float
    store_peak_bytes: int
    link_cpu_seconds: float
    """Of the proxy that stands for the link: what it takes from the machine that is measured."""

    @property
    def seconds(self) -> float:
        """From the beginning of the pull until the container was ready."""
        return self.pull_seconds + self.create_seconds + self.run_seconds


class Bench:
    """Takes samples; `links` are running proxies by the names of their speeds."""

    def __init__(self, scratch: Path, links: Mapping[str, Link], command: str, debian13: RunningDebian | None) -> None:
        self._scratch = scratch
        self._links = links
        self._command = command
        self._debian13 = debian13

    def take(self, step: Step) -> Sample:
        """Raises ProgramError when anything fails."""
        home = self._scratch / "sample"
        link = self._links[step.speed.name]
        try:
            with self._store(step, home, link) as store:
                return self._start(step, link, store)
        finally:
            shutil.rmtree(home, ignore_errors=True)

    def _store(self, step: Step, home: Path, link: Link) -> AbstractContextManager[Store | None]:
        if not step.mode.lazy:
            return nullcontext()
        # Whoever is measured beside has no image store.
        command = f"{self._command} --images {shlex.quote(str(home / 'images'))}" if step.mode.added else self._command
        return Store(command, home / "store", home / "mnt", link.host)

    def _start(self, step: Step, link: Link, store: Store | None) -> Sample:
        with self._podman(step, link, store) as podman:
            image = podman.name(step.mode.tag(step.workload))
            before, link_before = store.usage() if store else Usage(0, 0), link.cpu_seconds()
            link.crossed()
            begin = time.monotonic()
            if step.mode.added:
                assert store is not None
                add(store, image)
            else:
                podman.run("pull", "-q", image)
            pulled = time.monotonic()
            podman.run("create", "--pull=never", "--name=bench", "--network=none", image, *step.workload.words)
            created = time.monotonic()
            run_until_ready(podman, "bench", step.workload.ready)
            ready = time.monotonic()
            crossed = link.crossed()
            used = store.usage() if store else Usage(0, 0)
            if store and not step.mode.added and not podman.layers().lazy:
                raise ProgramError(f"podman took no layer from the store, whose log ends:\n{store.log_tail()}")
            return Sample(
                image=step.workload.name,
                mode=step.mode.name,
                link=step.speed.name,
                number=step.number,
                pull_seconds=pulled - begin,
                create_seconds=created - pulled,
                run_seconds=ready - created,
                bytes=crossed.down_bytes,
                requests=crossed.requests,
                store_cpu_seconds=used.cpu_seconds - before.cpu_seconds,
                store_peak_bytes=used.peak_bytes,
                link_cpu_seconds=link.cpu_seconds() - link_before,
            )

    @contextmanager
    def _podman(self, step: Step, link: Link, store: Store | None) -> Iterator[Podman]:
        if step.mode.partial:
            assert self._debian13 is not None
            podman = Podman(self._debian13.work / "bench", link.host, inside=self._debian13)
        else:
            podman = Podman(
                self._scratch / "sample/podman",
                link.host,
                store=store.mountpoint if store and not step.mode.added else None,
                images=self._scratch / "sample/images" if step.mode.added else None,
            )
        with (podman.home / "storage.conf").open("a") as file:
            file.write(_PARTIAL_PULLS if step.mode.partial else _NO_PARTIAL_PULLS)
        try:
            podman.run("info")  # makes the empty storage
            yield podman
        finally:
            podman.close()


def add(store: Store, image: str) -> None:
    """`registry-storagectl add`, as a person says it."""
    words = [sys.executable, "-m", "registry_storage.ctl", "add", "--root", os.fspath(store.root), image]
    path = os.pathsep.join(path for path in sys.path if path)
    processes.run(words, environment={"PYTHONPATH": path}, timeout_seconds=READY_SECONDS)


def run_until_ready(podman: Podman, container: str, ready: str) -> None:
    """Start a created container; return when a line of its output contains `ready`, and leave it running."""
    command: list[str] = ["podman", "start", "--attach", container]
    if podman.inside is not None:
        command = podman.inside.command(command)
    said: list[str] = []
    with subprocess.Popen(
        command,
        env={**os.environ, **podman.environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as program:
        alarm = threading.Timer(READY_SECONDS, program.kill)
        alarm.start()
        try:
            assert program.stdout is not None
            for line in program.stdout:
                said.append(line)
                if ready in line:
                    return
        finally:
            alarm.cancel()
            program.kill()  # only what is attached to the container
    raise ProgramError(f"container {container} was never ready; it said:\n{''.join(said[-25:])}")
