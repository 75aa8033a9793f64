"""Many containers of one image at once: does each byte come once, and what does it cost?

    python -m benchmarks.many [--containers 30] [--image python3] [--link 1g]

Three runs, each from empty state: one container through the store (pull, then run to its end); many at once through the
store; and many at once from ordinary storage after a full pull, which says what starting them costs without the store.
"""

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass

from benchmarks import rig
from benchmarks.hellobench.plan import MODES, SPEEDS
from benchmarks.rig import Rig
from lab import make
from lab.podman import Podman
from lab.processes import ProgramError
from lab.workloads import WORKLOADS, Workload

ENDING = ("python3", "nodejs", "gcc")
"""Workloads that end by themselves."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Seconds of all containers together, and with the pull before them; bytes over the link in all."""

    run_seconds: float
    seconds: float
    bytes: int


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.many", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--containers", type=int, default=30, metavar="N")
    parser.add_argument("--image", choices=ENDING, default="python3")
    parser.add_argument("--link", choices=list(SPEEDS), default="1g")
    arguments = parser.parse_args()
    workload, many = WORKLOADS[arguments.image], arguments.containers

    def benchmark() -> None:
        make.make([MODES[mode].part(workload) for mode in ("gzip", "zstd")], rig.say)
        speed = SPEEDS[arguments.link]
        with rig.rig(mbit=speed.mbit, rtt_ms=speed.rtt_ms) as place:
            single = _lazy(place, workload, 1)
            together = _lazy(place, workload, many)
            without = _full(place, workload, many)
        limit = 2 * single.seconds + without.run_seconds
        print(f"{workload.name}, zstd:chunked, {speed.title}")
        print(f"one container, pull included: {single.seconds:.1f} s, {single.bytes / 1e6:.1f} MB over the link")
        print(
            f"{many} at once, pull included: {together.seconds:.1f} s, {together.bytes / 1e6:.1f} MB over the link, "
            f"{together.bytes / single.bytes:.2f} of what one needs"
        )
        print(f"{many} at once without the store, after a full pull: {without.run_seconds:.1f} s")
        print(f"{together.seconds:.1f} s are {together.seconds / limit:.2f} of 2 x one + {many} without the store")

    return rig.carry_out(benchmark)


def _lazy(place: Rig, workload: Workload, count: int) -> Outcome:
    with place.store("--no-background-fetch") as store:
        podman = Podman(place.scratch / "podman", place.link.host, store=store.mountpoint)
        return _start(place, podman, MODES["zstd"].tag(workload), workload, count)


def _full(place: Rig, workload: Workload, count: int) -> Outcome:
    podman = Podman(place.scratch / "podman", place.link.host)
    return _start(place, podman, MODES["gzip"].tag(workload), workload, count)


def _start(place: Rig, podman: Podman, tag: str, workload: Workload, count: int) -> Outcome:
    try:
        podman.run("info")
        place.link.crossed()
        begin = time.monotonic()
        podman.pull(tag)
        pulled = time.monotonic()
        words = ["podman", "run", "--rm", "--network=none", podman.name(tag), *workload.words]
        running = [
            subprocess.Popen(
                words,
                env={**os.environ, **podman.environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for _ in range(count)
        ]
        said = [program.communicate()[0] for program in running]
        end = time.monotonic()
        for output in said:
            if workload.ready not in output:
                raise ProgramError(f"a container was never ready; it said:\n{output}")
        return Outcome(end - pulled, end - begin, place.link.crossed().down_bytes)
    finally:
        podman.close()


if __name__ == "__main__":
    sys.exit(main())
