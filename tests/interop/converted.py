"""Images of the laboratory with layers that this package writes, in a registry of their own."""

import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab import images
from lab.registry import fetch_blob, manifest_at, push_blob, push_document, push_manifest
from registry_storage.convert import LayerKind, WriteOptions, WrittenLayer, verify_written, write_layer
from registry_storage.descriptor import OCI_MANIFEST

KINDS = (LayerKind.ESTARGZ, LayerKind.ZSTD_CHUNKED_PODMAN, LayerKind.ZSTD_CHUNKED_STARGZ)


@dataclass(frozen=True, slots=True)
class ConvertedImage:
    """An image in the registry, and what was written for it."""

    tag: str
    layers: tuple[WrittenLayer, ...]
    sources: tuple[Path, ...]
    """The layers that were converted, tar.gz."""
    blobs: tuple[Path, ...]


def convert_and_push(
    name: str, kind: LayerKind, source_host: str, target_host: str, directory: Path
) -> ConvertedImage:
    """Converts every layer of `lab/gzip/NAME:1` and pushes the image as `own/KIND/NAME:1`."""
    manifest = manifest_at(source_host, images.IMAGES[name].tag)
    repository = f"own/{kind.value}/{name}"
    source_repository = images.IMAGES[name].tag.rpartition(":")[0]
    directory.mkdir(parents=True, exist_ok=True)
    config = json.loads(fetch_blob(source_host, source_repository, manifest["config"]["digest"]))
    written: list[WrittenLayer] = []
    sources: list[Path] = []
    blobs: list[Path] = []
    for number, layer in enumerate(manifest["layers"]):
        source, target = directory / f"{number}.source", directory / f"{number}.blob"
        source.write_bytes(fetch_blob(source_host, source_repository, layer["digest"]))
        with source.open("rb") as reading, target.open("w+b") as writing:
            one = write_layer(reading, writing, WriteOptions(kind))
            verify_written(writing, one)
        push_blob(target_host, repository, str(one.descriptor.digest), target.read_bytes())
        written.append(one)
        sources.append(source)
        blobs.append(target)
    config["rootfs"]["diff_ids"] = [str(one.diff_id) for one in written]
    config_bytes = json.dumps(config).encode()
    manifest["config"] = push_document(target_host, repository, config_bytes, manifest["config"]["mediaType"])
    manifest["layers"] = [
        {
            "mediaType": one.descriptor.media_type,
            "digest": str(one.descriptor.digest),
            "size": one.descriptor.size,
            "annotations": dict(one.descriptor.annotations),
        }
        for one in written
    ]
    manifest["mediaType"] = OCI_MANIFEST
    push_manifest(target_host, f"{repository}:1", manifest)
    return ConvertedImage(f"{repository}:1", tuple(written), tuple(sources), tuple(blobs))


def plain_tar(blob: Path, kind: LayerKind) -> bytes:
    """The blob as the usual programs unpack it."""
    if kind is LayerKind.ESTARGZ:  # Python's gzip copies what is left for each of the thousands of members
        return subprocess.run(["gzip", "-dc", blob], stdout=subprocess.PIPE, check=True).stdout
    return subprocess.run(["zstd", "-q", "-dc", blob], stdout=subprocess.PIPE, check=True).stdout


def tar_entries(tar: bytes) -> Iterator[tuple[object, ...]]:
    """Everything of each entry, landmarks and TOC aside."""
    with tarfile.open(fileobj=io.BytesIO(tar), errors="surrogateescape", encoding="utf-8") as archive:
        for info in archive:
            if info.name not in (".prefetch.landmark", ".no.prefetch.landmark", "stargz.index.json"):
                file = archive.extractfile(info) if info.isreg() else None
                fields = {key: value for key, value in info.get_info().items() if key != "chksum"}
                content = file.read() if file is not None else b""
                yield (sorted(fields.items()), sorted(info.pax_headers.items()), content)
