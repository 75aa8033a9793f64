"""Where images come from: a registry, or an OCI image layout."""

import hashlib
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import trio

from ..descriptor import MAX_CONFIG_BYTES, Descriptor, load_json
from ..digest import Digest
from ..errors import BadResponseError, VerificationError
from ..reference import Reference
from ..registry.client import RegistryClient
from .blob_reader import RangeSource
from .documents import manifest_type
from .layout import Layout


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest or index."""

    media_type: str
    data: bytes

    @property
    def digest(self) -> Digest:
        """Of the bytes."""
        return Digest.of(self.data)


class Source(Protocol):
    """An image and its parts. Every method raises RegistryError, VerificationError, OSError."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def repository(self) -> Reference | None:
        """Where the blobs are, if that is a registry."""

    async def fetch_root(self) -> Document:
        """What the image's name leads to."""

    async def fetch_manifest(self, descriptor: Descriptor) -> Document:
        """A manifest that an index names."""

    async def fetch_config(self, descriptor: Descriptor) -> bytes:
        """A small blob."""

    async def fetch_blob(self, descriptor: Descriptor, target: Path, progress: Callable[[int], None]) -> Path:
        """A file with the blob, its digest checked: `target`, or one that belongs to the source."""

    def open_blob(self, descriptor: Descriptor) -> RangeSource:
        """To read parts of a blob, unchecked, in a thread of trio's."""

    def companion(self, suffix: str) -> "Source | None":
        """The image of the same name with a suffix, where names allow that."""


class RegistrySource:
    """An image in a registry."""

    def __init__(self, client: RegistryClient, reference: Reference) -> None:
        self._client = client
        self._reference = reference
        self.name = str(reference)
        self.repository: Reference | None = reference

    async def fetch_root(self) -> Document:
        """See Source."""
        _, media_type, data = await self._client.fetch_manifest(self._reference)
        return Document(media_type, data)

    async def fetch_manifest(self, descriptor: Descriptor) -> Document:
        """See Source."""
        reference = self._reference.with_digest(descriptor.digest)
        _, media_type, data = await self._client.fetch_manifest(reference)
        return Document(media_type, data)

    async def fetch_config(self, descriptor: Descriptor) -> bytes:
        """See Source."""
        return await self._client.fetch_document(self._reference, descriptor, MAX_CONFIG_BYTES)

    async def fetch_blob(self, descriptor: Descriptor, target: Path, progress: Callable[[int], None]) -> Path:
        """See Source."""
        blob = self._client.open_blob(self._reference, descriptor)
        digest, done = hashlib.sha256(), 0
        with target.open("wb", buffering=0) as file:
            async with aclosing(blob.stream(0, descriptor.size)) as pieces:
                async for piece in pieces:
                    digest.update(piece)
                    while piece:
                        piece = piece[file.write(piece) :]
                    done = file.tell()
                    progress(done)
        if done != descriptor.size:
            raise BadResponseError(f"{self.name}: blob {descriptor.digest}: wanted {descriptor.size} bytes, got {done}")
        if (got := Digest(digest.hexdigest())) != descriptor.digest:
            raise VerificationError(f"{self.name}: layer", wanted=str(descriptor.digest), got=str(got))
        return target

    def open_blob(self, descriptor: Descriptor) -> RangeSource:
        """See Source."""
        return _RemoteBlob(self._client, self._reference, descriptor)

    def companion(self, suffix: str) -> "RegistrySource | None":
        """See Source."""
        reference = self._reference
        if reference.tag is None:
            return None
        return RegistrySource(self._client, Reference(reference.host, reference.repository, reference.tag + suffix))


class _RemoteBlob:
    """Ranges of a registry's blob, for code that blocks in a thread of trio's."""

    def __init__(self, client: RegistryClient, reference: Reference, descriptor: Descriptor) -> None:
        self._blob = client.open_blob(reference, descriptor)
        self.size = descriptor.size

    def read_at(self, offset: int, size: int) -> bytes:
        return trio.from_thread.run(self._blob.fetch, offset, size)


class LayoutSource:
    """An image in an OCI image layout."""

    repository: Reference | None = None

    def __init__(self, path: Path, tag: str | None, name: str) -> None:
        self._layout = Layout(path)
        self._tag = tag
        self.name = name

    async def fetch_root(self) -> Document:
        """See Source."""
        descriptor = await trio.to_thread.run_sync(self._layout.find, self._tag)
        return await self.fetch_manifest(descriptor)

    async def fetch_manifest(self, descriptor: Descriptor) -> Document:
        """See Source."""
        data = await trio.to_thread.run_sync(self._layout.read_blob, descriptor.digest)
        return Document(_media_type(data, descriptor, self.name), data)

    async def fetch_config(self, descriptor: Descriptor) -> bytes:
        """See Source."""
        return await trio.to_thread.run_sync(self._layout.read_blob, descriptor.digest, MAX_CONFIG_BYTES)

    async def fetch_blob(self, descriptor: Descriptor, target: Path, progress: Callable[[int], None]) -> Path:
        """See Source."""

        def check(done: int) -> None:
            trio.from_thread.check_cancelled()
            progress(done)

        return await trio.to_thread.run_sync(self._layout.check_blob, descriptor, check)

    def open_blob(self, descriptor: Descriptor) -> RangeSource:
        """See Source."""
        return FileBlob(self._layout.blob_path(descriptor.digest))

    def companion(self, suffix: str) -> "LayoutSource | None":
        """See Source."""
        if self._tag is None:
            return None
        return LayoutSource(self._layout.path, self._tag + suffix, self.name + suffix)


class FileBlob:
    """Ranges of a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.size = path.stat().st_size

    def read_at(self, offset: int, size: int) -> bytes:
        """Exactly these bytes. Raises OSError."""
        with self._path.open("rb") as file:
            file.seek(offset)
            data = file.read(size)
        if len(data) != size:
            raise OSError(f"{self._path}: wanted {size} bytes at {offset}, got {len(data)}")
        return data


def _media_type(data: bytes, descriptor: Descriptor, what: str) -> str:
    return descriptor.media_type or manifest_type(load_json(data, what))
