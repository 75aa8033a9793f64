"""What the graph roots of a host say of the store's layers."""

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

from registry_storage.digest import Digest
from registry_storage.podman import graph_roots
from registry_storage.podman.graph_roots import UsedLayer, graph_roots_of, parse_target, used_layers

REF = "localhost:5000/app:1"
A, B = Digest.of(b"a"), Digest.of(b"b")


def target(reference: str, digest: Digest, store: str = "/store") -> str:
    return f"{store}/{base64.b64encode(reference.encode()).decode()}/{digest}"


def add_layer(graph_root: Path, number: str, path: str, *, by_link: bool = False) -> None:
    directory = graph_root / "overlay" / number
    directory.mkdir(parents=True)
    if by_link:
        (directory / "diff").symlink_to(f"{path}/diff")
    else:
        (directory / "additionallayer").write_text(path)


def test_each_layer_of_a_graph_root_is_one_use(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    add_layer(one, "1", target(REF, A))
    add_layer(one, "2", target(REF, B))
    add_layer(other, "3", target(REF, A, "/seen/from/elsewhere"))
    add_layer(other, "4", target(REF, A), by_link=True)
    (other / "overlay/5/diff").mkdir(parents=True)  # a layer that podman downloaded
    (other / "overlay/l").mkdir()
    assert used_layers([one, other, tmp_path / "missing"]) == {UsedLayer(REF, A): 3, UsedLayer(REF, B): 1}


@pytest.mark.parametrize(
    "path",
    ["", "/", "relative", f"/store/bm90IGEgcmVmZXJlbmNl/{A}", f"/store/???/{A}", "/store/" + "x" * 9000,
     f"/store/{base64.b64encode(REF.encode()).decode()}/sha256:12", "\x00", "../../etc/passwd"],
)  # fmt: skip
def test_other_paths_are_no_layers_of_ours(path: str) -> None:
    assert parse_target(path) is None


def test_what_users_put_there_does_no_harm(tmp_path: Path) -> None:
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    for name in ("pipe", "loop", "directory", "large", "bytes"):
        (overlay / name).mkdir()
    os.mkfifo(overlay / "pipe/additionallayer")
    (overlay / "loop/additionallayer").symlink_to("additionallayer")
    (overlay / "directory/additionallayer").mkdir()
    (overlay / "large/additionallayer").write_bytes(b"/" * (2 << 20))
    (overlay / "bytes/additionallayer").write_bytes(b"\xff\x00\xfe" * 100)
    (overlay / "link").symlink_to("/")
    assert not used_layers([tmp_path])


def test_storage_conf_names_the_graph_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conf = tmp_path / "storage.conf"
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(conf))
    conf.write_text('[storage]\ndriver = "overlay"\ngraphroot = "/somewhere/graph"\nimagestore = "/elsewhere"\n')
    assert {Path("/somewhere/graph"), Path("/elsewhere")} <= graph_roots.configured_graph_roots()
    conf.write_text("no toml at all [")
    assert graph_roots.configured_graph_roots()


def test_a_process_shows_its_graph_root_by_the_locks_that_it_holds(tmp_path: Path) -> None:
    lock = tmp_path / "graph/overlay-layers/layers.lock"
    lock.parent.mkdir(parents=True)
    code = f"import sys; kept = open({str(lock)!r}, 'w'); print('ready', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert graph_roots_of(process.pid) == frozenset({tmp_path / "graph"})
    assert graph_roots_of(process.pid) is None
    assert graph_roots_of(os.getpid()) == frozenset()
