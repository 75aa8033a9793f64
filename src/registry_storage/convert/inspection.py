"""What is in an image's layers, and whether all of it is what its digests say."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from ..descriptor import INDEXES, MAX_MANIFEST_BYTES, Descriptor, Index, Manifest, Platform, parse_diff_ids
from ..digest import Digest
from ..errors import InvalidDocumentError, NotFoundError, NotLazyError, RegistryError, VerificationError
from ..formats.base import MAX_TOC_BYTES
from ..formats.unpacking import unpacked_blocks
from ..layer.toc_source import EXTERNAL_ANNOTATION, EXTERNAL_SUFFIX
from .blob_reader import LayerReader, RangeSource
from .documents import is_image
from .image import platform_of
from .sources import Document, FileBlob, Source
from .work import WorkDirectory


@dataclass(frozen=True, slots=True)
class LayerView:
    """A layer as `inspect` shows it."""

    name: str
    """Its digest, or its file."""
    size: int
    media_type: str = ""
    format: str = ""
    reason: str = ""
    """Why it is not lazily pullable."""
    toc_digest: str | None = None
    toc: bytes = b""
    entries: int = 0
    """Inodes, synthesized directories included."""
    chunks: int = 0
    content_size: int = 0
    """Bytes of all files."""
    landmark: str = "none"
    toc_bytes: int = 0
    """Bytes of the blob that hold TOC, tar-split and footer."""

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        common = {"layer": self.name, "size": self.size, "mediaType": self.media_type, "lazy": not self.reason}
        if self.reason:
            return common | {"reason": self.reason}
        return common | {
            "format": self.format,
            "tocDigest": self.toc_digest,
            "entries": self.entries,
            "chunks": self.chunks,
            "contentSize": self.content_size,
            "landmark": self.landmark,
            "tocBytes": self.toc_bytes,
        }

    def lines(self) -> list[str]:
        """For people."""
        if self.reason:
            return [f"layer {self.name}: {self.size} bytes, not lazily pullable: {self.reason}"]
        share = 100 * self.toc_bytes / max(1, self.size)
        return [
            f"layer {self.name}: {self.size} bytes, {self.format}",
            f"  TOC digest {self.toc_digest}",
            f"  {self.entries} entries, {self.chunks} chunks, {self.content_size} bytes of files, "
            f"landmark: {self.landmark}",
            f"  TOC and footer take {self.toc_bytes} bytes, {share:.2f} % of the blob",
        ]


@dataclass(frozen=True, slots=True)
class ImageView:
    """An image of one platform, whose manifest and config have the digests that led to them."""

    digest: Digest
    platform: str
    manifest: Manifest
    diff_ids: tuple[Digest, ...]

    async def check(self, source: Source, at: int, directory: WorkDirectory) -> str:
        """Read layer `at` whole and compare everything. Raises RegistryStorageError, OSError."""
        layer = self.manifest.layers[at]
        path = await source.fetch_blob(layer, directory.file("layer"), lambda _: None)
        external = await external_toc(source, layer)
        return await trio.to_thread.run_sync(check_layer, path, layer, self.diff_ids[at], external)


async def open_images(source: Source, wanted: Sequence[Platform] | None) -> list[ImageView]:
    """The images of an index for these platforms (None: all), or the one that there is. Raises RegistryStorageError."""
    root = await source.fetch_root()
    if root.media_type not in INDEXES:
        return [await _image(source, root)]
    index = Index.parse(root.data, f"index of {source.name}")
    found: list[ImageView] = []
    if wanted is None:
        chosen = list(index.manifests)
    else:
        chosen = [descriptor for one in wanted if (descriptor := index.select(one)) is not None]
        if len(chosen) < len(wanted):
            raise NotFoundError(f"{source.name}: {index.lacks(*wanted)}")
    for descriptor in chosen:
        document = await source.fetch_manifest(descriptor)
        if is_image(document.data, f"manifest {document.digest}"):
            found.append(await _image(source, document))
    return found


async def _image(source: Source, document: Document) -> ImageView:
    what = f"{source.name}: manifest {document.digest}"
    if len(document.data) > MAX_MANIFEST_BYTES or not is_image(document.data, what):
        raise InvalidDocumentError(f"{what}: not an image with layers")
    manifest = Manifest.parse(document.data, what)
    config = await source.fetch_config(manifest.config)
    diff_ids = parse_diff_ids(config, f"{what}: config")
    if len(diff_ids) != len(manifest.layers):
        raise InvalidDocumentError(f"{what}: diff_ids: wanted {len(manifest.layers)}, got {len(diff_ids)}")
    return ImageView(document.digest, platform_of(config), manifest, diff_ids)


async def open_layer(source: Source, layer: Descriptor) -> LayerView:
    """Look into a layer, reading its TOC only. Raises RegistryStorageError for a broken one."""
    external = await external_toc(source, layer)
    return await trio.to_thread.run_sync(lambda: describe(source.open_blob(layer), layer, external))


async def external_toc(source: Source, layer: Descriptor) -> bytes | None:
    """The layer with this layer's TOC, from the image that goes with the source; None: there is none."""
    companion = source.companion(EXTERNAL_SUFFIX)
    if companion is None:
        return None
    try:
        root = await companion.fetch_root()
    except RegistryError:
        return None
    for candidate in Manifest.parse(root.data, f"manifest of {companion.name}").layers:
        if candidate.annotations.get(EXTERNAL_ANNOTATION) == str(layer.digest) and candidate.size <= MAX_TOC_BYTES:
            return await companion.fetch_config(candidate)
    return None


