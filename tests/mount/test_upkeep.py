"""What nobody uses goes away, what somebody uses stays, and counts follow podman's graph roots."""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from registry_storage.control.client import connect
from registry_storage.digest import Digest
from tests.fakes.images import BuiltImage, File, build_layer, put_image
from tests.fakes.registry import FakeRegistry

from .conftest import Daemon


async def ask(daemon: Daemon, route: str, body: object = None) -> Any:
    async with connect(daemon.root / "control.sock") as client:
        return await (client.post(route, body) if route != "/v1/status" else client.get(route))


def announce(daemon: Daemon, image: BuiltImage) -> Path:
    """As podman does, but with no lock of a graph root."""
    layer = daemon.layer(image)
    with pytest.raises(FileNotFoundError):
        (layer / "use").touch()
    return layer


def record(graph_root: Path, layer: Path) -> None:
    directory = graph_root / "overlay" / base64.b32encode(os.urandom(10)).decode()
    directory.mkdir(parents=True)
    (directory / "additionallayer").write_text(str(layer))


@pytest.fixture
def images(registry: FakeRegistry) -> list[BuiltImage]:
    layers = [build_layer([File("file", os.urandom(200_000))]) for _ in range(2)]
    return [put_image(registry, [layer], f"team/app{number}:v1") for number, layer in enumerate(layers)]


async def test_only_what_nobody_uses_is_dropped(daemon: Daemon, images: list[BuiltImage], tmp_path: Path) -> None:
    daemon.arguments += ("--graph-roots", str(tmp_path / "graph"))
    daemon.start()
    kept, dropped = images
    for image in images:
        (daemon.layer(image) / "diff/file").read_bytes()
        (daemon.layer(image) / "blob").read_bytes()
    record(tmp_path / "graph", announce(daemon, kept))
    collected = await ask(daemon, "/v1/collect", {"unused_seconds": 0})
    assert (collected["links"], collected["images"], collected["layers"]) == (1, 1, 1)
    assert collected["freed_bytes"] >= 400_000
    status = await ask(daemon, "/v1/status")
    assert [layer["layer_digest"] for layer in status["layers"]] == [str(kept.layers[0].descriptor.digest)]
    assert len(list((daemon.root / "blobs").iterdir())) == 1
    documents = {path.name for path in (daemon.root / "documents").iterdir()}
    assert Digest.of(kept.manifest).hex in documents
    assert Digest.of(dropped.manifest).hex not in documents
    before = status["layers"][0]["links"][0]["number"]
    daemon.stop()
    daemon.start()
    await ask(daemon, "/v1/collect", {"unused_seconds": 0})
    assert len(list((daemon.root / "layers").iterdir())) == 1  # an open layer's directory goes with its daemon
    assert len((daemon.layer(dropped) / "diff/file").read_bytes()) == 200_000
    numbers = [link["number"] for layer in (await ask(daemon, "/v1/status"))["layers"] for link in layer["links"]]
    assert numbers[0] == before
    assert numbers[1] > before + 1  # and so is no number that was given before


async def test_counts_follow_the_graph_roots_and_a_lost_ledger_comes_back_from_them(
    daemon: Daemon, registry: FakeRegistry, images: list[BuiltImage], tmp_path: Path
) -> None:
    daemon.arguments += ("--graph-roots", str(tmp_path / "graph"))
    daemon.start()
    image = images[0]
    (daemon.layer(image) / "diff/file").read_bytes()
    layer = announce(daemon, image)
    record(tmp_path / "graph", layer)
    record(tmp_path / "graph", layer)
    command = [sys.executable, "-m", "registry_storage.ctl", "repair", "--root", str(daemon.root), "--json"]
    said = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert (said["repair"]["raised"], said["repair"]["used_layers"]) == (1, 1)
    daemon.stop()
    (daemon.root / "ledger").unlink()
    registry.manifests.clear()  # the tag has moved on, and what it was is nowhere else
    daemon.start()
    assert (await ask(daemon, "/v1/repair"))["used_layers"] == 1
    (found,) = (await ask(daemon, "/v1/status"))["layers"]
    assert found["uses"] == 2
    assert len((layer / "diff/file").read_bytes()) == 200_000


def test_a_daemon_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "registry_storage.ctl", "repair", "--root", str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 1
    assert said.stderr == f"registry-storagectl: control socket {tmp_path}/control.sock: no daemon listens there\n"
