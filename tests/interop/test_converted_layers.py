"""Layers that this package writes, read by the tools of others."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import chroot, converters, images, places, processes
from lab.podman import Podman
from lab.registry import Registry
from registry_storage.convert import LayerKind
from tests.interop.converted import KINDS, ConvertedImage, convert_and_push, plain_tar, tar_entries
from tests.interop.stand import Laboratory
from tests.interop.trees import differences, walk

NAME = "odd"
_PARTIAL = '\n[storage.options.pull_options]\nenable_partial_images = "true"\n'


@pytest.fixture(scope="module")
def own_registry(laboratory: Laboratory) -> Iterator[Registry]:
    with Registry(laboratory.scratch / "own-registry", laboratory.scratch / "own-registry-run") as registry:
        yield registry


@pytest.fixture(scope="module")
def converted(laboratory: Laboratory, own_registry: Registry) -> dict[LayerKind, ConvertedImage]:
    """The image with everything odd in it, in each format."""
    return {
        kind: convert_and_push(
            NAME, kind, laboratory.registry.host, own_registry.host, laboratory.scratch / "converted" / kind.value
        )
        for kind in KINDS
    }


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.value)
def test_the_tar_is_the_sources_entry_by_entry(kind: LayerKind, converted: dict[LayerKind, ConvertedImage]) -> None:
    image = converted[kind]
    for source, blob in zip(image.sources, image.blobs, strict=True):
        wanted = tar_entries(plain_tar(source, LayerKind.ESTARGZ))
        got = tar_entries(plain_tar(blob, kind))
        assert all(one == other for one, other in zip(wanted, got, strict=True))


@pytest.fixture
def ctr_remote() -> Iterator[Callable[..., str]]:
    """Runs Debian's ctr-remote, with a containerd of its own; gives what it says."""
    home = Path(tempfile.mkdtemp(prefix="containerd-", dir=places.lab_directory()))
    config = home / "config.toml"
    config.write_text(converters.containerd_config(home))
    containerd = processes.Background(["containerd", "--config", config], log=home / "containerd.log")
    remote = ["ctr-remote", "--address", str(home / "containerd.sock")]
    try:
        containerd.wait_until(
            lambda: processes.run([*remote, "version"], allow_failure=True).returncode == 0, what="answering"
        )
        yield lambda *words: processes.run([*remote, *words]).stdout
    finally:
        containerd.stop()
        shutil.rmtree(home, ignore_errors=True)


@pytest.mark.parametrize(
    ("kind", "option"),
    [(LayerKind.ESTARGZ, ()), (LayerKind.ZSTD_CHUNKED_STARGZ, ("--zstdchunked",))],
    ids=lambda value: value.value if isinstance(value, LayerKind) else "",
)
def test_ctr_remote_reads_our_tocs(
    ctr_remote: Callable[..., str],
    own_registry: Registry,
    converted: dict[LayerKind, ConvertedImage],
    kind: LayerKind,
    option: tuple[str, ...],
) -> None:
    image = converted[kind]
    ctr_remote("content", "fetch", "--plain-http", f"{own_registry.host}/{image.tag}")
    for layer in image.layers:
        digest = str(layer.descriptor.digest)
        assert ctr_remote("images", "get-toc-digest", *option, digest).strip() == str(layer.toc_digest)
        dumped = json.loads(ctr_remote("images", "get-toc-digest", "--dump-toc", *option, digest))
        assert dumped == json.loads(layer.toc.decode("utf-8", "replace"))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.value)
def test_podman_unpacks_the_same_tree(
    kind: LayerKind, laboratory: Laboratory, own_registry: Registry, converted: dict[LayerKind, ConvertedImage]
) -> None:
    trees = []
    for host, tag in (
        (laboratory.registry.host, images.IMAGES[NAME].tag),
        (own_registry.host, converted[kind].tag),
    ):
        podman = Podman(laboratory.scratch / f"unpack-{host.rpartition(':')[2]}-{kind.value}", host)
        try:
            podman.pull(tag)
            trees.append([walk(directory) for directory in podman.layer_directories(tag)])
        finally:
            podman.close()
    for expected, seen in zip(*trees, strict=True):
        # podman gives whiteouts and a root without an entry the time of unpacking.
        moments = {".", *(name for name, node in expected.items() if node.type == "character device" and not node.rdev)}
        added = {".no.prefetch.landmark", "stargz.index.json"}
        found = [one for one in differences(expected, seen) if one.name not in added]
        assert [one for one in found if one.name not in moments or one.field != "mtime_ns"] == []


def test_podman_5_pulls_our_layers_in_parts(
    debian13: chroot.RunningDebian, own_registry: Registry, converted: dict[LayerKind, ConvertedImage]
) -> None:
    image = converted[LayerKind.ZSTD_CHUNKED_PODMAN]
    podman = Podman(debian13.work / "partial", own_registry.host, inside=debian13)
    try:
        with (podman.home / "storage.conf").open("a") as file:
            file.write(_PARTIAL)
        said = podman.run("--log-level=debug", "pull", podman.name(image.tag)).stderr
        for layer in image.layers:
            assert f"Retrieved partial blob {layer.descriptor.digest}" in said, said[-4000:]
        records = podman.layer_records()
        # The diffID that podman computed from the tar-split.
        assert {record["diff-digest"] for record in records} == {str(layer.diff_id) for layer in image.layers}
    finally:
        podman.close()
