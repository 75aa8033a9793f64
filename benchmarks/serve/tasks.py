"""What is done with a tree, and how long it takes.

Random reads are fio's with O_DIRECT: each goes to the file system, whatever the kernel has cached; of the disk's tree
that means to the disk. Before sequential reads fio drops the cached pages of the file that it reads. *cold* is after
`echo 2 > /proc/sys/vm/drop_caches`: names, attributes and pages of files that nobody has open are gone, so that a FUSE
file system is asked for everything, while the content that it holds open stays in memory (the disk's tree has lost its
content and reads it again); *warm* is the same once more.
"""

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serve.systems import System
from lab import processes

RANDOM_JOBS = (1, 8, 16)


@dataclass(frozen=True, slots=True)
class Measured:
    """One task on one system."""

    value: float
    """In the task's unit."""
    cpu_seconds: float
    """Of the serving process."""
    requests: int = 0
    """For random reads: how many."""
    p99_us: float = 0.0

    @property
    def cpu_us_per_request(self) -> float:
        return self.cpu_seconds / self.requests * 1e6 if self.requests else 0.0


@dataclass(frozen=True, slots=True)
class Task:
    name: str
    unit: str
    more_is_better: bool
    alone: bool
    """One reader asks."""
    run: Callable[[System, float], Measured]
    """With the seconds that a task lasts which has no end of its own."""


def _fio(system: System, *options: str) -> tuple[dict[str, object], float]:
    before = system.cpu_seconds()
    words = ["fio", "--name=task", "--filename=big", "--readonly", "--thread", "--group_reporting"]
    said = processes.run([*words, "--ioengine=psync", "--output-format=json", *options], directory=system.tree).stdout
    cpu = system.cpu_seconds() - before
    return json.loads(said[said.index("{") :])["jobs"][0]["read"], cpu


def _random(jobs: int) -> Callable[[System, float], Measured]:
    def run(system: System, seconds: float) -> Measured:
        timing = ("--time_based", f"--runtime={seconds:g}", "--randrepeat=0", "--norandommap")
        read, cpu = _fio(system, "--rw=randread", "--bs=4k", "--direct=1", f"--numjobs={jobs}", *timing)
        p99 = _number(_table(_table(read["clat_ns"])["percentile"])["99.000000"]) / 1000
        return Measured(_number(read["iops"]), cpu, int(_number(read["total_ios"])), p99)

    return run


def _table(value: object) -> Mapping[str, object]:
    assert isinstance(value, dict)
    return value


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return float(value)


def _sequential(system: System, seconds: float) -> Measured:
    read, cpu = _fio(system, "--rw=read", "--bs=1M", "--invalidate=1")
    return Measured(_number(read["bw_bytes"]) / 1e6, cpu)


def _timed(script: str, *, cold: bool) -> Callable[[System, float], Measured]:
    def run(system: System, seconds: float) -> Measured:
        if cold:
            drop_names_and_pages()
        before, begin = system.cpu_seconds(), time.monotonic()
        subprocess.run(["sh", "-c", script], cwd=system.tree, check=True)
        return Measured(time.monotonic() - begin, system.cpu_seconds() - before)

    return run


def drop_names_and_pages() -> None:
    subprocess.run(["sync"], check=True)
    Path("/proc/sys/vm/drop_caches").write_text("2\n")


_FIND = "find . -ls > /dev/null"
_TAR = "tar -cf - small | cat > /dev/null"

TASKS = (
    *(Task(f"random 4 KiB, {n} job{'s' if n > 1 else ''}", "IOPS", True, n == 1, _random(n)) for n in RANDOM_JOBS),
    Task("sequential", "MB/s", True, True, _sequential),
    Task("find -ls, cold", "s", False, True, _timed(_FIND, cold=True)),
    Task("find -ls, warm", "s", False, True, _timed(_FIND, cold=False)),
    Task("tar, cold", "s", False, True, _timed(_TAR, cold=True)),
    Task("tar, warm", "s", False, True, _timed(_TAR, cold=False)),
)
