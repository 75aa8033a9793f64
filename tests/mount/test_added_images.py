"""Images in the additional image store of a running daemon, as podman would read them."""

import base64
import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from registry_storage.control.client import connect
from registry_storage.convert.documents import OCI_CONFIG, OCI_GZIP_LAYER
from registry_storage.convert.layer_writer import write_layer
from registry_storage.convert.options import LayerKind, WriteOptions
from registry_storage.descriptor import OCI_MANIFEST
from registry_storage.digest import Digest
from registry_storage.errors import DaemonError
from tests.fakes import images as lazy_images
from tests.fakes import tar_images
from tests.fakes.faults import Fault
from tests.fakes.image_stores import check_readable
from tests.fakes.images import File, build_layer
from tests.fakes.registry import FakeRegistry

from .conftest import Daemon

GRACE = "0.2"
WAIT_SECONDS = 30.0


@pytest.fixture
def running(daemon: Daemon) -> Iterator[Daemon]:
    daemon.arguments = (*daemon.arguments, "--images-grace-seconds", GRACE)
    (daemon.directory / "storage.conf").write_text(f'[storage]\ngraphroot = "{daemon.directory}/graph"\n')
    os.environ["CONTAINERS_STORAGE_CONF"] = str(daemon.directory / "storage.conf")
    try:
        yield daemon.start()
    finally:
        del os.environ["CONTAINERS_STORAGE_CONF"]


def ctl(daemon: Daemon, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "registry_storage.ctl", *words, "--root", str(daemon.root)]
    return subprocess.run(
        command, env=daemon.environment(), capture_output=True, text=True, check=False, timeout=120
    )


def added(daemon: Daemon, *words: str) -> list[Any]:
    """`registry-storagectl add --json`; its lines."""
    said = ctl(daemon, "add", "--json", *words)
    assert said.returncode == 0, said
    return [json.loads(line) for line in said.stdout.splitlines()]


def store(daemon: Daemon) -> Path:
    return daemon.root / "images"


def trees(daemon: Daemon, name: str) -> list[Path]:
    """The layers' directories that podman would mount, base first."""
    return [store(daemon) / "overlay" / layer / "diff" for layer in check_readable(store(daemon))[name]]


def until(condition: Any) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def uses(daemon: Daemon) -> int:
    answer = ctl_get(daemon, "/v1/status")
    return sum(link["uses"] for layer in answer["layers"] for link in layer["links"])


def ctl_get(daemon: Daemon, route: str) -> Any:
    async def ask() -> Any:
        async with connect(daemon.root / "control.sock") as client:
            return await client.get(route)

    return trio.run(ask)


FILES = [{"etc/name": b"base", "large": b"0123456789" * 300_000}, {"etc/name": b"top", "more": b"x"}]


def test_a_plain_image_is_readable_after_it_was_added(running: Daemon, registry: FakeRegistry) -> None:
    tar_images.put_image(registry, FILES)
    name = f"{registry.host}/team/app:v1"
    lines = added(running, name)
    assert (lines[-1]["name"], lines[-1]["outcome"], lines[-1]["new_layers"]) == (name, "added", 2)
    assert {line["stage"] for line in lines[:-1]} <= {"unpack", "unpacked"}
    for tree, files in zip(trees(running, name), FILES, strict=True):
        assert {path: (tree / path).read_bytes() for path in files} == files
    assert all((store(running) / f"overlay-layers/{tree.parent.name}.tar-split.gz").exists()
               for tree in trees(running, name))  # fmt: skip
    registry.log.clear()
    assert added(running, name)[-1]["outcome"] == "unchanged"
    assert len(registry.log) == 1
    listed = ctl(running, "list")
    assert listed.stdout.split("\t")[0] == name
    assert listed.stdout.rstrip().endswith("complete")


def lazy(registry: FakeRegistry, *contents: bytes, tag: str = "v1") -> str:
    layers = [build_layer([File("name", content), File("large", content * 1000)]) for content in contents]
    return lazy_images.put_image(registry, layers, f"team/app:{tag}").reference


