"""Manifests, indexes and image configs rewritten for other layers: pure, every field that is not ours is kept."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..descriptor import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    INDEXES,
    MANIFESTS,
    MAX_LAYERS,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    load_json,
)
from ..digest import Digest
from ..errors import InvalidDocumentError
from ..formats.prefetch_ranges import PREFETCH_ANNOTATION

OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
OCI_GZIP_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
ATTESTED_DIGEST = "vnd.docker.reference.digest"
"""Annotation of an index entry: the manifest that an attestation speaks of."""

_OCI_TYPES = {
    DOCKER_MANIFEST: OCI_MANIFEST,
    DOCKER_INDEX: OCI_INDEX,
    DOCKER_CONFIG: OCI_CONFIG,
    "application/vnd.docker.image.rootfs.diff.tar": "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip": OCI_GZIP_LAYER,
    "application/vnd.docker.image.rootfs.diff.tar.zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar": "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": (
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    ),
}
_DOCKER_TYPES = {oci: docker for docker, oci in _OCI_TYPES.items()}
_LAYER_TYPES = (
    "application/vnd.oci.image.layer.",
    "application/vnd.docker.image.rootfs.",
)
_OURS = (
    "containerd.io/snapshot/stargz/",
    "io.containers.estargz.",
    "io.containers.zstd-chunked.",
    "io.github.containers.zstd-chunked.",
    "containerd.io/uncompressed",
    PREFETCH_ANNOTATION,
)
"""Annotations of a layer that speak of its bytes; those of other bytes must go."""


@dataclass(frozen=True, slots=True)
class NewLayer:
    """A layer in place of another."""

    descriptor: Descriptor
    diff_id: Digest


def oci_type(media_type: str) -> str:
    """The OCI media type for docker's; others stay."""
    return _OCI_TYPES.get(media_type, media_type)


def docker_type(media_type: str) -> str:
    """Docker's media type for OCI's, where there is one."""
    return _DOCKER_TYPES.get(media_type, media_type)


def dump(document: Mapping[str, Any]) -> bytes:
    """The same document is the same bytes everywhere."""
    return json.dumps(document, separators=(",", ":")).encode()


def is_image(data: bytes, what: str) -> bool:
    """Whether a manifest is one of an image with file system layers; artifacts and attestations are not.

    Raises InvalidDocumentError.
    """
    document = load_json(data, what)
    config, layers = document.get("config"), document.get("layers")
    if not isinstance(config, dict) or not isinstance(layers, list):
        return False
    types = [layer.get("mediaType") for layer in layers if isinstance(layer, dict)]
    return (
        oci_type(str(config.get("mediaType", ""))) == OCI_CONFIG
        and not document.get("artifactType")
        and all(str(media_type).startswith(_LAYER_TYPES) for media_type in types)
    )


def rewrite_config(data: bytes, layers: Sequence[NewLayer | None], what: str) -> bytes:
    """The image config with the diffIDs of `layers` (None: as it was). The very bytes where nothing changes."""
    document = load_json(data, what)
    rootfs = document.get("rootfs")
    old = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(rootfs, dict) or not isinstance(old, list) or len(old) != len(layers):
        got = len(old) if isinstance(old, list) else "none"
        raise InvalidDocumentError(f"{what}: diff_ids: wanted {len(layers)}, one per layer, got {got}")
    new = [before if layer is None else str(layer.diff_id) for before, layer in zip(old, layers, strict=True)]
    if new == old:
        return data
    return dump({**document, "rootfs": {**rootfs, "diff_ids": new}})


