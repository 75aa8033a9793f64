"""What is measured: ways of getting an image, links, and their combinations in a shuffled order."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lab import images, ours
from lab.workloads import WORKLOADS, Workload

BASE = "gzip"
"""The mode that every other one is compared with."""


@dataclass(frozen=True, slots=True)
class Mode:
    """One way to start a container from an image that nothing of is here."""

    name: str
    title: str
    image_format: str
    """Empty: the plain gzip image."""
    lazy: bool = False
    """Through the store."""
    added: bool = False
    """Through the image store: `registry-storagectl add` instead of a pull."""
    partial: bool = False
    """podman's own partial pull, with podman 5.4 in the second Debian."""

    def tag(self, workload: Workload) -> str:
        """The image in the registry, without the host."""
        if not self.image_format:
            return images.IMAGES[workload.image].tag
        return ours.benched_tag(workload.name, self.image_format)

    def part(self, workload: Workload) -> str:
        """The laboratory's part that makes the image."""
        if not self.image_format:
            return f"image/{workload.image}"
        return f"bench/{workload.name}:{self.image_format}"


MODES: Mapping[str, Mode] = {
    mode.name: mode
    for mode in (
        Mode(BASE, "full pull (gzip)", ""),
        Mode("partial", "podman's partial pull", "zstd", partial=True),
        Mode("estargz", "eStargz", "estargz", lazy=True),
        Mode("zstd", "zstd:chunked", "zstd", lazy=True),
        Mode("estargz-optimized", "eStargz, optimized", "estargz-optimized", lazy=True),
        Mode("zstd-optimized", "zstd:chunked, optimized", "zstd-optimized", lazy=True),
        Mode("added-estargz", "eStargz, added", "estargz", lazy=True, added=True),
        Mode("added-zstd", "zstd:chunked, added", "zstd", lazy=True, added=True),
        Mode("added-zstd-optimized", "zstd:chunked, optimized, added", "zstd-optimized", lazy=True, added=True),
    )
}
USUAL_MODES = tuple(mode.name for mode in MODES.values() if not mode.added)


@dataclass(frozen=True, slots=True)
class Speed:
    """A link; 0 stands for unlimited and for no delay."""

    name: str
    title: str
    mbit: float
    rtt_ms: float


SPEEDS: Mapping[str, Speed] = {
    speed.name: speed
    for speed in (
        Speed("100m", "100 Mbit/s, 10 ms", 100, 10),
        Speed("1g", "1 Gbit/s, 1 ms", 1000, 1),
        Speed("unshaped", "unshaped", 0, 0),
    )
}


@dataclass(frozen=True, slots=True)
class Step:
    """One sample to take."""

    workload: Workload
    mode: Mode
    speed: Speed
    number: int


def steps(
    workloads: Sequence[str], modes: Sequence[str], speeds: Sequence[str], samples: int, seed: int
) -> Iterator[Step]:
    """Every combination `samples` times; each round is shuffled by itself, so that an aborted run is fair too."""
    order = random.Random(seed)
    for number in range(samples):
        turn = [
            Step(WORKLOADS[workload], MODES[mode], SPEEDS[speed], number)
            for workload in workloads
            for mode in modes
            for speed in speeds
        ]
        order.shuffle(turn)
        yield from turn