def test_a_lazy_image_of_three_layers_costs_six_requests(running: Daemon, registry: FakeRegistry) -> None:
    name = lazy(registry, os.urandom(1000), os.urandom(1001), os.urandom(1002))
    registry.log.clear()
    lines = added(running, name)
    assert {line["stage"] for line in lines[:-1]} == {"lazy"}
    assert len(registry.log) <= 6, registry.log
    assert [(tree / "large").stat().st_size for tree in trees(running, name)] == [1_000_000, 1_001_000, 1_002_000]
    assert not any(layer["verified"] for layer in lines[-1]["layers"])
    assert ctl(running, "list").stdout.rstrip().endswith("lazy")


@pytest.mark.parametrize(("auth", "wanted"), [(None, 3), ("bearer", 5)])
def test_a_lazy_image_of_three_layers_takes_few_round_trips(
    running: Daemon, registry: FakeRegistry, auth: str | None, wanted: int
) -> None:
    """One for the manifest, one for config and TOCs at the same time, and one where a TOC is larger than expected."""
    name = lazy(registry, os.urandom(1000), os.urandom(1001), os.urandom(1002))
    registry.auth = auth
    registry.inject("delay", times=None, seconds=0.3)
    registry.inject("delay", times=None, seconds=0.3, listener="token")
    registry.round_trips = 0
    added(running, name)
    assert 2 <= registry.round_trips <= wanted, registry.log


def test_added_images_outlive_the_daemon_and_the_registry(running: Daemon, registry: FakeRegistry) -> None:
    tar_images.put_image(registry, FILES)
    plain = f"{registry.host}/team/app:v1"
    name = lazy(registry, b"lazy layer", tag="lazy")
    added(running, plain, name)
    assert (trees(running, name)[0] / "name").read_bytes() == b"lazy layer"
    running.stop()
    registry.manifests.clear()
    registry.blobs.clear()
    running.start()
    assert (trees(running, plain)[0] / "etc/name").read_bytes() == b"base"
    assert (trees(running, name)[0] / "name").read_bytes() == b"lazy layer"
    assert uses(running) == 3


def test_what_rotted_in_a_plain_layer_is_streamed_again(running: Daemon, registry: FakeRegistry) -> None:
    tar_images.put_image(registry, FILES)
    name = f"{registry.host}/team/app:v1"
    added(running, name)
    running.stop()
    for content in running.root.glob("layers/*/content"):
        content.write_bytes(os.urandom(content.stat().st_size))
    running.start()
    for tree, files in zip(trees(running, name), FILES, strict=True):
        assert {path: (tree / path).read_bytes() for path in files} == files


def test_an_index_that_is_lost_costs_the_layer_once_more(running: Daemon, registry: FakeRegistry) -> None:
    tar_images.put_image(registry, FILES)
    name = f"{registry.host}/team/app:v1"
    added(running, name)
    running.stop()
    for index in running.root.glob("layers/*/index"):
        index.write_bytes(b"garbage")
    running.start()
    assert (trees(running, name)[1] / "etc/name").read_bytes() == b"top"


def test_removing_takes_everything_away_that_nothing_else_needs(running: Daemon, registry: FakeRegistry) -> None:
    shared = {"base": b"shared" * 1000}
    for tag, files in (("a", {"one": b"1"}), ("b", {"two": b"2"})):
        tar_images.put_image(registry, [shared, files], tag=tag)
    first, second = f"{registry.host}/team/app:a", f"{registry.host}/team/app:b"
    assert added(running, first, second)[-1]["new_layers"] == 1
    assert uses(running) == 3
    (_, top) = trees(running, first)
    assert ctl(running, "remove", first).returncode == 0
    until(lambda: not top.parent.exists())
    assert len(trees(running, second)) == 2
    assert (trees(running, second)[0] / "base").read_bytes() == shared["base"]
    until(lambda: uses(running) == 2)
    said = ctl(running, "remove", first)
    assert (said.returncode, said.stderr) == (1, f"{first}: not one of the added images\n")
    ctl(running, "remove", second)
    until(lambda: os.listdir(store(running) / "overlay") == ["l"])
    until(lambda: uses(running) == 0)


