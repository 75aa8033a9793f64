"""Memory of the daemon while it adds a plain layer: three gzip layers of very different sizes.

    python -m benchmarks.plain_memory [MB …]

Each size gets a registry, a daemon and an image of its own, made and removed here: files of 16 MiB that gzip halves.
Told are the peak of the worker's resident memory, and of that what was not there before the image was added.
"""

import argparse
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import rig
from benchmarks.store import memory_of
from lab import places
from lab.image_host import ImageHost
from lab.registry import Registry

_BLOCK = 4 << 20
_BLOCKS = 4
"""Of a file."""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.plain_memory", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("sizes", metavar="MB", type=int, nargs="*", default=[200, 1000, 5000])
    given = parser.parse_args()
    return rig.carry_out(lambda: _benchmark(given.sizes or [200, 1000, 5000]))


def _benchmark(sizes: list[int]) -> None:
    print("gzip layer    unpacked  seconds  worker's peak  above its start (MiB)")
    for size in sizes:
        with places.scratch("plain-memory") as scratch:
            _measure(size * 1_000_000, scratch)


def _measure(size: int, scratch: Path) -> None:
    layout = scratch / "layout"
    unpacked = _write_image(layout, size)
    with Registry(scratch / "storage", scratch / "registry") as registry:
        target = f"docker://{registry.host}/plain/image:1"
        copy = ["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{layout}:1", target]
        subprocess.run(copy, check=True)
        shutil.rmtree(layout)
        host = ImageHost(scratch, registry.host, "host")
        try:
            worker = _worker(host.daemon.pid)
            before = memory_of(worker, "VmHWM")
            started = time.monotonic()
            host.ctl("add", host.podman.name("plain/image:1"))
            seconds = time.monotonic() - started
            assert _worker(host.daemon.pid) == worker, "the worker was replaced"
            peak = memory_of(worker, "VmHWM")
        finally:
            host.close()
    print(
        f"{size / 1e6:7.0f} MB {unpacked / 1e6:8.0f} MB {seconds:8.1f} {peak / 2**20:14.1f} "
        f"{(peak - before) / 2**20:16.1f}",
        flush=True,
    )


def _worker(supervisor: int) -> int:
    (worker,) = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    return int(worker)


def _write_image(layout: Path, size: int) -> int:
    """An OCI layout whose only layer has about `size` bytes; how many they are unpacked."""
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True)
    diff, digest, unpacked, written = hashlib.sha256(), hashlib.sha256(), 0, 0
    with (blobs / "new").open("wb") as file:
        for plain, packed in _members(size):
            diff.update(plain)
            digest.update(packed)
            unpacked += len(plain)
            written += file.write(packed)
    (blobs / "new").rename(blobs / digest.hexdigest())
    layer = _descriptor("layer.v1.tar+gzip", digest.hexdigest(), written)
    rootfs = {"type": "layers", "diff_ids": [f"sha256:{diff.hexdigest()}"]}
    config = _keep(blobs, "config.v1+json", {"architecture": "amd64", "os": "linux", "rootfs": rootfs})
    manifest = {"schemaVersion": 2, "config": config, "layers": [layer]}
    entry = _keep(blobs, "manifest.v1+json", manifest)
    entry["annotations"] = {"org.opencontainers.image.ref.name": "1"}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return unpacked


def _members(size: int) -> Iterator[tuple[bytes, bytes]]:
    """Parts of a tar, each with the gzip member that it becomes; the members are one gzip stream together."""
    block = os.urandom(_BLOCK // 2).hex().encode()
    packed_block = gzip.compress(block, 1, mtime=0)
    made = number = 0
    while made < size:
        info = tarfile.TarInfo(f"files/{number}")
        info.size = _BLOCK * _BLOCKS
        header = info.tobuf(tarfile.PAX_FORMAT)
        packed_header = gzip.compress(header, 1, mtime=0)
        yield header, packed_header
        for _ in range(_BLOCKS):
            yield block, packed_block
        made += len(packed_header) + _BLOCKS * len(packed_block)
        number += 1
    end = bytes(2 * tarfile.BLOCKSIZE)
    yield end, gzip.compress(end, 1, mtime=0)


def _descriptor(kind: str, digest: str, size: int) -> dict[str, object]:
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": size}


def _keep(blobs: Path, kind: str, document: object) -> dict[str, object]:
    data = json.dumps(document).encode()
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return _descriptor(kind, digest, len(data))


if __name__ == "__main__":
    sys.exit(main())
