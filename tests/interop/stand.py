"""One daemon and one podman that uses its mount, both with empty state."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from lab import converters
from lab.chroot import RunningDebian
from lab.daemon import Daemon
from lab.link import Crossed, Link
from lab.podman import Podman, Pulled
from lab.registry import Registry, compressed_size


@dataclass(frozen=True, slots=True)
class Laboratory:
    """What the whole test session shares."""

    scratch: Path
    registry: Registry
    link: Link
    """In front of the registry, neither slow nor narrow: it counts. Its address is the registry's to all."""

    def image_bytes(self, image: str) -> int:
        """Bytes of the compressed layers of `repository:tag`."""
        return compressed_size(self.registry.manifest(image))

    def layer_count(self, image: str) -> int:
        return len(self.registry.manifest(image)["layers"])


@dataclass(frozen=True, slots=True)
class Generation:
    """One generation of podman: where it runs and what it asks a store for."""

    version: str
    """The beginning of what `podman --version` says."""
    inside: RunningDebian | None

    def asks_for(self, image_format: str) -> bool:
        """Whether this podman asks a store for layers of the format.

        podman 5.1 and later asks only for layers whose TOC annotation it knows, and the keys that skopeo 1.9
        and podman 4 wrote are none of them: such layers it downloads itself.
        """
        return self.version.startswith("4.") or image_format != "zstd-old"


BOTH_COMPRESSIONS = pytest.mark.parametrize(
    "image_format",
    [
        name if name in ("estargz", "zstd") else pytest.param(name, marks=pytest.mark.thorough)
        for name in converters.FORMATS
    ],
)
"""Where it makes no difference which annotations lead to a TOC."""


class Stand:
    """Daemon and podman of one test."""

    def __init__(
        self, laboratory: Laboratory, generation: Generation, name: str, options: tuple[str, ...]
    ) -> None:
        self.laboratory = laboratory
        self.generation = generation
        inside = generation.inside
        own = laboratory.scratch / name
        mountpoint = inside.stores / name if inside is not None else own / "store"
        self.daemon = Daemon(
            own / "root", mountpoint, laboratory.link.host, log=own / "daemon.log", options=options
        )
        self.daemon.start()
        self.home = inside.work / name if inside is not None else own / "podman"
        self.podman = Podman(self.home, laboratory.link.host, store=mountpoint, inside=inside)
        laboratory.link.crossed()

    def crossed(self) -> Crossed:
        """What came over the link since the last call."""
        return self.laboratory.link.crossed()

    def pull(self, name: str, image_format: str) -> Pulled:
        """Pulls a laboratory image and checks where its layers came from."""
        image = converters.tag(name, image_format)
        said = self.podman.pull(image)
        assert "not support" not in said.stderr, said.stderr
        pulled = self.podman.layers()
        if self.generation.asks_for(image_format):
            assert not pulled.full, f"podman downloaded {pulled.full} itself\n{self.daemon.log_tail()}"
            assert len(pulled.lazy) >= self.laboratory.layer_count(image)
        else:
            assert not pulled.lazy
        return pulled

    def remove_everything(self) -> None:
        """`podman rmi -af`; then nothing may be in use."""
        self.podman.remove_everything()
        assert self.daemon.uses() == []

    def reference(self, name: str, image_format: str) -> str:
        """The image's full name as podman writes it."""
        return self.podman.name(converters.tag(name, image_format))

    def close(self) -> None:
        """Ends everything; raises nothing, so that what failed before stays the error that is shown."""
        self.podman.close()
        self.daemon.stop()
