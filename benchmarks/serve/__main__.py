"""Reading what is here already: the mount beside ext4 and beside a minimal file system in C.

    python -m benchmarks.serve             100,000 files and one of 1 GiB, five rounds: about a quarter of an hour
    python -m benchmarks.serve --quick     20,000 files, one round: a minute

The image is generated, converted by our converter, served from a registry on loopback and read once before anything
is measured. Every round does every task on every system, one right after the other in a shuffled order, since the
speed of a machine may change within minutes; the medians are shown. `ours-busy` is our daemon with a Python thread in
its process that never rests.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks import machine
from benchmarks.generated import GeneratedImage, Shape
from benchmarks.serve import systems
from benchmarks.serve.systems import System
from benchmarks.serve.tasks import TASKS, Measured, Task
from lab import places
from lab.processes import ProgramError
from lab.registry import Registry

FULL = GeneratedImage("serve", (Shape(5000, 20, big_bytes=1 << 30),))
QUICK = GeneratedImage("serve-quick", (Shape(1000, 20, big_bytes=256 << 20),))
STANDARD = "C"
"""The system that ours is compared with."""

Results = dict[tuple[str, str], list[Measured]]
"""By (task, system), one for each round."""


def main() -> int:
    arguments = _parse()
    if os.geteuid() != 0:
        print("This mounts file systems: run it as root.", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    tasks = [task for task in TASKS if arguments.tasks is None or any(word in task.name for word in arguments.tasks)]
    image = QUICK if arguments.quick else FULL
    rounds = arguments.rounds or (1 if arguments.quick else 5)
    seconds = arguments.seconds or (2.0 if arguments.quick else 5.0)
    results: Results = {}
    try:
        image.make(_say)
        _measure(image, tasks, rounds, seconds, results)
    except (ProgramError, OSError) as error:
        print(f"serve failed: {error}", file=sys.stderr)
        return 1
    print(f"{machine.describe()}, {time.strftime('%Y-%m-%d')}; medians of {rounds}")
    print("\n".join(_table(tasks, results)), flush=True)
    if arguments.output:
        flat = [[*key, [asdict(one) for one in measured]] for key, measured in results.items()]
        about = {"date": time.strftime("%Y-%m-%d"), "machine": machine.describe()}
        arguments.output.write_text(json.dumps({"about": about, "results": flat}, indent=1) + "\n")
    return 0


def _measure(image: GeneratedImage, tasks: Sequence[Task], rounds: int, seconds: float, results: Results) -> None:
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(places.scratch("serve"))
        registry = stack.enter_context(Registry(image.storage, scratch / "registry", readonly=True))
        with contextlib.ExitStack() as mounted:
            _say("mounting, and reading everything once")
            compared = [
                systems.plain(image),
                mounted.enter_context(systems.minimal(image, scratch)),
                mounted.enter_context(systems.minimal(image, scratch, "no-open")),
                mounted.enter_context(systems.lazy(image, registry, scratch)),
            ]
            for number in range(rounds):
                for group in _groups(tasks):
                    for system in random.sample(compared, len(compared)):
                        _run_all(system, group, seconds, results, f"round {number + 1} of {rounds}")
        # A process that never rests would disturb the others: it comes last, alone.
        _say("again with a busy thread")
        with systems.lazy(image, registry, scratch, busy=True) as system:
            for number in range(rounds):
                _run_all(system, tasks, seconds, results, f"round {number + 1} of {rounds}")


def _groups(tasks: Sequence[Task]) -> list[list[Task]]:
    """What belongs together on one system: cold, then warm."""
    groups: dict[str, list[Task]] = {}
    for task in tasks:
        groups.setdefault(task.name.removesuffix(", cold").removesuffix(", warm"), []).append(task)
    return list(groups.values())


def _run_all(system: System, tasks: Sequence[Task], seconds: float, results: Results, what: str) -> None:
    for task in tasks:
        with systems.on_one_core(system) if task.alone else contextlib.nullcontext():
            measured = task.run(system, seconds)
        results.setdefault((task.name, system.name), []).append(measured)
        _say(f"{what}: {system.name:10}{task.name:22}{measured.value:12.2f} {task.unit}")


def _table(tasks: Sequence[Task], results: Results) -> list[str]:
    names = list(dict.fromkeys(name for _, name in results))
    randoms = [task for task in tasks if task.name.startswith("random")]
    others = [task for task in tasks if task not in randoms]
    lines = [f"{'':32}" + "".join(f"{name:>12}" for name in names) + f"{'ours : C':>12}"]

    def block(rows: Sequence[Task], number: str, unit: str | None, form: str, *, ratio: bool = False) -> None:
        for task in rows:
            values = [statistics.median(getattr(one, number) for one in results[task.name, name]) for name in names]
            cells = [format(value, form) if value else f"{'-':>12}" for value in values]
            if ratio:
                cells.append(f"{values[names.index('ours')] / values[names.index(STANDARD)]:12.2f}")
            lines.append(f"{f'{task.name}, {unit or task.unit}':32}" + "".join(cells))

    block([task for task in tasks if task.more_is_better], "value", None, "12,.0f", ratio=True)
    block([task for task in tasks if not task.more_is_better], "value", None, "12.3f", ratio=True)
    block(randoms, "p99_us", "p99 µs", "12.0f")
    block(randoms, "cpu_us_per_request", "CPU µs each", "12.1f")
    block(others, "cpu_seconds", "CPU s", "12.2f")
    return lines


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serve", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a smaller tree, one round")
    parser.add_argument("--rounds", type=int, metavar="N")
    parser.add_argument("--seconds", type=float, metavar="S", help="of each task of random reads (default: 5)")
    parser.add_argument("--tasks", nargs="+", metavar="WORD", help="only those whose names have one of these words")
    parser.add_argument("--output", type=Path, metavar="FILE", help="all numbers, as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