def describe(
    blob: Path | RangeSource, descriptor: Descriptor | None = None, external: bytes | None = None
) -> LayerView:
    """Look into a blob. Raises FormatError, VerificationError, OSError."""
    source = FileBlob(blob) if isinstance(blob, Path) else blob
    name = str(descriptor.digest) if descriptor else str(blob)
    media_type = descriptor.media_type if descriptor else ""
    try:
        reader = LayerReader.open(source, descriptor=descriptor, external_toc=external)
    except NotLazyError as error:
        return LayerView(name, source.size, media_type, reason=str(error))
    with reader:
        index = reader.index
        files = {entry.inode: entry for entry in reader.list()}
        first = sum(entry.prioritized for entry in files.values())
        landmark = "none"
        if index.prefetch_end:
            landmark = f"{first} files first, up to byte {index.prefetch_end}"
        elif index.no_prefetch:
            landmark = "nothing comes first"
        return LayerView(
            name,
            source.size,
            media_type,
            format=reader.format_name,
            toc_digest=str(reader.toc_digest),
            toc=reader.toc,
            entries=index.inode_count,
            chunks=index.chunk_count,
            content_size=sum(entry.size for entry in files.values() if entry.chunk_count),
            landmark=landmark,
            toc_bytes=source.size - reader.toc_offset,
        )


def check_layer(
    path: Path, descriptor: Descriptor | None = None, diff_id: Digest | None = None, external: bytes | None = None
) -> str:
    """Compare every digest of a layer's file; what it is. Raises FormatError, VerificationError, OSError.

    The file's own digest has been checked.
    """
    try:
        reader = LayerReader.open(path, descriptor=descriptor, external_toc=external)
    except NotLazyError as error:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            for block in unpacked_blocks(file, lambda _: None):
                digest.update(block)
        got: Digest | None = Digest(digest.hexdigest())
        said = f"right, but not lazily pullable: {error}"
    else:
        with reader:
            verified = reader.verify()
        got = verified.diff_id
        said = f"right: {reader.format_name}, {verified.chunks} chunks, {verified.files_bytes} bytes of files"
    if diff_id is not None and got != diff_id:
        raise VerificationError("diffID", wanted=str(diff_id), got=str(got))
    return said
