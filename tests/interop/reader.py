"""Runs in a container: reads every file of /tree again and again, compares, and says how long the slowest reads took.

Words: the number of the reader. /check/digests has "sha256 path" of every file; what is found goes to /check too, since
that directory is the host's. Times are CLOCK_MONOTONIC, which containers share with the host.
"""

import hashlib
import os
import random
import sys
import time

LONG_SECONDS = 0.02
"""A read that took longer is written down."""


def read(path: str) -> bytes:
    """All of a file, past the kernel's cache."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        parts = []
        while part := os.read(file, 1 << 20):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(file)


def main(number: str) -> None:
    """Until /check/end is there."""
    with open("/check/digests") as listed:
        digests = {name: digest for digest, name in map(str.split, listed)}
    names = list(digests)
    done = os.open(f"/check/done.{number}", os.O_RDWR | os.O_CREAT)
    with open(f"/check/said.{number}", "w", buffering=1) as said:
        count = 0
        while True:
            random.shuffle(names)
            for name in names:
                start = time.monotonic()
                try:
                    wrong = hashlib.sha256(read(f"/tree/{name}")).hexdigest() != digests[name]
                    what = "wrong bytes" if wrong else ""
                except OSError as error:
                    what = str(error)
                end = time.monotonic()
                if what:
                    said.write(f"error {end} {name}: {what}\n")
                if end - start >= LONG_SECONDS:
                    said.write(f"read {start} {end}\n")
                count += 1
                os.pwrite(done, b"%d" % count, 0)
                if count % 16 == 0 and os.path.exists("/check/end"):
                    said.write("ended\n")
                    return


main(sys.argv[1])
