"""Cold starts: seconds until a container is ready, by full pull and through the store.

    python -m benchmarks.hellobench                                    everything: about an hour
    python -m benchmarks.hellobench --images redis --links 100m --samples 1      an answer in half a minute
    python -m benchmarks.hellobench --links 100m --modes zstd,added-zstd         the layer store beside the image store
    python -m benchmarks.hellobench --daemon 'OTHER-STORE --root {root} {mountpoint}' --label other
    python -m benchmarks.hellobench --show FILE                        the tables of an earlier run

Before every sample the storage of podman and of the store is wiped and the store is started anew; the order is
shuffled. The registry is a real one on loopback behind a proxy that behaves like a link (benchmarks/link.py).
"""

import argparse
import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.hellobench import chart, plan, reads, report
from benchmarks.hellobench.sample import Bench
from benchmarks.store import OURS
from lab import chroot, images, make, places, processes
from lab.link import Link
from lab.registry import Registry
from lab.workloads import WORKLOADS


def main() -> int:
    arguments = _parse()
    if arguments.show:
        results = report.load(arguments.show)
        _show(results, arguments)
        return 0
    if os.geteuid() != 0:
        print("hellobench mounts file systems and builds images: run it as root.", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        results = measure(arguments)
    except (processes.ProgramError, OSError) as error:
        print(f"hellobench failed: {error}", file=sys.stderr)
        return 1
    _show(results, arguments)
    return 0


def _show(results: report.Results, arguments: argparse.Namespace) -> None:
    about = results.about
    print(f"{about['store']}: {about['date']}, {about['machine']}\n{report.text(results)}", flush=True)
    if arguments.chart:
        links, modes = arguments.links, arguments.modes
        shown = [sample for sample in results.samples if sample.link in links and sample.mode in modes]
        arguments.chart.write_text(chart.draw(replace(results, samples=shown)))


def measure(arguments: argparse.Namespace) -> report.Results:
    """Take all samples; the JSON file is written after each, so that an aborted run is not lost."""
    modes = [plan.MODES[name] for name in arguments.modes]
    workloads = [WORKLOADS[name] for name in arguments.images]
    partial = any(mode.partial for mode in modes)
    parts = [mode.part(workload) for mode in modes for workload in workloads]
    make.make([*parts, *(["debian13"] if partial else [])], _say)
    steps = list(plan.steps(arguments.images, arguments.modes, arguments.links, arguments.samples, arguments.seed))
    results = report.Results(_about(arguments))
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(places.scratch("hellobench"))
        registry = stack.enter_context(Registry(images.registry_storage(), scratch / "registry", readonly=True))
        links = {
            name: stack.enter_context(
                Link(registry.host, rtt_ms=plan.SPEEDS[name].rtt_ms, mbit=plan.SPEEDS[name].mbit)
            )
            for name in arguments.links
        }
        if arguments.reads:
            for mode in modes:
                for workload in workloads:
                    if mode.lazy:
                        needed = reads.needed_bytes(workload, mode, registry.host, scratch)
                        results.needed_bytes[workload.name, mode.name] = needed
                        _say(f"{workload.name} reads {needed / 1e6:.1f} MB of {mode.title}")
        debian13 = stack.enter_context(chroot.running()) if partial else None
        bench = Bench(scratch, links, arguments.daemon, debian13)
        for number, step in enumerate(steps, 1):
            sample = bench.take(step)
            results.samples.append(sample)
            report.save(arguments.output, results)
            _say(
                f"[{time.monotonic() - began:5.0f} s] {number:4}/{len(steps)} {step.speed.name:9}"
                f"{step.workload.name:10}{step.mode.name:19}{sample.seconds:7.2f} s"
                f"{sample.bytes / 1e6:8.1f} MB{sample.requests:5} requests"
            )
    return results


def _about(arguments: argparse.Namespace) -> Mapping[str, Any]:
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine.describe(),
        "store": arguments.label,
        "samples": arguments.samples,
        "seed": arguments.seed,
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _some_of(known: Sequence[str]) -> Any:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"unknown: {name!r}; known are {', '.join(known)}")
        return names

    return parse


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.hellobench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    choices: list[tuple[str, Collection[str], Collection[str]]] = [
        ("--images", WORKLOADS, WORKLOADS),
        ("--modes", plan.MODES, plan.USUAL_MODES),
        ("--links", plan.SPEEDS, plan.SPEEDS),
    ]
    for option, known, usual in choices:
        default = "all" if len(usual) == len(known) else f"all but {', '.join(n for n in known if n not in usual)}"
        text = f"of {', '.join(known)} (default: {default})"
        parser.add_argument(option, type=_some_of(list(known)), default=list(usual), metavar="A,B", help=text)
    parser.add_argument("--samples", type=int, default=5, metavar="N", help="of each combination (default: 5)")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 16), help="of the order")
    parser.add_argument(
        "--daemon",
        default=OURS,
        metavar="COMMAND",
        help="the store to measure, with {mountpoint}, {root} and, where it needs it, {registry} (host:port)",
    )
    parser.add_argument("--label", default="registry-storage", help="what the results call the store")
    parser.add_argument("--reads", action="store_true", help="also find out what each workload reads")
    parser.add_argument("--output", type=Path, default=Path("hellobench.json"), metavar="FILE")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="also draw the links as SVG")
    parser.add_argument("--show", type=Path, metavar="FILE", help="only print the tables of an earlier run")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
