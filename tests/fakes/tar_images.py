"""Ordinary images, as builders push them, in a fake registry."""

import gzip
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any

from registry_storage.convert.documents import DOCKER_CONFIG, OCI_CONFIG, OCI_GZIP_LAYER
from registry_storage.descriptor import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from registry_storage.digest import Digest

from .registry import FakeRegistry

DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def tar(files: Mapping[str, bytes]) -> bytes:
    """A tar of regular files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = len(data), 1_700_000_000, 0o644
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def put_image(
    registry: FakeRegistry,
    layers: Sequence[Mapping[str, bytes]],
    *,
    repository: str = "team/app",
    tag: str = "v1",
    architecture: str = "amd64",
    docker: bool = False,
    foreign: Sequence[Mapping[str, Any]] = (),
) -> Digest:
    """Its manifest's digest. `foreign`: descriptors of layers that are elsewhere, below the others."""
    tars = [tar(files) for files in layers]
    diff_ids = [str(Digest.of(b"foreign")) for _ in foreign] + [str(Digest.of(data)) for data in tars]
    config = json.dumps(
        {
            "architecture": architecture,
            "os": "linux",
            "config": {"Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": [{"created_by": "test"} for _ in diff_ids],
        }
    ).encode()
    media_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": describe(registry, repository, config, DOCKER_CONFIG if docker else OCI_CONFIG),
            "layers": [
                *foreign,
                *(
                    describe(
                        registry, repository, gzip.compress(data, mtime=0), DOCKER_LAYER if docker else OCI_GZIP_LAYER
                    )
                    for data in tars
                ),
            ],
        }
    ).encode()
    return registry.put_manifest(repository, tag, manifest, media_type)


def put_index(
    registry: FakeRegistry, entries: Sequence[tuple[Digest, Mapping[str, Any]]], *, repository: str = "team/app"
) -> Digest:
    """An index of manifests that are there; each with further fields of its entry. Tagged ``index``."""
    manifests = []
    for digest, more in entries:
        media_type, data = registry.manifests[repository, str(digest)]
        manifests.append({"mediaType": media_type, "digest": str(digest), "size": len(data), **more})
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}).encode()
    return registry.put_manifest(repository, "index", index, OCI_INDEX)


def put_attestation(registry: FakeRegistry, repository: str = "team/app") -> Digest:
    """What buildx adds to an index."""
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": describe(registry, repository, b'{"architecture":"unknown","os":"unknown"}', OCI_CONFIG),
            "layers": [describe(registry, repository, b'{"_type":"x"}', "application/vnd.in-toto+json")],
        }
    ).encode()
    return registry.put_manifest(repository, "attestation", manifest)


def describe(registry: FakeRegistry, repository: str, data: bytes, media_type: str) -> dict[str, Any]:
    """The descriptor of a blob that is put there."""
    descriptor = registry.put_blob(repository, data, media_type)
    return {"mediaType": media_type, "digest": str(descriptor.digest), "size": descriptor.size}
