"""What the benchmarks of one layer or one image share: a registry behind a link, and stores with empty state."""

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.store import OURS, Store
from lab import images, make, ours, places
from lab.link import Link
from lab.processes import ProgramError
from lab.registry import Registry


@dataclass(frozen=True, slots=True)
class Rig:
    """Between the beginning and the end of `rig`."""

    scratch: Path
    registry: Registry
    link: Link

    @contextlib.contextmanager
    def store(self, *options: str) -> Iterator[Store]:
        """Our daemon with empty state, which is removed at its end."""
        home = self.scratch / "rig"
        try:
            with Store(" ".join((OURS, *options)), home, self.scratch / "mnt", self.link.host) as store:
                yield store
        finally:
            shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def rig(storage: Path | None = None, *, mbit: float = 0, rtt_ms: float = 0) -> Iterator[Rig]:
    """A registry over `storage` (default: the laboratory's images) behind a link."""
    with (
        places.scratch("rig") as scratch,
        Registry(storage or images.registry_storage(), scratch / "registry", readonly=True) as registry,
        Link(registry.host, mbit=mbit, rtt_ms=rtt_ms) as link,
    ):
        yield Rig(scratch, registry, link)


def make_benched(workload: str, image_format: str = "zstd") -> str:
    """The name, without the host, of an image of hellobench, which is made when it is missing."""
    make.make([f"bench/{workload}:{image_format}"], say)
    return ours.benched_tag(workload, image_format)


def largest_layer(registry: Registry, tag: str) -> tuple[str, int]:
    """Digest and compressed bytes of an image's largest layer."""
    layer = max(registry.manifest(tag)["layers"], key=lambda layer: int(layer["size"]))
    return layer["digest"], layer["size"]


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


def carry_out(benchmark: Callable[[], None]) -> int:
    """Run a benchmark that needs root; its exit status."""
    if os.geteuid() != 0:
        print("This mounts file systems: run it as root.", file=sys.stderr)
        return 1
    try:
        benchmark()
    except (ProgramError, OSError) as error:
        print(f"The benchmark failed: {error}", file=sys.stderr)
        return 1
    return 0
