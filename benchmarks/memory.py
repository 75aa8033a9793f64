"""Memory of the daemon for an image that nobody reads: ten layers with 200,000 files in all.

    python -m benchmarks.memory

Resident memory of the daemon without any image, after a pull through it, after the rest of the image has been fetched
in the background, and after `find` has looked at every file. Of the pages of mapped files, which the kernel can drop at
any time, the part in memory is told too.
"""

import argparse
import subprocess
import sys
import time

from benchmarks import rig
from benchmarks.generated import GeneratedImage, Shape
from benchmarks.rig import Rig
from benchmarks.store import Store, memory_of
from lab.podman import Podman
from lab.processes import ProgramError

IMAGE = GeneratedImage("memory", (Shape(200, 100, largest=400),) * 10)
_QUIET_SECONDS = 5.0
_LONGEST_SECONDS = 300.0


def main() -> int:
    argparse.ArgumentParser(
        prog="python -m benchmarks.memory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    return rig.carry_out(_benchmark)


def _benchmark() -> None:
    IMAGE.make(rig.say)
    with rig.rig(IMAGE.storage) as place, place.store() as store:
        files = sum(shape.files for shape in IMAGE.layers)
        print(f"{len(IMAGE.layers)} layers, {files} files; MiB:  resident  above empty  of that mapped files")
        empty = _show("no image", store, 0)
        podman = Podman(place.scratch / "podman", place.link.host, store=store.mountpoint)
        try:
            podman.pull(IMAGE.tag)
            if podman.layers().full:
                raise ProgramError(f"podman did not take every layer from the store:\n{store.log_tail()}")
            _show("pulled", store, empty)
            _wait_until_quiet(place)
            _show("fetched in the background, idle", store, empty)
            for diff in podman.layers().lazy:
                subprocess.run(["find", diff, "-ls"], stdout=subprocess.DEVNULL, check=True)
            _show("every file looked at", store, empty)
        finally:
            podman.close()


def _show(what: str, store: Store, empty: int) -> int:
    resident = memory_of(store.pid, "VmRSS")
    mapped = memory_of(store.pid, "RssFile")
    above = (resident - empty) / 2**20 if empty else 0
    print(f"{what:34}{resident / 2**20:12.1f}{above:13.1f}{mapped / 2**20:22.1f}", flush=True)
    return resident


def _wait_until_quiet(place: Rig) -> None:
    """Until nothing has come over the link for a while."""
    deadline = time.monotonic() + _LONGEST_SECONDS
    quiet_since = time.monotonic()
    place.link.crossed()
    while time.monotonic() - quiet_since < _QUIET_SECONDS:
        if time.monotonic() > deadline:
            raise ProgramError(f"the background fetch has not ended after {_LONGEST_SECONDS:.0f} s")
        time.sleep(0.2)
        if place.link.crossed().down_bytes:
            quiet_since = time.monotonic()


if __name__ == "__main__":
    sys.exit(main())
