"""Whole blobs, byte for byte, for those who save or push a lazily pulled image.

A compressed byte can be verified only with the whole blob, so the first reader waits until all of it is here.
"""

import hashlib
import logging
import os
from collections.abc import Collection
from contextlib import aclosing
from pathlib import Path

import trio

from ..cache.root import Root
from ..cache.signature import Signature
from ..digest import Digest
from ..errors import VerificationError
from .layer import Layer
from .single_flight import SingleFlight

_log = logging.getLogger(__name__)

WRITE_BYTES = 1 << 20


class WholeBlobs:
    """Blobs under the root directory, each verified when it was written and when a new daemon first uses it."""

    def __init__(self, root: Root, nursery: trio.Nursery) -> None:
        self._root = root
        self._read_at: dict[Digest, float] = {}
        self._files: dict[Digest, tuple[int, Signature | None]] = {}
        self._flights: SingleFlight[Digest, int] = SingleFlight(nursery)

    async def read(self, layer: Layer, offset: int, size: int) -> bytes:
        """Up to `size` bytes of the layer's blob. Raises RegistryError, VerificationError or OSError."""
        digest = layer.descriptor.digest
        self._check(digest)
        self._read_at[digest] = trio.current_time()
        if digest in self._files:
            file, _ = self._files[digest]
        else:
            file = await self._flights.run(digest, lambda: self._open(layer))
        return os.pread(file, size, offset)

    def check(self) -> None:
        """Drop those that somebody else changed."""
        for digest in list(self._files):
            self._check(digest)

    def _check(self, digest: Digest) -> None:
        if digest in self._files and self._files[digest][1] != Signature.of(self._root.blob(digest)):
            _log.warning("blob %s was changed by somebody else: it is fetched again when it is wanted", digest)
            self._forget(digest)
            self._root.blob(digest).unlink(missing_ok=True)

    def read_at(self, digest: Digest) -> float:
        """When somebody read a blob last, on trio's clock."""
        return self._read_at.get(digest, float("-inf"))

    def forget(self, digest: Digest) -> None:
        """Close its file, if it is open."""
        self._read_at.pop(digest, None)
        if digest in self._files:
            self._forget(digest)

    def forget_except(self, digests: Collection[Digest]) -> None:
        """Close the files of all other blobs."""
        for digest in self._files.keys() - set(digests):
            self._forget(digest)

    def _forget(self, digest: Digest) -> None:
        file, _ = self._files.pop(digest)
        os.close(file)

    async def _open(self, layer: Layer) -> int:
        digest = layer.descriptor.digest
        path = self._root.blob(digest)
        before = Signature.of(path)
        if before and await trio.to_thread.run_sync(_file_digest, path) != digest:
            _log.warning("blob %s is damaged on disk; it will be fetched again", digest)
            path.unlink(missing_ok=True)
        if not path.exists():
            before = await self._fetch(layer, path)
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._files[digest] = file, before
        return file

    async def _fetch(self, layer: Layer, path: Path) -> Signature | None:
        temporary = path.with_name(f".{path.name}.new")
        digest, running = layer.descriptor.digest, hashlib.sha256()
        _log.info("blob %s is fetched whole: %d bytes", digest, layer.descriptor.size)
        with temporary.open("wb", buffering=0) as file:
            pending = bytearray()
            async with aclosing(layer.source.stream(0, layer.descriptor.size)) as parts:
                async for part in parts:
                    pending += part
                    if len(pending) >= WRITE_BYTES:
                        await trio.to_thread.run_sync(_append, file.fileno(), bytes(pending), running)
                        pending.clear()
            await trio.to_thread.run_sync(_append, file.fileno(), bytes(pending), running)
            written = Signature.of(file.fileno())
        got = Digest(running.hexdigest())
        if got != digest:
            temporary.unlink()
            raise VerificationError(f"blob {digest}: {layer.descriptor.size} bytes", wanted=str(digest), got=str(got))
        temporary.replace(path)
        return written


def _append(file: int, data: bytes, running: "hashlib._Hash") -> None:
    running.update(data)
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _file_digest(path: Path) -> Digest:
    with path.open("rb") as file:
        return Digest(hashlib.file_digest(file, "sha256").hexdigest())
