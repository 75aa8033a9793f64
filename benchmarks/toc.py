"""From a TOC to a usable index: the kernel beside a plain json.loads.

    python -m benchmarks.toc [--entries N ...]

Prints, for TOCs of 100,000 and 1,000,000 entries as ctr-remote writes them (about 360 bytes per entry), the time
from JSON bytes to a usable index (the best of some rounds), what the process holds in memory for it afterwards, its
bytes per inode, and the time of one lookup. json.loads makes objects, not yet a tree. Each row has its own process.
"""

import argparse
import hashlib
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable

from registry_storage.toc.index import TocIndex, build_index

ROUNDS = 5


def make_toc(entries: int) -> tuple[bytes, int]:
    """A TOC of packages with some twenty files each, and the offset behind its data."""
    rng = random.Random(2)
    documents = []
    offset = 0
    name = ""
    common = '"modtime":"2024-05-01T10:00:00Z","userName":"root","groupName":"root","NumLink":0'
    for number in range(entries):
        if number % 20 == 0:
            name = f"usr/lib/python3/dist-packages/package{number // 20:06d}/"
            documents.append(f'{{"name":"{name}","type":"dir","mode":16877,{common}}}')
        elif number % 20 == 19:
            documents.append(
                f'{{"name":"{name}latest","type":"symlink","linkName":"module_{number:07d}.py",{common}}}'
            )
        else:
            digest = hashlib.sha256(b"%d" % number).hexdigest()
            size = rng.randrange(1, 20_000)
            documents.append(
                f'{{"name":"{name}module_{number:07d}.py","type":"reg","size":{size},{common},"mode":33188,'
                f'"offset":{offset},"digest":"sha256:{digest}","chunkDigest":"sha256:{digest}"}}'
            )
            offset += size // 3 + 100
    return f'{{"version":1,"entries":[{",".join(documents)}]}}'.encode(), offset


def resident_bytes() -> int:
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[1]) * 4096


def best(rounds: int, action: Callable[[], object]) -> float:
    """Seconds of the fastest round."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return min(times)


def lookup_seconds(index: TocIndex) -> float:
    """Of one lookup by path component in directories picked at random, those in Python included."""
    rng = random.Random(3)
    packages = 0
    for part in (b"usr", b"lib", b"python3", b"dist-packages"):
        packages = index.lookup(packages, part) or 0
    wanted = []
    for _ in range(20_000):
        _, package = index.child(packages, rng.randrange(index.child_count(packages)))
        wanted.append((package, index.child(package, rng.randrange(index.child_count(package)))[0]))

    def all_of_them() -> None:
        for directory, name in wanted:
            index.lookup(directory, name)

    return best(3, all_of_them) / len(wanted)


def owner_seconds(index: TocIndex) -> float:
    """Of one look-up of the file that a chunk picked at random belongs to."""
    rng = random.Random(3)
    numbers = [rng.randrange(index.chunk_count) for _ in range(20_000)]

    def all_of_them() -> None:
        for number in numbers:
            index.owner_of_chunk(number)

    return best(3, all_of_them) / len(numbers)


def measure(what: str, entries: int) -> None:
    """One row, in this process."""
    document, offset = make_toc(entries)
    rounds = ROUNDS if entries <= 100_000 else 3
    head = f"{what:26} {entries:9,} {len(document) / entries:7.0f}"
    if what == "json.loads":
        seconds = best(rounds, lambda: json.loads(document))
        before = resident_bytes()
        objects = json.loads(document)
        held = resident_bytes() - before
        print(f"{head} {seconds * 1e3:9.0f} {held / 1e6:9.0f} {held / len(objects['entries']):9.0f}")
        return

    def packed() -> bytes:
        return build_index(document, blob_size=offset, toc_offset=offset)

    if what == "open the stored index":
        stored = packed()
        seconds = best(rounds, lambda: TocIndex(stored))
    else:
        seconds = best(rounds, lambda: TocIndex(packed(), verify=False))
    before = resident_bytes()
    buffer = packed()
    index = TocIndex(buffer)
    held = resident_bytes() - before
    lookup, owner = lookup_seconds(index), owner_seconds(index)
    per_inode = len(buffer) / index.inode_count
    print(f"{head} {seconds * 1e3:9.0f} {held / 1e6:9.0f} {per_inode:9.0f} {lookup * 1e9:9.0f} {owner * 1e9:9.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--entries", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--row", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        measure(arguments.row, arguments.entries[0])
        return
    columns = ("ms", "MB held", "B/inode", "ns/lookup", "ns/owner")
    print(f"{'':26} {'entries':>9} {'bytes':>7} " + " ".join(f"{column:>9}" for column in columns))
    for entries in arguments.entries:
        for row in ("json.loads", "TOC to index", "open the stored index"):
            subprocess.run(
                [sys.executable, "-m", "benchmarks.toc", "--row", row, "--entries", str(entries)], check=True
            )


if __name__ == "__main__":
    main()
