"""The rest of a layer is fetched in the background: how much of the link that uses, and what a reader notices of it.

    python -m benchmarks.background [--reads 60]

A layer of 125 MB (postgres, zstd:chunked) over 100 Mbit/s and 10 ms. First nobody reads: the share of the link that is
used from the first bytes of the background fetch to its end. Then a reader reads 4 KiB at random places that are not
here, one after the other with pauses of up to a tenth of a second, once with the background fetch under way and once
without it.
"""

import argparse
import contextlib
import os
import random
import stat
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import rig
from benchmarks.rig import Rig
from benchmarks.store import Store
from lab.processes import ProgramError
from registry_storage.toc.index import TocIndex

IMAGE = "postgres"
MBIT, RTT_MS = 100.0, 10.0
BLOCK = 4096
_STEP_SECONDS = 0.05
_START_SECONDS = 30.0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.background",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--reads", type=int, default=60, metavar="N")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()

    def benchmark() -> None:
        tag = rig.make_benched(IMAGE)
        with rig.rig(mbit=MBIT, rtt_ms=RTT_MS) as place:
            digest, size = rig.largest_layer(place.registry, tag)
            print(f"a layer of {size / 1e6:.1f} MB, zstd:chunked, {MBIT:.0f} Mbit/s and {RTT_MS:.0f} ms")
            _alone(place, tag, digest, size)
            alone, alone_bytes = _read(place, tag, digest, arguments.reads, arguments.seed, background=False)
            beside, beside_bytes = _read(place, tag, digest, arguments.reads, arguments.seed, background=True)
            print(
                f"a cold read of 4 KiB: {alone * 1000:.1f} ms with the background fetch off, "
                f"{beside * 1000:.1f} ms beside it; ratio {beside / alone:.2f} (medians of {arguments.reads}); "
                f"{alone_bytes / 1e6:.1f} and {beside_bytes / 1e6:.1f} MB came over the link",
                flush=True,
            )

    return rig.carry_out(benchmark)


@contextlib.contextmanager
def _used(place: Rig, tag: str, digest: str, *options: str) -> Iterator[tuple[Store, Path]]:
    """A store in which the layer is in use, and the layer's directory."""
    with place.store(*options) as store:
        layer = store.layer(f"{place.link.host}/{tag}", digest)
        os.stat(layer / "diff")
        place.link.crossed()
        store.use(layer)
        yield store, layer


def _alone(place: Rig, tag: str, digest: str, size: int) -> None:
    with _used(place, tag, digest, "--no-prefetch"):  # what the config names comes at once, the rest after some seconds
        _wait_for_bytes(place)
        begin, carried = time.monotonic(), 0
        end = begin
        while time.monotonic() < end + 3:  # until nothing has come for so long
            time.sleep(_STEP_SECONDS)
            if came := place.link.crossed().down_bytes:
                carried, end = carried + came, time.monotonic()
    if carried < 0.9 * size:
        raise ProgramError(f"the background fetch brought {carried} bytes of {size}")
    share = carried * 8 / 1e6 / MBIT / (end - begin)
    print(f"nobody reads: {carried / 1e6:.1f} MB in {end - begin:.1f} s, {share:.3f} of the link", flush=True)


def _wait_for_bytes(place: Rig) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not place.link.crossed().down_bytes:
        if time.monotonic() > deadline:
            raise ProgramError(f"no background fetch has begun after {_START_SECONDS:.0f} s")
        time.sleep(_STEP_SECONDS / 10)


def _read(place: Rig, tag: str, digest: str, reads: int, seed: int, *, background: bool) -> tuple[float, int]:
    """The median of the seconds of `reads` reads of bytes that were not here; the bytes that crossed the link."""
    chance = random.Random(seed)
    options = () if background else ("--no-background-fetch",)
    with _used(place, tag, digest, *options) as (store, layer), _opened(layer / "diff") as diff:
        content = _Content(store, digest)
        spots = content.spots(chance)
        if background:
            _wait_for_bytes(place)
        place.link.crossed()
        seconds: list[float] = []
        for inode, offset in spots:
            if not content.has(inode, offset):
                seconds.append(_seconds_to_read(content.path(inode), offset, diff))
                time.sleep(chance.uniform(0, 0.1))
            if len(seconds) == reads:
                return statistics.median(seconds), place.link.crossed().down_bytes
    raise ProgramError(f"only {len(seconds)} of {reads} reads were cold: the background fetch was faster")


@contextlib.contextmanager
def _opened(directory: Path) -> Iterator[int]:
    """From here paths lead into the layer without the store's own directories."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


class _Content:
    """A layer's files, and what of them is on the daemon's disk already: its content file is sparse."""

    def __init__(self, store: Store, digest: str) -> None:
        [directory] = (store.root / "layers").glob(f"{digest.partition(':')[2]}-*")
        self._index = TocIndex((directory / "index").read_bytes())
        self._file = (directory / "content").open("rb")

    def spots(self, chance: random.Random) -> list[tuple[int, int]]:
        """An offset in each regular file (by inode) that has bytes in the blob there, in a random order."""
        found: list[tuple[int, int]] = []
        for inode in range(self._index.inode_count):
            if stat.S_ISREG(self._index.mode(inode)) and (size := self._index.attributes(inode).size):
                offset = chance.randrange(size) // BLOCK * BLOCK
                chunks = range(*self._index.chunk_range(inode, offset, BLOCK))
                if not any(self._index.chunk(number).is_hole for number in chunks):
                    found.append((inode, offset))
        chance.shuffle(found)
        return found

    def path(self, inode: int) -> bytes:
        return self._index.path(inode)

    def has(self, inode: int, offset: int) -> bool:
        at = self._index.content_offset(inode) + offset
        try:
            return os.lseek(self._file.fileno(), at, os.SEEK_DATA) == at
        except OSError:  # no data from there on
            return False


def _seconds_to_read(path: bytes, offset: int, directory: int) -> float:
    descriptor = os.open(path, os.O_RDONLY, dir_fd=directory)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)  # what is measured is not the kernel's read-ahead
        begin = time.monotonic()
        os.pread(descriptor, BLOCK, offset)
        return time.monotonic() - begin
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main())
