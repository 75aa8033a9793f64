"""An image store as podman sees it, and images for it that need no mount."""

import json
from pathlib import Path

from registry_storage.digest import Digest
from registry_storage.images.names import big_data_file, layer_id, link_name
from registry_storage.images.records import LayerRecord
from registry_storage.images.store import NewImage, NewLayer

CREATED = "2026-01-02T03:04:05Z"


def new_layer(parent: NewLayer | None, text: str, *, verified: bool = True, blob: str = "") -> NewLayer:
    """A layer whose tar is said to be `text`."""
    diff_id = Digest.of(text.encode())
    above = None if parent is None else parent.record.id
    layer_digest = Digest.of((blob or f"blob of {text}").encode())
    record = LayerRecord(
        layer_id(above, diff_id), above, CREATED, layer_digest, 10, diff_id, 20, 2, layer_digest, verified
    )
    return NewLayer(record, f"cmVm/{layer_digest}/diff")


def new_image(name: str, *texts: str, verified: bool = True, variant: str = "") -> NewImage:
    """An image of these layers."""
    layers: list[NewLayer] = []
    for text in texts:
        layers.append(new_layer(layers[-1] if layers else None, text, verified=verified))
    config = json.dumps({"rootfs": {"diff_ids": [str(layer.record.diff_id) for layer in layers]}}).encode()
    manifest = json.dumps({"config": str(Digest.of(config)), "variant": variant}).encode()
    return NewImage(name, manifest, config, CREATED, layers)


def check_readable(path: Path) -> dict[str, list[str]]:
    """What podman reads; AssertionError for what it would refuse. Names, each with its layers from the base up."""
    layers = {record["id"]: record for record in json.loads((path / "overlay-layers/layers.json").read_bytes())}
    images = json.loads((path / "overlay-images/images.json").read_bytes())
    for lock in ("overlay-layers/layers.lock", "overlay-images/images.lock"):
        assert (path / lock).stat().st_size == 64
    for layer in layers.values():
        directory = path / "overlay" / layer["id"]
        link = (directory / "link").read_text()
        assert len(link) == 26
        assert link == link_name(layer["id"])
        assert (directory / "diff").is_symlink()
        assert (path / "overlay/l" / link).readlink() == Path(f"../{layer['id']}/diff")
        below = _below(layers, layer["id"])
        lower = [f"l/{link_name(one)}" for one in below]
        assert ((directory / "lower").read_text().split(":") if below else []) == lower
    found: dict[str, list[str]] = {}
    for image in images:
        for key in image["big-data-names"]:
            data = (path / "overlay-images" / image["id"] / big_data_file(key)).read_bytes()
            assert str(Digest.of(data)) == image["big-data-digests"][key]
            assert len(data) == image["big-data-sizes"][key]
        for name in image["names"]:
            assert name not in found, "two images have one name"
            found[name] = [*_below(layers, image["layer"])[::-1], image["layer"]]
    assert len({image["id"] for image in images}) == len(images)
    return found


def _below(layers: dict[str, dict[str, str]], layer: str) -> list[str]:
    found = []
    at = layers[layer].get("parent")
    while at is not None:
        found.append(at)
        at = layers[at].get("parent")
    return found
