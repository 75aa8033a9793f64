"""References repaired from podman's graph roots."""

import json
import time
from pathlib import Path

import pytest

from registry_storage.cache.documents import Documents
from registry_storage.cache.ledger import UNSEEN, Ledger
from registry_storage.digest import Digest
from registry_storage.layer.repair import UNDER_WAY_SECONDS, Repair
from tests.fakes.images import File, build_layer, to_json
from tests.unit.test_graph_roots import add_layer, target

REF = "localhost:5000/app:1"
A, B, C, D = (Digest.of(letter) for letter in (b"a", b"b", b"c", b"d"))


class Host:
    """A ledger, documents and a graph root."""

    def __init__(self, directory: Path) -> None:
        (directory / "documents").mkdir()
        self.graph_root = directory / "graph"
        self.graph_root.mkdir()
        self.ledger = Ledger(directory / "ledger")
        self.documents = Documents(directory / "documents")
        self.later_seconds = UNDER_WAY_SECONDS + 1
        self.repair = Repair(self.ledger, self.documents, [self.graph_root], lambda: time.time() + self.later_seconds)

    def uses(self, name: Digest = A) -> int:
        link = self.ledger.link(REF, name)
        assert link is not None
        return link.uses


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr("registry_storage.layer.repair.configured_graph_roots", set)
    return Host(tmp_path)


async def test_counts_become_what_podman_has(host: Host) -> None:
    too_few = host.ledger.put_link(REF, A, B, C, D)
    too_many = host.ledger.put_link(REF, B, B, C, D)
    right = host.ledger.put_link(REF, C, B, C, D)
    for link, uses in ((too_few, 1), (too_many, 3), (right, 1)):
        host.ledger.set_uses(link.number, uses)
    for number, name in enumerate([A, A, B, C]):
        add_layer(host.graph_root, str(number), target(REF, name))
    report = await host.repair.run()
    assert (host.uses(A), host.uses(B), host.uses(C)) == (2, 1, 1)
    assert (report.raised, report.lowered, report.deferred, report.used_layers) == (1, 1, 0, 3)
    assert report.graph_roots == [str(host.graph_root)]
    assert not (await host.repair.run()).changed


async def test_a_pull_that_is_under_way_keeps_what_it_announced(host: Host) -> None:
    host.later_seconds = 5
    host.ledger.add_use(host.ledger.put_link(REF, A, B, C, D).number)
    assert (await host.repair.run()).deferred == 1
    assert host.uses() == 1
    assert (await host.repair.run(nobody_pulls=True)).lowered == 1
    assert host.uses() == 0


async def test_uses_by_those_whose_graph_root_cannot_be_seen_are_kept(host: Host) -> None:
    host.ledger.add_use(host.ledger.put_link(REF, A, B, C, D).number)
    host.ledger.add_graph_root(UNSEEN)
    assert (await host.repair.run()).deferred == 1
    assert host.uses() == 1


async def test_a_graph_root_is_remembered_by_the_uses_that_were_announced_from_it(host: Host, tmp_path: Path) -> None:
    other = tmp_path / "other"
    host.ledger.put_link(REF, A, B, C, D)
    host.ledger.add_graph_root(str(other))
    add_layer(other, "1", target(REF, A))
    assert (await host.repair.run()).raised == 1


@pytest.mark.parametrize("by_toc", [False, True])
async def test_a_layer_that_the_ledger_has_lost_is_linked_again_from_the_manifests_on_disk(
    host: Host, by_toc: bool
) -> None:
    layer = build_layer([File("a", b"a")])
    host.documents.store(b'{"a config": 1}')
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": str(A), "size": 2}
    manifest = {"schemaVersion": 2, "config": config, "layers": [to_json(layer.descriptor)]}
    digest = host.documents.store(json.dumps(manifest).encode())
    name = layer.toc_digest if by_toc else layer.descriptor.digest
    add_layer(host.graph_root, "1", target(REF, name))
    add_layer(host.graph_root, "2", target(REF, B))
    report = await host.repair.run()
    assert (report.restored, report.unknown, report.raised) == (1, 1, 1)
    link = host.ledger.link(REF, name)
    assert link is not None
    assert (link.layer_digest, link.toc_digest, link.manifest_digest, link.uses) == (
        layer.descriptor.digest, layer.toc_digest, digest, 1,
    )  # fmt: skip
    image = host.ledger.image(REF)
    assert image is not None
    assert image.manifest_digest == digest
