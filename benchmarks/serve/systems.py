"""The file systems that are compared: each shows the same tree and tells what its process has cost."""

import contextlib
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.generated import GeneratedImage
from benchmarks.store import OURS, Store, threads_of, usage_of
from lab import places, processes
from lab.registry import Registry

_BUSY_PATH = os.pathsep.join([os.fspath(Path(__file__).with_name("busy")), *(path for path in sys.path if path)])
BUSY = f"env PYTHONPATH={shlex.quote(_BUSY_PATH)} {OURS}"
_SOURCE = Path(__file__).with_name("minifs.c")
_READ_AHEAD_KIB = 1024


@dataclass(frozen=True, slots=True)
class System:
    """A mounted tree; `process` serves it, with its children; None where its cost is not counted."""

    name: str
    tree: Path
    process: int | None

    def cpu_seconds(self) -> float:
        """Processor time that serving has cost until now; 0 where it is not counted."""
        return usage_of(self.process).cpu_seconds if self.process is not None else 0.0


def plain(image: GeneratedImage) -> System:
    """The tree as it is on the machine's disk."""
    return System("disk", image.tree(), None)


@contextlib.contextmanager
def minimal(image: GeneratedImage, scratch: Path, *words: str) -> Iterator[System]:
    """The file system of minifs.c; `words` may be `no-open`."""
    name = "-".join(("C", *words))
    program, mountpoint = scratch / "minifs", scratch / f"mnt-{name}"
    flags = processes.run(["pkg-config", "--cflags", "--libs", "fuse3"]).stdout.split()
    processes.run(["gcc", "-O2", "-Wall", "-Wextra", "-o", program, _SOURCE, *flags])
    mountpoint.mkdir()
    process = processes.Background(
        [program, image.tree(), scratch / f"content-{name}", mountpoint, *words], log=scratch / f"{name}.log"
    )
    try:
        process.wait_until(lambda: os.path.ismount(mountpoint), what="mounted", timeout_seconds=300)
        _set_read_ahead(mountpoint)
        yield System(name, mountpoint, process.pid)
    finally:
        process.stop()
        for mounted in places.mounts_below(mountpoint):
            processes.run(["umount", "-l", mounted], allow_failure=True)


@contextlib.contextmanager
def lazy(
    image: GeneratedImage, registry: Registry, home: Path, *, busy: bool = False
) -> Iterator[System]:
    """The layer through the daemon, with everything of it fetched. What a busy one costs is not counted."""
    name, command = ("ours-busy", BUSY) if busy else ("ours", OURS)
    with Store(command, home / name, home / f"mnt-{name}", registry.host) as store:
        layer = registry.manifest(image.tag)["layers"][0]["digest"]
        tree = store.layer(f"{registry.host}/{image.tag}", layer) / "diff"
        _read_everything(tree)
        yield System(name, tree, None if busy else store.pid)


def _read_everything(tree: Path) -> None:
    subprocess.run(f"tar -cf - -C {shlex.quote(str(tree))} . | cat > /dev/null", shell=True, check=True)


def _set_read_ahead(mountpoint: Path) -> None:
    device = mountpoint.stat().st_dev
    bdi = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    bdi.write_text(f"{_READ_AHEAD_KIB}\n")


@contextlib.contextmanager
def on_one_core(system: System) -> Iterator[None]:
    """This process, what it starts, and the serving process share a core; nothing where no process is known."""
    if system.process is None:
        yield
        return
    everywhere = os.sched_getaffinity(0)
    _move(system.process, {0})
    try:
        yield
    finally:
        _move(system.process, everywhere)


def _move(process: int, cores: set[int]) -> None:
    for thread in (0, *threads_of(process)):
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(thread, cores)
