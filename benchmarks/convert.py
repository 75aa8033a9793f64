"""Conversions beside `ctr-remote image convert`: seconds, bytes, and our peak memory.

Needs the laboratory (root): the image `postgres`, whose app layer is 122 MB compressed on a base of 51 MB. Both read
from and write to the same registry on loopback, which is empty before each run; ctr-remote's time is that of the
conversion alone, after the image is in its containerd.
"""

import argparse
import os
import statistics
import subprocess
import time
from pathlib import Path

from lab import converters, images, make, ours, places
from lab.registry import compressed_size, manifest_at, registry_of

OPTIONS = {"estargz": "--estargz", "zstd-stargz": "--zstd-chunked=stargz"}


def by_us(source: str, target: str, option: str, work: Path) -> tuple[float, int]:
    """Seconds, and bytes of peak resident memory."""
    before = time.monotonic()
    process = subprocess.Popen(
        ours.command("convert", option, "--oci", source, target),
        env={**os.environ, **ours.environment(work)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"the conversion of {source} failed with {status}")
    return time.monotonic() - before, usage.ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", default="postgres", choices=sorted(images.IMAGES))
    parser.add_argument("--runs", type=int, default=3, help="of ours; the median counts")
    arguments = parser.parse_args()
    make.make([f"image/{arguments.image}"])
    tag = images.IMAGES[arguments.image].tag
    with (
        places.scratch("benchmark") as scratch,
        registry_of(images.registry_storage(), scratch / "read", readonly=True) as source,
    ):
        size = compressed_size(manifest_at(source.host, tag))
        print(f"{tag}: {size / 1e6:.1f} MB compressed; on {os.cpu_count()} cores")
        print(f"{'':14}{'ctr-remote s':>14}{'ours s':>10}{'ratio':>8}{'size, theirs 1':>16}{'our peak MB':>13}")
        for number, (name, option) in enumerate(OPTIONS.items()):
            with registry_of(scratch / f"own{number}", scratch / f"write{number}") as own:
                theirs = converters.seconds_by_ctr_remote(f"{source.host}/{tag}", f"{own.host}/theirs:1", name)
                (scratch / "work").mkdir(exist_ok=True)
                measured = [
                    by_us(f"{source.host}/{tag}", f"{own.host}/run{run}:1", option, scratch / "work")
                    for run in range(arguments.runs)
                ]
                seconds = statistics.median(seconds for seconds, _ in measured)
                sizes = [compressed_size(manifest_at(own.host, image)) for image in ("run0:1", "theirs:1")]
                peak = max(memory for _, memory in measured) / 1e6
                print(
                    f"{name:14}{theirs:14.1f}{seconds:10.1f}{theirs / seconds:8.1f}"
                    f"{sizes[0] / sizes[1]:16.3f}{peak:13.0f}"
                )


if __name__ == "__main__":
    main()
