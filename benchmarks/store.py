"""The store under test: any program that serves an additional layer store at a mount point."""

import base64
import contextlib
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from lab import places, processes

OURS = f"{shlex.quote(sys.executable)} -m registry_storage.cli --root {{root}} {{mountpoint}}"
START_SECONDS = 30.0
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a group of processes has used since its start."""

    cpu_seconds: float
    peak_bytes: int
    """Of resident memory: the sum of each process's own peak; of a copy that a process left of itself only what the
    two do not share."""


class Store:
    """Runs between `with` and its end. `command` holds `{mountpoint}` and `{root}`, and may hold `{registry}`."""

    def __init__(self, command: str, home: Path, mountpoint: Path, registry_host: str) -> None:
        self.root = home / "root"
        self.mountpoint = mountpoint
        self.log = home / "store.log"
        self.root.mkdir(parents=True)
        mountpoint.mkdir(parents=True, exist_ok=True)
        self._registries = home / "registries.conf"
        self._registries.write_text(f'[[registry]]\nlocation = "{registry_host}"\ninsecure = true\n')
        places_of = {"mountpoint": mountpoint, "root": self.root, "registry": registry_host}
        self._words = shlex.split(command.format_map(places_of))
        self._process: processes.Background | None = None

    def __enter__(self) -> Self:
        self._process = processes.Background(
            self._words,
            log=self.log,
            environment={
                "CONTAINERS_REGISTRIES_CONF": os.fspath(self._registries),
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            },
        )
        self._process.wait_until(
            lambda: os.path.ismount(self.mountpoint), what="mounted", timeout_seconds=START_SECONDS
        )
        return self

    @property
    def pid(self) -> int:
        """Of the program that was started."""
        assert self._process is not None
        return self._process.pid

    def layer(self, reference: str, digest: str) -> Path:
        """The store's directory of a layer: in it are `diff`, `info` and `blob`."""
        return self.mountpoint / base64.b64encode(reference.encode()).decode() / digest

    def use(self, layer: Path) -> None:
        """Tell the store, as podman does, that the layer is in use."""
        with contextlib.suppress(FileNotFoundError):  # the answer that is agreed upon
            os.close(os.open(layer / "use", os.O_CREAT | os.O_WRONLY))

    def usage(self) -> Usage:
        """Of the program and its children until now."""
        return usage_of(self.pid)

    def log_tail(self) -> str:
        assert self._process is not None
        return self._process.tail()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None
        for mounted in places.mounts_below(self.mountpoint):
            processes.run(["umount", "-l", mounted], allow_failure=True)


def usage_of(program: int) -> Usage:
    """Of a program with its living descendants, and of those that have been waited for."""
    ticks = peak = 0
    for pid in _family(program):
        with contextlib.suppress(OSError, IndexError):  # it has just ended
            ticks += sum(int(field) for field in _statistics(pid)[11:15])
            peak += _private(pid, "VmHWM") if _is_copy(pid) else memory(pid, "VmHWM")
    return Usage(ticks / _TICKS_PER_SECOND, peak)


def threads_of(program: int) -> list[int]:
    """The ids of all threads of a program and its descendants."""
    found: list[int] = []
    for pid in _family(program):
        with contextlib.suppress(OSError):
            found += [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    return found


def memory_of(program: int, what: str) -> int:
    """The sum over a program and its descendants; see `memory`. Of a copy only what it does not share."""
    return sum(_private(pid, what) if _is_copy(pid) else memory(pid, what) for pid in _family(program))


def _is_copy(pid: int) -> bool:
    """Its parent has forked, and nothing else was executed since."""
    parent = _statistics(pid)[1]
    return parent != "1" and Path(f"/proc/{pid}/cmdline").read_bytes() == Path(f"/proc/{parent}/cmdline").read_bytes()


def _private(pid: int, what: str) -> int:
    """Bytes of resident memory that no other process has; of mapped files it has none of its own."""
    if what == "RssFile":
        return 0
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def memory(pid: int, what: str) -> int:
    """Bytes of a process's memory, by the name of a line of proc_pid_status(5)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) * 1024
    return 0


def _family(program: int) -> set[int]:
    """The program, its descendants, and what else is in its session."""
    living: dict[int, tuple[int, int]] = {}
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            fields = _statistics(int(directory.name))
            living[int(directory.name)] = int(fields[1]), int(fields[3])
    family = {pid for pid, (_, session) in living.items() if session == program} | {program}
    while more := {pid for pid, (parent, _) in living.items() if parent in family} - family:
        family |= more
    return family


def _statistics(pid: int) -> list[str]:
    """The fields of proc_pid_stat(5) after the name, from the state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
