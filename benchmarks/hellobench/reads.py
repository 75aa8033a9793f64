"""How many compressed bytes a workload needs at least: of the chunks that it really reads.

The workload runs once more, unmeasured, through our own daemon with the kernel's read-ahead on the mount turned off
and nothing fetched ahead. Each request to the file system is then a page, or a run of pages, that the workload touched
(by read(2) or through a mapping), and the daemon writes it down. The chunks that these pages lie in, each once, with
the sizes that they have in the blob, are the sum. Manifest, config and TOCs are not in it.
"""

import json
import shlex
import shutil
from collections.abc import Iterable
from pathlib import Path

from benchmarks.hellobench.plan import Mode
from benchmarks.hellobench.sample import run_until_ready
from benchmarks.store import OURS, Store
from lab.podman import Podman
from lab.workloads import Workload
from registry_storage.toc.index import TocIndex

_QUIETLY = "--read-ahead-kib 0 --no-prefetch --no-background-fetch"


def needed_bytes(workload: Workload, mode: Mode, registry_host: str, scratch: Path) -> int:
    """Compressed bytes of the chunks that the workload reads until it is ready. Raises ProgramError."""
    home = scratch / "reads"
    record = home / "record"
    command = f"{OURS} {_QUIETLY} --record {shlex.quote(str(record))}"
    try:
        with Store(command, home / "store", home / "mnt", registry_host) as store:
            podman = Podman(home / "podman", registry_host, store=store.mountpoint)
            try:
                podman.pull(mode.tag(workload))
                image = podman.name(mode.tag(workload))
                podman.run("create", "--name=bench", "--network=none", image, *workload.words)
                run_until_ready(podman, "bench", workload.ready)
                lines = [line for line in record.read_text().splitlines(keepends=True) if line.endswith("\n")]
                return _compressed_size(lines, store.root)
            finally:
                podman.close()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _compressed_size(record: Iterable[str], root: Path) -> int:
    indexes: dict[tuple[str, int], TocIndex] = {}
    pieces: set[tuple[int, int, int]] = set()
    for line in record:
        access = json.loads(line)
        layer = access["manifestDigest"], access["layerIndex"]
        if layer not in indexes:
            indexes[layer] = _index(root, *layer)
        index = indexes[layer]
        inode = _inode(index, access["path"])
        for number in range(*index.chunk_range(inode, access["offset"], access["size"])):
            chunk = index.chunk(number)
            pieces.add((access["layerIndex"], chunk.blob_offset, chunk.blob_size))
    return sum(size for _, _, size in pieces)


def _index(root: Path, manifest_digest: str, layer_index: int) -> TocIndex:
    manifest = json.loads((root / "documents" / manifest_digest.partition(":")[2]).read_bytes())
    layer = manifest["layers"][layer_index]["digest"].partition(":")[2]
    [directory] = (root / "layers").glob(f"{layer}-*")
    return TocIndex((directory / "index").read_bytes())


def _inode(index: TocIndex, path: str) -> int:
    inode = 0
    for name in path.encode("utf-8", "surrogateescape").split(b"/"):
        found = index.lookup(inode, name)
        if found is None:
            raise ValueError(f"the daemon recorded {path!r}, which its index does not have")
        inode = found
    return inode
