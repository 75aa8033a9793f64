"""Manifests, configs and indexes rewritten."""

import json
from typing import Any

import pytest

from registry_storage.convert.documents import (
    ATTESTED_DIGEST,
    DOCKER_CONFIG,
    OCI_CONFIG,
    OCI_GZIP_LAYER,
    NewLayer,
    is_image,
    rewrite_config,
    rewrite_index,
    rewrite_manifest,
)
from registry_storage.descriptor import DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Descriptor
from registry_storage.digest import Digest
from registry_storage.errors import InvalidDocumentError

DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
TOC = "containerd.io/snapshot/stargz/toc.digest"
NEW = NewLayer(Descriptor(OCI_GZIP_LAYER, Digest.of(b"new"), 3, {TOC: "sha256:x"}), Digest.of(b"new tar"))


def digest(name: str) -> str:
    return str(Digest.of(name.encode()))


def layer(name: str, media_type: str = OCI_GZIP_LAYER, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest(name), "size": 9, **more}


def manifest(*layers: dict[str, Any], media_type: str = OCI_MANIFEST, **more: Any) -> bytes:
    config_type = DOCKER_CONFIG if media_type == DOCKER_MANIFEST else OCI_CONFIG
    config = {"mediaType": config_type, "digest": digest("config"), "size": 6, "data": "Y29uZmln"}
    document = {"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers, **more}
    return json.dumps(document).encode()


def rewritten(data: bytes, *layers: NewLayer | None, oci: bool = False) -> dict[str, Any]:
    new, media_type = rewrite_manifest(data, b"new config", layers, "m", oci=oci)
    document: dict[str, Any] = json.loads(new)
    assert document["mediaType"] == media_type
    return document


def test_a_manifest_gets_new_layers_and_a_new_config_and_keeps_the_rest() -> None:
    before = manifest(layer("a"), layer("b"), annotations={"x": "y"}, subject={"digest": digest("s")})
    after = rewritten(before, NEW, None)
    assert after["annotations"] == {"x": "y"}
    assert after["subject"] == {"digest": digest("s")}
    assert after["config"] == {"mediaType": OCI_CONFIG, "digest": digest("new config"), "size": 10}
    assert after["layers"] == [
        {"mediaType": OCI_GZIP_LAYER, "digest": digest("new"), "size": 3, "annotations": {TOC: "sha256:x"}},
        layer("b"),
    ]


def test_annotations_of_a_layer_stay_except_those_about_its_bytes() -> None:
    old = {
        "mine": "1",
        "io.github.containers.zstd-chunked.manifest-checksum": "old",
        "io.containers.estargz.uncompressed-size": "7",
    }
    after = rewritten(manifest(layer("a", annotations=old, data="QQ==")), NEW)
    assert after["layers"][0]["annotations"] == {"mine": "1", TOC: "sha256:x"}
    assert "data" not in after["layers"][0]


def test_docker_stays_docker_unless_oci_is_wanted() -> None:
    before = manifest(layer("a", DOCKER_LAYER), layer("b", DOCKER_LAYER), media_type=DOCKER_MANIFEST)
    docker, oci = rewritten(before, NEW, None), rewritten(before, NEW, None, oci=True)
    assert docker["mediaType"] == DOCKER_MANIFEST
    assert docker["config"]["mediaType"] == DOCKER_CONFIG
    assert [one["mediaType"] for one in docker["layers"]] == [DOCKER_LAYER, DOCKER_LAYER]
    assert oci["mediaType"] == OCI_MANIFEST
    assert oci["config"]["mediaType"] == OCI_CONFIG
    assert [one["mediaType"] for one in oci["layers"]] == [OCI_GZIP_LAYER, OCI_GZIP_LAYER]


def test_a_manifest_where_nothing_changes_is_the_very_same() -> None:
    config = b"config"
    before = manifest(layer("a")).replace(b'"data": "Y29uZmln"', b'"data": "Y29uZmln" ')
    assert rewrite_manifest(before, config, [None], "m", oci=True) == (before, OCI_MANIFEST)


def test_a_config_gets_new_diff_ids_and_keeps_the_rest() -> None:
    rootfs = {"type": "layers", "diff_ids": [digest("a"), digest("b")]}
    before = json.dumps({"os": "linux", "rootfs": rootfs, "history": [{"created_by": "x"}], "own": 1}).encode()
    after = json.loads(rewrite_config(before, [None, NEW], "c"))
    assert after["rootfs"]["diff_ids"] == [digest("a"), digest("new tar")]
    assert (after["history"], after["own"]) == ([{"created_by": "x"}], 1)
    assert rewrite_config(before, [None, None], "c") == before


def test_a_config_with_another_number_of_layers_is_refused() -> None:
    with pytest.raises(InvalidDocumentError, match="wanted 2, one per layer, got 1"):
        rewrite_config(b'{"rootfs": {"diff_ids": ["x"]}}', [None, None], "c")


def test_an_index_follows_its_manifests_and_what_attests_them() -> None:
    entries = [
        {"mediaType": DOCKER_MANIFEST, "digest": digest("amd"), "size": 1, "platform": {"os": "linux"}},
        {"mediaType": DOCKER_MANIFEST, "digest": digest("arm"), "size": 1},
        {"mediaType": OCI_MANIFEST, "digest": digest("at"), "size": 2, "annotations": {ATTESTED_DIGEST: digest("amd")}},
    ]
    before = json.dumps({"schemaVersion": 2, "mediaType": DOCKER_INDEX, "manifests": entries, "x": 1}).encode()
    kept = {
        0: Descriptor(OCI_MANIFEST, Digest.of(b"amd2"), 5),
        2: Descriptor(OCI_MANIFEST, Digest.of(b"at"), 2),
    }
    data, media_type = rewrite_index(before, kept, "i", oci=True)
    after = json.loads(data)
    assert (media_type, after["mediaType"], after["x"]) == (OCI_INDEX, OCI_INDEX, 1)
    assert after["manifests"] == [
        {"mediaType": OCI_MANIFEST, "digest": digest("amd2"), "size": 5, "platform": {"os": "linux"}},
        {**entries[2], "annotations": {ATTESTED_DIGEST: digest("amd2")}},
    ]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (manifest(layer("a")), True),
        (manifest(layer("a", DOCKER_LAYER), media_type=DOCKER_MANIFEST), True),
        (manifest(), True),
        (manifest(layer("a", "application/vnd.in-toto+json")), False),
        (manifest(layer("a"), artifactType="application/x"), False),
        (b"{}", False),
    ],
)
def test_images_are_told_from_artifacts(data: bytes, expected: bool) -> None:
    assert is_image(data, "m") is expected
