"""Small images of every lazy format in a fake registry, from descriptions of their files."""

import base64
import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from registry_storage.descriptor import OCI_MANIFEST, Descriptor
from registry_storage.digest import Digest

from .layer_blobs import (
    GZIP_LAYER,
    TOC_NAME,
    ZSTD_LAYER,
    estargz_footer,
    gzip_member,
    skippable,
    tar_entry,
    zstd_frame,
)
from .registry import FakeRegistry

KINDS = ("estargz", "podman", "podman-old", "stargz")


@dataclass(frozen=True, slots=True)
class File:
    """One entry of a layer."""

    name: str
    data: bytes = b""
    type: str = "reg"
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    link: str = ""
    modtime: str = "2024-05-06T07:08:09Z"
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    major: int = 0
    minor: int = 0
    chunk_size: int = 64 << 10
    holes: bool = False
    """Chunks of zeros have no bytes in the blob, as podman makes them."""


def directory(name: str, **more: Any) -> File:
    """A directory of mode 0755."""
    return File(name, type="dir", **({"mode": 0o755} | more))


@dataclass(frozen=True, slots=True)
class BuiltLayer:
    """A layer's blob, and what tests want to know of it."""

    blob: bytes
    descriptor: Descriptor
    toc_digest: Digest
    places: Mapping[str, Sequence[tuple[int, int]]]
    """(offset, size) in the blob of each file's pieces."""
    toc_offset: int


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """An image as it is in the registry."""

    reference: str
    manifest: bytes
    config: bytes
    layers: Sequence[BuiltLayer]
    diff_ids: Sequence[Digest]


def build_layer(files: Sequence[File], kind: str = "podman") -> BuiltLayer:
    """A blob of one of KINDS: data pieces, TOC and footer (the tar headers that nobody here reads are left out)."""
    compress = gzip_member if kind == "estargz" else zstd_frame
    data = bytearray()
    entries: list[dict[str, Any]] = []
    places: dict[str, list[tuple[int, int]]] = {}
    for item in files:
        entry: dict[str, Any] = {
            "name": item.name,
            "type": item.type,
            "mode": item.mode,
            "modtime": item.modtime,
            "uid": item.uid,
            "gid": item.gid,
        }
        if item.link:
            entry["linkName"] = item.link
        if item.xattrs:
            entry["xattrs"] = {name: base64.b64encode(value).decode() for name, value in item.xattrs.items()}
        if item.type in ("char", "block"):
            entry |= {"devMajor": item.major, "devMinor": item.minor}
        entries.append(entry)
        if item.type != "reg" or not item.data:
            continue
        entry |= {"size": len(item.data), "digest": _sha256(item.data)}
        places[item.name] = []
        for start in range(0, len(item.data), item.chunk_size):
            chunk = item.data[start : start + item.chunk_size]
            if start:
                entry = {"name": item.name, "type": "chunk", "chunkOffset": start}
                entries.append(entry)
            if item.holes and not any(chunk):
                entry |= {"offset": len(data), "chunkSize": len(chunk), "chunkType": "zeros"}
                places[item.name].append((len(data), 0))
                continue
            piece = compress(chunk)
            entry |= {"offset": len(data), "chunkSize": len(chunk), "chunkDigest": _sha256(chunk)}
            places[item.name].append((len(data), len(piece)))
            data += piece
    toc = json.dumps({"version": 1, "entries": entries}).encode()
    return _finish(bytes(data), toc, kind, places)


def _finish(data: bytes, toc: bytes, kind: str, places: Mapping[str, Sequence[tuple[int, int]]]) -> BuiltLayer:
    if kind == "estargz":
        blob = data + gzip_member(tar_entry(TOC_NAME, toc)) + estargz_footer(len(data))
        annotations = {"containerd.io/snapshot/stargz/toc.digest": str(Digest.of(toc))}
        toc_digest, media_type, toc_offset = Digest.of(toc), GZIP_LAYER, len(data)
    else:
        packed = zstd_frame(toc)
        toc_offset, media_type = len(data) + 8, ZSTD_LAYER
        numbers = (toc_offset, len(packed), len(toc), 1)
        position = ":".join(map(str, numbers))
        blob = data + skippable(packed)
        toc_digest = Digest.of(toc if kind == "stargz" else packed)
        if kind == "podman":
            split = zstd_frame(b"{}\n")
            split_numbers = (len(blob) + 8, len(split), 3)
            blob += skippable(split) + skippable(struct.pack("<7Q", *numbers, *split_numbers) + b"GNUlInUx")
            prefix = "io.github.containers.zstd-chunked."
        else:
            blob += skippable(struct.pack("<4Q", *numbers) + b"GnUlInUx")
            prefix = "io.containers.zstd-chunked."
        annotations = {f"{prefix}manifest-checksum": str(Digest.of(packed)), f"{prefix}manifest-position": position}
        if kind == "stargz":
            annotations["containerd.io/snapshot/stargz/toc.digest"] = str(toc_digest)
    descriptor = Descriptor(media_type, Digest.of(blob), len(blob), annotations)
    return BuiltLayer(blob, descriptor, toc_digest, places, toc_offset)


def put_image(registry: FakeRegistry, layers: Sequence[BuiltLayer], name: str = "team/app:v1") -> BuiltImage:
    """Put an image of these layers into the registry."""
    repository, _, tag = name.partition(":")
    diff_ids = [Digest.of(b"diff of " + layer.blob) for layer in layers]
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [*map(str, diff_ids)]}}
    ).encode()
    config_descriptor = registry.put_blob(repository, config, "application/vnd.oci.image.config.v1+json")
    for layer in layers:
        registry.put_blob(repository, layer.blob)
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": to_json(config_descriptor),
            "layers": [to_json(layer.descriptor) for layer in layers],
        }
    ).encode()
    registry.put_manifest(repository, tag, manifest)
    return BuiltImage(f"{registry.host}/{name}", manifest, config, layers, diff_ids)


def to_json(descriptor: Descriptor) -> dict[str, Any]:
    """As it stands in a manifest."""
    return {
        "mediaType": descriptor.media_type,
        "digest": str(descriptor.digest),
        "size": descriptor.size,
        "annotations": dict(descriptor.annotations),
    }


def _sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