def test_layers_that_the_host_builds_upon_are_kept(running: Daemon, registry: FakeRegistry) -> None:
    tar_images.put_image(registry, [{"a": b"a"}, {"b": b"b"}])
    name = f"{registry.host}/team/app:v1"
    added(running, name)
    base, top = (tree.parent for tree in trees(running, name))
    layers = running.directory / "graph/overlay-layers/layers.json"
    layers.parent.mkdir(parents=True)
    layers.write_text(json.dumps([{"id": "container", "parent": base.name}]))
    ctl(running, "remove", name)
    until(lambda: not top.exists())
    assert (base / "diff/a").read_bytes() == b"a"
    layers.write_text("[]")
    running.stop()
    running.start()
    until(lambda: not base.exists())


def test_a_tag_is_pinned_until_it_is_refreshed(running: Daemon, registry: FakeRegistry) -> None:
    tar_images.put_image(registry, [{"version": b"1"}], tag="latest")
    name = f"{registry.host}/team/app:latest"
    added(running, name)
    tar_images.put_image(registry, [{"version": b"2"}], tag="latest")
    assert (trees(running, name)[0] / "version").read_bytes() == b"1"
    said = ctl(running, "refresh")
    assert said.stdout.startswith(f"{name}: moved: sha256:"), said
    assert (trees(running, name)[0] / "version").read_bytes() == b"2"
    assert ctl(running, "refresh", name).stdout.startswith(f"{name}: unchanged")
    until(lambda: len(os.listdir(store(running) / "overlay")) == 2)


def test_a_lazy_claim_is_not_believed_for_another_image(running: Daemon, registry: FakeRegistry) -> None:
    """An image whose config claims the diffID of another image's layer does not become its base."""
    honest = tar_images.tar({"bin": b"honest"})
    evil = build_layer([File("bin", b"evil")])
    layer = tar_images.describe(registry, "team/evil", evil.blob, OCI_GZIP_LAYER)
    layer["annotations"] = dict(evil.descriptor.annotations)
    layer["mediaType"] = evil.descriptor.media_type
    put(registry, "team/evil", [layer], [Digest.of(honest)])
    good = tar_images.describe(registry, "team/good", gzip.compress(honest, mtime=0), OCI_GZIP_LAYER)
    put(registry, "team/good", [good], [Digest.of(honest)])
    added(running, f"{registry.host}/team/evil:v1", f"{registry.host}/team/good:v1")
    (tree,) = trees(running, f"{registry.host}/team/good:v1")
    assert (tree / "bin").read_bytes() == b"honest"
    assert trees(running, f"{registry.host}/team/evil:v1") == [tree], "what was verified takes the claim's place"


def put(
    registry: FakeRegistry, repository: str, layers: list[dict[str, Any]], diff_ids: list[Digest], **more: Any
) -> None:
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "author": repository,
            "rootfs": {"type": "layers", "diff_ids": [str(one) for one in diff_ids]},
        }
    ).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": tar_images.describe(registry, repository, config, OCI_CONFIG),
        "layers": layers,
        **more,
    }
    registry.put_manifest(repository, "v1", json.dumps(manifest).encode(), OCI_MANIFEST)


def converted(registry: FakeRegistry, kind: LayerKind, *, diff_id: Digest | None = None) -> tuple[str, bytes]:
    """An image of one layer that our converter wrote; its name and its tar."""
    tar = tar_images.tar({"first": os.urandom(300_000), "second": b"second" * 100_000, "third": b"3"})
    blob = io.BytesIO()
    written = write_layer(io.BytesIO(tar), blob, WriteOptions(kind))
    layer = tar_images.describe(registry, "team/lazy", blob.getvalue(), written.descriptor.media_type)
    layer["annotations"] = dict(written.descriptor.annotations)
    put(registry, "team/lazy", [layer], [diff_id or written.diff_id])
    return f"{registry.host}/team/lazy:v1", tar


