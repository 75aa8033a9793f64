"""Descriptors, manifests, indexes and image configs."""

import json
from typing import Any

import pytest

from registry_storage.descriptor import (
    MAX_BLOB_BYTES,
    MAX_LAYERS,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    Platform,
    load_json,
    parse_diff_ids,
)
from registry_storage.digest import Digest
from registry_storage.errors import InvalidDocumentError

DIGEST = "sha256:" + "ab" * 32
LAYER = {"mediaType": "application/x", "digest": DIGEST, "size": 5, "annotations": {"k": "v"}}


def dump(value: object) -> bytes:
    return json.dumps(value).encode()


def platform(os: str, architecture: str, variant: str | None = None) -> dict[str, Any]:
    named = {"os": os, "architecture": architecture} | ({"variant": variant} if variant else {})
    return {**LAYER, "platform": named}


def test_a_manifest_is_parsed() -> None:
    manifest = Manifest.parse(dump({"config": LAYER, "layers": [LAYER, {"digest": DIGEST, "size": 0}]}), "m")
    assert manifest.config == Descriptor("application/x", Digest.parse(DIGEST), 5, {"k": "v"})
    assert manifest.layers[1] == Descriptor("", Digest.parse(DIGEST), 0, {})


@pytest.mark.parametrize(
    "layer",
    [
        5,
        None,
        [],
        {},
        {**LAYER, "digest": "md5:x"},
        {**LAYER, "digest": 5},
        {**LAYER, "size": -1},
        {**LAYER, "size": "5"},
        {**LAYER, "size": True},
        {**LAYER, "size": 5.0},
        {**LAYER, "size": None},
        {**LAYER, "size": MAX_BLOB_BYTES + 1},
        {**LAYER, "size": 10**30},
        {**LAYER, "mediaType": 5},
        {**LAYER, "annotations": []},
        {**LAYER, "annotations": "x"},
        {**LAYER, "annotations": {"k": 5}},
        {**LAYER, "platform": "linux"},
        {**LAYER, "platform": {"os": 5}},
    ],
)
def test_a_broken_layer_is_named(layer: object) -> None:
    with pytest.raises(InvalidDocumentError, match="manifest x: layer 1"):
        Manifest.parse(dump({"config": LAYER, "layers": [LAYER, layer]}), "manifest x")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[]",
        b"null",
        b"{}",
        dump({"config": LAYER}),
        dump({"config": LAYER, "layers": {}}),
        dump({"layers": []}),
        dump({"config": LAYER, "layers": [LAYER] * (MAX_LAYERS + 1)}),
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"config": ' + b"9" * 10_000 + b"}",
    ],
)
def test_a_broken_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidDocumentError, match="manifest x"):
        Manifest.parse(data, "manifest x")


def test_annotations_may_be_null() -> None:
    assert Descriptor.from_json({**LAYER, "annotations": None}, "d").annotations == {}


@pytest.mark.parametrize(
    ("wanted", "position"),
    [
        ("linux/amd64", 0),
        ("linux/amd64/v3", 0),
        ("linux/arm64", 2),
        ("linux/arm64/v8", 2),
        ("linux/arm/v6", 1),
        ("linux/arm/v5", None),
        ("linux/arm", 1),
        ("windows/amd64", 4),
        ("linux/s390x", None),
    ],
)
def test_an_index_is_asked_for_a_platform(wanted: str, position: int | None) -> None:
    manifests = [
        platform("linux", "amd64"),
        platform("linux", "arm", "v6"),
        platform("linux", "arm64", "v8"),
        {**LAYER, "mediaType": OCI_MANIFEST},
        platform("windows", "amd64"),
    ]
    for number, manifest in enumerate(manifests):
        manifest["size"] = number
    found = Index.parse(dump({"manifests": manifests}), "i").select(Platform.parse(wanted))
    assert (found.size if found else None) == position


def test_a_broken_index_is_named() -> None:
    with pytest.raises(InvalidDocumentError, match="index x: manifest 0: platform: os"):
        Index.parse(dump({"manifests": [{**LAYER, "platform": {"os": []}}]}), "index x")


@pytest.mark.parametrize("text", ["", "linux", "linux/", "/amd64", "linux/arm/v7/x", "linux//v7"])
def test_no_platform(text: str) -> None:
    with pytest.raises(InvalidDocumentError, match="wanted os/architecture"):
        Platform.parse(text)


def test_a_platform_is_written_as_it_is_read() -> None:
    assert [str(Platform.parse(text)) for text in ("linux/amd64", "linux/arm/v7")] == [
        "linux/amd64",
        "linux/arm/v7",
    ]


def test_diff_ids_are_read_from_the_config() -> None:
    assert parse_diff_ids(dump({"rootfs": {"diff_ids": [DIGEST]}}), "c") == (Digest.parse(DIGEST),)


@pytest.mark.parametrize(
    "rootfs", [None, 5, {}, {"diff_ids": None}, {"diff_ids": [5]}, {"diff_ids": ["sha1:x"]}]
)
def test_broken_diff_ids_are_refused(rootfs: object) -> None:
    with pytest.raises(InvalidDocumentError, match="config x"):
        parse_diff_ids(dump({"rootfs": rootfs}), "config x")


def test_json_is_an_object() -> None:
    assert load_json(b'{"a": 1}', "x") == {"a": 1}
    with pytest.raises(InvalidDocumentError, match="x: wanted an object, got list"):
        load_json(b"[]", "x")
