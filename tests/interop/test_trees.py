"""The tree of each layer equals the tree that podman unpacks, in every name and every byte."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from lab import converters, images, make
from lab.daemon import Daemon
from lab.podman import Podman
from lab.registry import manifest_at
from tests.interop.stand import Laboratory
from tests.interop.trees import Allowance, Difference, Node, differences, not_allowed, walk

_OPAQUE = "user.overlay.opaque"


def _drops_only_empty_attributes(one: Difference) -> bool:
    seen = dict(cast("tuple[tuple[str, bytes], ...]", one.seen))
    return one.field == "xattrs" and {key: value for key, value in seen.items() if value} == _mapping(one)


def _adds_only_the_second_opaque_mark(one: Difference) -> bool:
    seen = dict(cast("tuple[tuple[str, bytes], ...]", one.seen))
    return one.field == "xattrs" and seen.pop(_OPAQUE, None) == b"y" and seen == _mapping(one)


def _mapping(one: Difference) -> dict[str, bytes]:
    return dict(cast("tuple[tuple[str, bytes], ...]", one.expected))


def allowances(expected: dict[str, Node]) -> list[Allowance]:
    """Every difference that may be, with its reason. `expected` is the tree that podman unpacked."""
    whiteouts = {name for name, node in expected.items() if node.type == "character device" and not node.rdev}
    return [
        Allowance(
            "the tar has no entry for its root: podman unpacks it with 0555 and the time of unpacking, "
            "a store must answer something that is always the same",
            lambda one: one.name == "." and one.field in ("mode", "mtime_ns"),
        ),
        Allowance(
            "a whiteout stands for a name that is gone: podman makes the device when it unpacks, "
            "the store gives it the time of the tar entry",
            lambda one: one.name in whiteouts and one.field == "mtime_ns",
        ),
        Allowance(
            "an opaque directory carries the mark of both overlay name spaces, so that rootless mounts see it",
            _adds_only_the_second_opaque_mark,
        ),
        Allowance(
            "the tar and the TOC hold an attribute with an empty value, which podman's unpacking drops",
            _drops_only_empty_attributes,
        ),
    ]


@pytest.fixture(scope="module")
def unpacked(laboratory: Laboratory) -> Iterator[dict[str, list[dict[str, Node]]]]:
    """By image: the trees of its layers, base first, as podman 4.3 unpacks the gzip image that was converted."""
    podman = Podman(laboratory.scratch / "unpacked", laboratory.link.host)
    trees: dict[Path, dict[str, Node]] = {}
    try:
        found: dict[str, list[dict[str, Node]]] = {}
        for name in make.INTEROP_IMAGES:
            podman.pull(images.IMAGES[name].tag)
            found[name] = []
            for directory in podman.layer_directories(images.IMAGES[name].tag):
                if directory not in trees:
                    trees[directory] = walk(directory)
                found[name].append(trees[directory])
        yield found
    finally:
        podman.close()


@pytest.fixture(scope="module")
def daemon(laboratory: Laboratory) -> Iterator[Daemon]:
    own = laboratory.scratch / "trees"
    options = ("--no-background-fetch", "--no-prefetch", "--log-level", "info")  # debug: a line for each file
    host = laboratory.link.host
    with Daemon(own / "root", own / "store", host, log=own / "daemon.log", options=options) as running:
        yield running


@pytest.mark.parametrize("name", make.INTEROP_IMAGES)
@pytest.mark.parametrize("image_format", converters.FORMATS)
def test_a_layer_shows_what_podman_unpacks(
    laboratory: Laboratory,
    daemon: Daemon,
    unpacked: dict[str, list[dict[str, Node]]],
    image_format: str,
    name: str,
) -> None:
    image = converters.tag(name, image_format)
    layers = manifest_at(laboratory.registry.host, image)["layers"]
    assert len(layers) == len(unpacked[name]) == 2
    reference = f"{laboratory.link.host}/{image}"
    # The base is the same blob in every image of a format: compared once, with the first image.
    first = 0 if name == make.INTEROP_IMAGES[0] else 1
    for layer, expected in list(zip(layers, unpacked[name], strict=True))[first:]:
        seen = walk(daemon.layer_directory(reference, layer["digest"]) / "diff")
        assert len(seen) > 100
        assert not_allowed(differences(expected, seen), allowances(expected)) == []