KINDS = pytest.mark.parametrize(
    "kind", [LayerKind.ESTARGZ, LayerKind.ZSTD_CHUNKED_PODMAN, LayerKind.ZSTD_CHUNKED_STARGZ], ids=lambda one: one.name
)


@KINDS
def test_a_lazy_layer_becomes_complete_and_verified(daemon: Daemon, registry: FakeRegistry, kind: LayerKind) -> None:
    daemon.arguments = ()
    daemon.start()
    name, tar = converted(registry, kind)
    registry.log.clear()
    added(daemon, name)
    until(lambda: ctl_get(daemon, "/v1/images")[0]["layers"][0]["verified"])
    (tree,) = trees(daemon, name)
    wanted = json.loads((store(daemon) / "overlay-layers/layers.json").read_bytes())[0]["diff-digest"]
    split = gzip.decompress((store(daemon) / f"overlay-layers/{tree.parent.name}.tar-split.gz").read_bytes())
    assert str(Digest.of(reassembled(split, tree))) == wanted
    registry.blobs.clear()
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        for member in archive:
            extracted = archive.extractfile(member)
            assert extracted is not None
            assert (tree / member.name).read_bytes() == extracted.read()
    (blob,) = ctl_get(daemon, "/v1/images")[0]["layers"]
    assert sum(request.path.endswith(blob["layer_digest"]) for request in registry.log) <= 3


def reassembled(split: bytes, tree: Path) -> bytes:
    """What podman does with a tar-split to save or push a layer."""
    tar = b""
    for line in split.splitlines():
        entry = json.loads(line)
        if entry["type"] == 2:
            tar += base64.b64decode(entry["payload"])
        elif entry["payload"]:
            tar += (tree / entry["name"]).read_bytes()
    return tar


def test_an_image_whose_diff_id_was_a_lie_is_taken_out(daemon: Daemon, registry: FakeRegistry) -> None:
    daemon.arguments = ("--images-grace-seconds", GRACE)
    daemon.start()
    name, _ = converted(registry, LayerKind.ESTARGZ, diff_id=Digest.of(b"a lie"))
    added(daemon, name)
    until(lambda: check_readable(store(daemon)) == {})
    until(lambda: os.listdir(store(daemon) / "overlay") == ["l"])
    assert f"image {name} is taken out of the image store" in daemon.log_text()


async def test_who_leaves_while_it_is_added_leaves_nothing(running: Daemon, registry: FakeRegistry) -> None:
    tar_images.put_image(registry, [{"large": os.urandom(5_000_000)}])
    name = f"{registry.host}/team/app:v1"
    large = max(registry.blobs, key=lambda key: len(registry.blobs[key]))[1]
    registry.faults.append(Fault("stall", path=large, at=1_000_000, times=None))
    async with connect(running.root / "control.sock") as client:
        lines = client.lines("POST", "/v1/images/add", {"name": name})
        await anext(lines)
        await lines.aclose()
    assert check_readable(store(running)) == {}
    with pytest.raises(DaemonError, match="not one of the added images"):
        async with connect(running.root / "control.sock") as client:
            await client.post("/v1/images/remove", {"name": name})


def test_a_signal_ends_adding_and_nothing_is_published(running: Daemon, registry: FakeRegistry) -> None:
    tar_images.put_image(registry, [{"large": os.urandom(5_000_000)}])
    large = max(registry.blobs, key=lambda key: len(registry.blobs[key]))[1]
    registry.faults.append(Fault("stall", path=large, at=1_000_000, times=None))
    words = [sys.executable, "-m", "registry_storage.ctl", "add", f"{registry.host}/team/app:v1"]
    with subprocess.Popen(
        [*words, "--root", str(running.root)], env=running.environment(), stderr=subprocess.PIPE, text=True
    ) as adding:
        until(lambda: os.listdir(running.root / "layers"))
        adding.terminate()
        _, said = adding.communicate(timeout=WAIT_SECONDS)
    assert (adding.returncode, said) == (143, "registry-storagectl: stopped by SIGTERM\n")
    assert check_readable(store(running)) == {}
    assert ctl_get(running, "/v1/images") == []
