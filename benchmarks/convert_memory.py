"""Conversions of one large layer: seconds, bytes, and peak memory, which does not depend on the layer's size.

`python -m benchmarks.convert_memory [--gib 5]`: no laboratory and no root, but a disk with three times the layer's
room (TMPDIR, else /var/tmp). The layer is a plain tar of large and small files in an OCI image layout; "first" has
half of the files prioritized, so that the layer goes through a temporary file.
"""

import argparse
import hashlib
import io
import json
import os
import random
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from lab import ours

OPTIONS = {
    "estargz": ("--estargz",),
    "zstd (podman)": ("--zstd-chunked",),
    "zstd (stargz)": ("--zstd-chunked=stargz",),
    "estargz, first": ("--estargz", "--prefetch-list", "list"),
}
_MIB = 1 << 20


def files(size: int) -> Iterator[tuple[str, int]]:
    """Names and sizes, about `size` bytes: one file of a fifth of it, then large and small ones in turns."""
    yield "large", size // 5
    left, number = size - size // 5, 0
    while left > 0:
        one = 64 * _MIB if number % 40 == 0 else 1_234_567
        yield f"directory{number // 100}/file{number}", min(one, left)
        left, number = left - one, number + 1


class _Content(io.RawIOBase):
    """Half of it random, the other half zeros and repetitions, nowhere the same."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._block = self._random.randbytes(1 << 16)

    def read(self, size: int = -1, /) -> bytes:
        fresh = self._random.randbytes(size // 2)
        return fresh + (self._block * (size // len(self._block) + 1))[: size - len(fresh)]


class _Hashing:
    """What tarfile writes to."""

    def __init__(self, file: io.BufferedWriter) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._file.write(data)


def make_layout(layout: Path, size: int) -> None:
    """An image of one layer of about `size` bytes."""
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True)
    with (blobs / "new").open("wb") as file:
        target = _Hashing(file)
        with tarfile.open(fileobj=target, mode="w|", bufsize=_MIB) as archive:  # type: ignore[call-overload]
            for number, (name, file_size) in enumerate(files(size)):
                info = tarfile.TarInfo(name)
                info.size = file_size
                archive.addfile(info, _Content(number))
    layer = target.digest.hexdigest()
    (blobs / "new").rename(blobs / layer)

    def put(document: dict[str, object], media_type: str) -> dict[str, object]:
        data = json.dumps(document).encode()
        name = hashlib.sha256(data).hexdigest()
        (blobs / name).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{name}", "size": len(data)}

    oci = "application/vnd.oci.image"
    config = put(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer}"]}},
        f"{oci}.config.v1+json",
    )
    described = {
        "mediaType": f"{oci}.layer.v1.tar",
        "digest": f"sha256:{layer}",
        "size": (blobs / layer).stat().st_size,
    }
    image = {"schemaVersion": 2, "mediaType": f"{oci}.manifest.v1+json", "config": config, "layers": [described]}
    manifest = put(image, f"{oci}.manifest.v1+json")
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))


def convert(work: Path, options: tuple[str, ...]) -> tuple[float, int, int]:
    """Seconds, bytes of the result, bytes of peak resident memory."""
    target = work / "out"
    words = [str(work / word) if word == "list" else word for word in options]
    started = time.monotonic()
    with (work / "log").open("w+") as log:
        process = subprocess.Popen(
            ours.command("convert", *words, f"oci:{work}/source", f"oci:{target}"),
            env={**os.environ, **ours.environment(work)}, stdout=log, stderr=log,
        )  # fmt: skip
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"convert {' '.join(options)} failed: {(work / 'log').read_text()}")
    seconds = time.monotonic() - started
    blobs = list((target / "blobs/sha256").iterdir())
    size = max(blob.stat().st_size for blob in blobs)
    subprocess.run(["rm", "-r", str(target)], check=True)
    return seconds, size, usage.ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=5.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="large-layer-", dir=os.environ.get("TMPDIR") or "/var/tmp") as scratch:
        work = Path(scratch)
        size = int(arguments.gib * (1 << 30))
        make_layout(work / "source", size)
        (work / "list").write_text("".join(f"{name}\n" for name, _ in list(files(size))[1::2]))
        print(f"a layer of {arguments.gib:g} GiB; on {os.cpu_count()} cores")
        print(f"{'':16}{'seconds':>9}{'MB/s':>7}{'size':>7}{'peak MB':>9}")
        for name, options in OPTIONS.items():
            seconds, result, peak = convert(work, options)
            print(
                f"{name:16}{seconds:9.1f}{size / seconds / 1e6:7.0f}{result / size:7.2f}{peak / 1e6:9.0f}", flush=True
            )


if __name__ == "__main__":
    main()
