"""Where images go: a registry, or an OCI image layout."""

import os
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
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
        """Store a blob; a file must stay until something is published."""

    async def put_manifest(self, descriptor: Descriptor, data: bytes) -> None:
        """Store a manifest that no name leads to yet."""

    async def publish(self, descriptor: Descriptor, data: bytes, suffix: str = "") -> None:
        """Store a manifest or index under the destination's name with `suffix`."""


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
    """An image in an OCI image layout. Nothing is written there before it is published."""

    oci_only = True

    def __init__(self, path: Path, tag: str | None, name: str) -> None:
        self._layout = Layout(path)
        self._tag = tag
        self._pending: dict[Digest, Path | bytes] = {}
        self.name = name

    async def find_blob(self, digest: Digest) -> Outcome | None:
        """See Destination."""
        known = digest in self._pending or self._layout.blob_path(digest).is_file()
        return Outcome.EXISTING if known else None

    async def put_blob(
        self, descriptor: Descriptor, source: Path | bytes, progress: Callable[[int], None]
    ) -> Outcome:
        """See Destination; a file must stay until it is published."""
        found = await self.find_blob(descriptor.digest)
        if found is None:
            self._pending[descriptor.digest] = source
        progress(descriptor.size)
        return found or Outcome.UPLOADED

    async def put_manifest(self, descriptor: Descriptor, data: bytes) -> None:
        """See Destination."""
        await self.put_blob(descriptor, data, lambda _: None)

    async def publish(self, descriptor: Descriptor, data: bytes, suffix: str = "") -> None:
        """See Destination."""
        await self.put_manifest(descriptor, data)
        tag = self._tag + suffix if self._tag is not None else suffix.lstrip("-") or None
        # In one go, which a cancellation does not break: either all of it is there or what was added goes again.
        await trio.to_thread.run_sync(self._publish, descriptor, tag)

    def _publish(self, descriptor: Descriptor, tag: str | None) -> None:
        made = self._layout.create()
        try:
            for digest, source in self._pending.items():
                if self._layout.add_blob(digest, source):
                    made.append(self._layout.blob_path(digest))
            self._layout.publish(descriptor, tag)
        except BaseException:
            for path in reversed(made):
                with suppress(OSError):
                    path.rmdir() if path.is_dir() else path.unlink()
            raise
        self._pending.clear()
