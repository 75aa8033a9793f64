"""Where images go: a registry, or an OCI image layout."""

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol

import trio

from ..descriptor import Descriptor
from ..digest import Digest
from ..reference import Reference
from ..registry.client import RegistryClient
from ..registry.upload import Outcome, Uploader
from .layout import Layout


class Destination(Protocol):
    """Takes blobs, then manifests, then gives them a name. Every method raises RegistryError, OSError."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def oci_only(self) -> bool:
        """Docker's media types cannot be stored there."""

    async def find_blob(self, digest: Digest) -> Outcome | None:
        """How a blob came to be there that needs no bytes from us; None: it is not there."""

    async def put_blob(
        self, descriptor: Descriptor, source: Path | bytes, progress: Callable[[int], None]
    ) -> Outcome:
        """Store a blob; a file may be gone afterwards."""

    async def put_manifest(self, descriptor: Descriptor, data: bytes) -> None:
        """Store a manifest that no name leads to yet."""

    async def publish(self, descriptor: Descriptor, data: bytes, suffix: str = "") -> None:
        """Store a manifest or index under the destination's name with `suffix`."""

    async def abandon(self) -> None:
        """Take back what was stored and has no name, where that is possible; fails never."""


class RegistryDestination:
    """A repository in a registry."""

    oci_only = False

    def __init__(self, client: RegistryClient, reference: Reference, *, mount_from: Sequence[str] = ()) -> None:
        self._uploader = Uploader(client, reference, mount_from=mount_from)
        self._reference = reference
        self.name = str(reference)

    async def find_blob(self, digest: Digest) -> Outcome | None:
        """See Destination."""
        return await self._uploader.find_blob(digest)

    async def put_blob(
        self, descriptor: Descriptor, source: Path | bytes, progress: Callable[[int], None]
    ) -> Outcome:
        """See Destination."""
        if isinstance(source, bytes):
            return await self._uploader.upload_blob(descriptor, _Memory(source), progress=progress)
        with closing(_File(source)) as file:
            return await self._uploader.upload_blob(descriptor, file, progress=progress)

    async def put_manifest(self, descriptor: Descriptor, data: bytes) -> None:
        """See Destination."""
        await self._uploader.put_manifest(data, descriptor.media_type)

    async def publish(self, descriptor: Descriptor, data: bytes, suffix: str = "") -> None:
        """See Destination."""
        tag = self._reference.tag
        await self._uploader.put_manifest(data, descriptor.media_type, None if tag is None else tag + suffix)

    async def abandon(self) -> None:
        """The registry collects what no manifest names; broken uploads were cancelled."""


class _Memory:
    def __init__(self, data: bytes) -> None:
        self._data = data

    async def read_at(self, offset: int, size: int) -> bytes:
        return self._data[offset : offset + size]


class _File:
    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    async def read_at(self, offset: int, size: int) -> bytes:
        data = await trio.to_thread.run_sync(os.pread, self._descriptor, size, offset)
        if not data:
            raise OSError(f"the file ended at {offset}, {size} bytes early")
        return data

    def close(self) -> None:
        os.close(self._descriptor)


class LayoutDestination:
    """An image in an OCI image layout."""

    oci_only = True

    def __init__(self, path: Path, tag: str | None, name: str) -> None:
        self._layout = Layout(path)
        self._tag = tag
        self._added: list[Path] = []
        self._created: list[Path] | None = None
        self.name = name

    async def find_blob(self, digest: Digest) -> Outcome | None:
        """See Destination."""
        return Outcome.EXISTING if self._layout.blob_path(digest).is_file() else None

    async def put_blob(
        self, descriptor: Descriptor, source: Path | bytes, progress: Callable[[int], None]
    ) -> Outcome:
        """See Destination."""
        # Not to be cancelled in the middle: what was added must be known to be taken back.
        added = await trio.to_thread.run_sync(self._add, descriptor.digest, source)
        progress(descriptor.size)
        return Outcome.UPLOADED if added else Outcome.EXISTING

    def _add(self, digest: Digest, source: Path | bytes) -> bool:
        if self._created is None:
            self._created = self._layout.create()
        added = self._layout.add_blob(digest, source)
        if added:
            self._added.append(self._layout.blob_path(digest))
        return added

    async def put_manifest(self, descriptor: Descriptor, data: bytes) -> None:
        """See Destination."""
        await self.put_blob(descriptor, data, lambda _: None)

    async def publish(self, descriptor: Descriptor, data: bytes, suffix: str = "") -> None:
        """See Destination."""
        await self.put_manifest(descriptor, data)
        tag = self._tag + suffix if self._tag is not None else suffix.lstrip("-") or None
        await trio.to_thread.run_sync(self._layout.publish, descriptor, tag)
        self._added.clear()
        self._created = []

    async def abandon(self) -> None:
        """See Destination."""
        for path in self._added:
            path.unlink(missing_ok=True)
        for path in reversed(self._created or []):
            try:
                path.rmdir() if path.is_dir() else path.unlink()
            except OSError:
                continue
