"""Reading everything: `tar` of a whole layer through the mount, beside what does the same without it.

    python -m benchmarks.everything [--rounds 5]

First from nothing: over an unshaped link against `curl | zstd -d | tar x` of the same layer, and over one of 100 Mbit/s
against `curl` alone, which takes what that link carries; before each `sync`, or it would pay for what the one before
wrote. Then, with everything fetched, against the same tree on the machine's disk: `tar` after
`echo 3 > /proc/sys/vm/drop_caches`, `tar` and `find` with warm caches.
"""

import argparse
import contextlib
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks import rig
from benchmarks.rig import Rig
from benchmarks.store import Store

IMAGE = "postgres"
"""The workload with the largest layer: 125 MB compressed."""
MBIT, RTT_MS = 100.0, 10.0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.everything",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    rounds = parser.parse_args().rounds

    def benchmark() -> None:
        tag = rig.make_benched(IMAGE)
        with rig.rig() as unshaped:
            digest, size = rig.largest_layer(unshaped.registry, tag)
            print(f"a layer of {size / 1e6:.1f} MB, zstd:chunked; medians of {rounds}")
            _from_nothing(unshaped, tag, digest, size, rounds)
            _from_here(unshaped, tag, digest, rounds)
        with rig.rig(mbit=MBIT, rtt_ms=RTT_MS) as shaped:
            _at_link_speed(shaped, tag, digest, rounds)

    return rig.carry_out(benchmark)


def _lazily(place: Rig, tag: str, digest: str) -> float:
    with place.store() as store:
        _sync()
        begin = time.monotonic()
        _run(f"tar -C {_diff(place, store, tag, digest)} -cf - . | cat > /dev/null")
        return time.monotonic() - begin


def _by_hand(place: Rig, tag: str, digest: str) -> float:
    target = place.scratch / "unpacked"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    return _curl(place, tag, digest, f"zstd -dc | tar -C {shlex.quote(str(target))} -x")


def _curl(place: Rig, tag: str, digest: str, rest: str = "cat > /dev/null") -> float:
    address = f"http://{place.link.host}/v2/{tag.rpartition(':')[0]}/blobs/{digest}"
    _sync()
    begin = time.monotonic()
    _run(f"curl -sSf {address} | {rest}")
    return time.monotonic() - begin


def _from_nothing(place: Rig, tag: str, digest: str, size: int, rounds: int) -> None:
    """Leaves the layer's tree in the directory `unpacked`."""
    lazy, by_hand = _alternating(rounds, *(partial(way, place, tag, digest) for way in (_lazily, _by_hand)))
    print(
        f"from nothing, unshaped link: tar through the mount {lazy:.2f} s ({size / lazy / 1e6:.0f} MB/s), "
        f"curl | zstd -d | tar x {by_hand:.2f} s; speed {by_hand / lazy:.2f} of that",
        flush=True,
    )


def _at_link_speed(place: Rig, tag: str, digest: str, rounds: int) -> None:
    def speed(way: Callable[[Rig, str, str], float]) -> float:
        place.link.crossed()
        seconds = way(place, tag, digest)
        return place.link.crossed().down_bytes * 8 / 1e6 / seconds

    lazy, curl = _alternating(rounds, *(partial(speed, way) for way in (_lazily, _curl)))
    print(
        f"from nothing, {MBIT:.0f} Mbit/s: tar through the mount {lazy:.1f} Mbit/s, curl {curl:.1f} Mbit/s; "
        f"speed {lazy / curl:.3f} of that",
        flush=True,
    )


def _from_here(place: Rig, tag: str, digest: str, rounds: int) -> None:
    with place.store() as store:
        ours, disk = _diff(place, store, tag, digest), place.scratch / "unpacked"
        _run(f"tar -C {ours} -cf - . | cat > /dev/null")
        tar, find = "tar -C {} -cf - . | cat > /dev/null", "find {} -ls > /dev/null"
        for name, script, cold in (("tar, cold", tar, True), ("tar, warm", tar, False), ("find, warm", find, False)):
            if not cold:
                _run(script.format(ours))
                _run(script.format(disk))
            timed = [partial(_timed, script.format(tree), cold) for tree in (ours, disk)]
            lazy, plain = _alternating(rounds, *timed)
            print(f"{name}: {lazy:.3f} s, on disk {plain:.3f} s; speed {plain / lazy:.2f} of that", flush=True)


def _alternating(rounds: int, *actions: Callable[[], float]) -> Sequence[float]:
    """The median of each, taken in turn."""
    taken: list[list[float]] = [[] for _ in actions]
    for _ in range(rounds):
        for action, numbers in zip(actions, taken, strict=True):
            numbers.append(action())
    return [statistics.median(numbers) for numbers in taken]


def _timed(script: str, cold: bool) -> float:
    if cold:
        _sync()
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    begin = time.monotonic()
    _run(script)
    return time.monotonic() - begin


def _diff(place: Rig, store: Store, tag: str, digest: str) -> str:
    return shlex.quote(str(store.layer(f"{place.link.host}/{tag}", digest) / "diff"))


def _sync() -> None:
    subprocess.run(["sync"], check=True)


def _run(script: str) -> None:
    subprocess.run(["bash", "-o", "pipefail", "-c", script], check=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
