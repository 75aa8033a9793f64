"""How much of plain layers' contents is in another layer, too: what sharing files between blobs could save.

    python -m benchmarks.shared_files

Of the laboratory's gzip images, their layers counted once each: bytes of all regular files, of those that another
layer holds as well, of those that the same layer holds twice, and of whole pages of the former, which a file system
that shares blocks could share.
"""

import argparse
import hashlib
import sys
import tarfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks import rig
from lab import images

_PAGE = 4096


def main() -> int:
    argparse.ArgumentParser(
        prog="python -m benchmarks.shared_files", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()  # fmt: skip
    return rig.carry_out(_benchmark)


def _benchmark() -> None:
    with rig.rig() as place:
        layers: dict[str, str] = {}
        for name, image in images.IMAGES.items():
            for layer in place.registry.manifest(image.tag)["layers"]:
                layers.setdefault(layer["digest"], name)
    print(f"{'layer of':12}{'files':>8}{'MB':>9}{'elsewhere too':>15}{'twice in it':>13}{'whole pages elsewhere':>23}")
    seen: Counter[bytes] = Counter()
    total = [0.0] * 4
    for digest, name in layers.items():
        files = list(_files(digest))
        own = Counter(summed for summed, _ in files)
        sizes = dict(files)
        everything = sum(size for _, size in files)
        elsewhere = [size for summed, size in sizes.items() if seen[summed]]
        twice = sum(size * (own[summed] - 1) for summed, size in sizes.items())
        row = [everything, sum(elsewhere), twice, sum(size - size % _PAGE for size in elsewhere)]
        seen.update(own.keys())
        total = [a + b for a, b in zip(total, row, strict=True)]
        _show(name, len(files), row)
    _show("all", 0, total)


def _show(name: str, count: int, row: Sequence[float]) -> None:
    columns = (f"{value / 1e6:{width}.1f}" for value, width in zip(row, (9, 15, 13, 23), strict=True))
    print(f"{name:12}{count or '':>8}", *columns, sep="", flush=True)


def _files(digest: str) -> list[tuple[bytes, int]]:
    """The sha256 and the size of each regular file that is not empty."""
    found = []
    with tarfile.open(_blob(digest), "r|*") as archive:
        for member in archive:
            if member.isreg() and member.size:
                extracted = archive.extractfile(member)
                assert extracted is not None
                summer = hashlib.sha256()
                while data := extracted.read(1 << 20):
                    summer.update(data)
                found.append((summer.digest(), member.size))
    return found


def _blob(digest: str) -> Path:
    kind, text = digest.split(":")
    return images.registry_storage() / f"docker/registry/v2/blobs/{kind}/{text[:2]}/{text}/data"


if __name__ == "__main__":
    sys.exit(main())