def rewrite_manifest(
    data: bytes, config: bytes, layers: Sequence[NewLayer | None], what: str, *, oci: bool
) -> tuple[bytes, str]:
    """The manifest with another config and other layers, and its media type.

    `oci`: with OCI's media types where it has docker's. Raises InvalidDocumentError.
    """
    document = load_json(data, what)
    media_type = manifest_type(document)
    old = document["layers"]
    if len(old) != len(layers) or len(old) > MAX_LAYERS:
        raise InvalidDocumentError(f"{what}: layers: wanted {len(layers)}, got {len(old)}")
    oci = oci or media_type == OCI_MANIFEST
    if oci:
        media_type = oci_type(media_type)
    new_config = _moved(document["config"], Digest.of(config), len(config), oci=oci)
    new_layers = [_layer(before, layer, oci=oci) for before, layer in zip(old, layers, strict=True)]
    new = {**document, "mediaType": media_type, "config": new_config, "layers": new_layers}
    if new == document or (new == {"mediaType": media_type, **document}):
        return data, media_type
    return dump(new), media_type


def manifest_type(document: Mapping[str, Any]) -> str:
    """The media type of a manifest or index; OCI's need not tell theirs."""
    own = document.get("mediaType")
    if own in MANIFESTS | INDEXES:
        return str(own)
    return OCI_INDEX if "manifests" in document else OCI_MANIFEST


def rewrite_index(data: bytes, entries: Mapping[int, Descriptor], what: str, *, oci: bool) -> tuple[bytes, str]:
    """The index with only those of its manifests whose position is in `entries`, now as described there.

    What attestations say that they speak of follows. Raises InvalidDocumentError.
    """
    document = load_json(data, what)
    media_type = manifest_type(document)
    if oci:
        media_type = oci_type(media_type)
    old = document["manifests"]
    moved = {old[at]["digest"]: str(new.digest) for at, new in entries.items()}
    manifests = []
    for at, new in sorted(entries.items()):
        entry = _moved({**old[at], "mediaType": new.media_type}, new.digest, new.size, oci=False)
        annotations = entry.get("annotations")
        if isinstance(annotations, dict) and annotations.get(ATTESTED_DIGEST) in moved:
            entry["annotations"] = {**annotations, ATTESTED_DIGEST: moved[annotations[ATTESTED_DIGEST]]}
        manifests.append(entry)
    new_document = {**document, "mediaType": media_type, "manifests": manifests}
    if new_document == document:
        return data, media_type
    return dump(new_document), media_type


def external_toc_image(layers: Sequence[tuple[Descriptor, Digest]], platform: Mapping[str, str]) -> tuple[bytes, bytes]:
    """(manifest, config) of the image ``<reference>-esgztoc``; each layer with its diffID."""
    config = dump(
        {**platform, "config": {}, "rootfs": {"type": "layers", "diff_ids": [str(diff_id) for _, diff_id in layers]}}
    )
    manifest = dump(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": str(Digest.of(config)), "size": len(config)},
            "layers": [
                {
                    "mediaType": descriptor.media_type,
                    "digest": str(descriptor.digest),
                    "size": descriptor.size,
                    "annotations": dict(descriptor.annotations),
                }
                for descriptor, _ in layers
            ],
        }
    )
    return manifest, config


def _layer(before: Mapping[str, Any], layer: NewLayer | None, *, oci: bool) -> dict[str, Any]:
    if layer is None:
        kept = dict(before)
        if oci:
            kept["mediaType"] = oci_type(kept["mediaType"])
        return kept
    new = layer.descriptor
    media_type = new.media_type if oci else docker_type(new.media_type)
    after = _moved({**before, "mediaType": media_type}, new.digest, new.size, oci=False)
    after.pop("urls", None)
    given = before.get("annotations") or {}
    annotations = {key: text for key, text in given.items() if not key.startswith(_OURS)} | dict(new.annotations)
    after.pop("annotations", None)
    return {**after, "annotations": annotations} if annotations else after


def _moved(descriptor: Mapping[str, Any], digest: Digest, size: int, *, oci: bool) -> dict[str, Any]:
    """A descriptor of other bytes; a copy of the bytes inside it (``data``) would be of the old ones."""
    after = {**descriptor, "digest": str(digest), "size": size}
    if after["digest"] != descriptor["digest"]:
        after.pop("data", None)
    if oci:
        after["mediaType"] = oci_type(after["mediaType"])
    return after
