"""OCI image layouts: directories with images (image-layout.md), read and written without other programs."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..descriptor import MAX_MANIFEST_BYTES, Descriptor, load_json
from ..digest import Digest
from ..errors import InvalidDocumentError, NotFoundError, VerificationError

REF_NAME = "org.opencontainers.image.ref.name"
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_READ_BYTES = 1 << 20


class Layout:
    """One layout directory. Everything here blocks. Raises OSError beside what is named."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def blob_path(self, digest: Digest) -> Path:
        """Where the blob is, or would be."""
        return self.path / "blobs" / "sha256" / digest.hex

    def find(self, tag: str | None) -> Descriptor:
        """The image of that name, or the only one. Raises NotFoundError, InvalidDocumentError."""
        try:
            entries = self._read_index()["manifests"]
        except FileNotFoundError:
            raise NotFoundError(f"{self.path}: no OCI image layout: there is no index.json") from None
        named = [entry for entry in entries if tag in (None, (entry.get("annotations") or {}).get(REF_NAME))]
        if len(named) != 1:
            wanted = "one image" if tag is None else f"one image named {tag}"
            more = "; name it: oci:DIR:TAG" if tag is None and named else ""
            raise NotFoundError(f"{self.path}: wanted {wanted}, got {len(named)}{more}")
        return Descriptor.from_json(named[0], f"{self.path}: index.json")

    def read_blob(self, digest: Digest, limit: int = MAX_MANIFEST_BYTES) -> bytes:
        """A small blob. Raises NotFoundError, VerificationError."""
        path = self.blob_path(digest)
        try:
            with path.open("rb") as file:
                data = file.read(limit + 1)
        except FileNotFoundError:
            raise NotFoundError(f"{self.path}: no blob {digest}") from None
        if len(data) > limit:
            raise InvalidDocumentError(f"{self.path}: blob {digest}: wanted at most {limit} bytes, got more")
        if (got := Digest.of(data)) != digest:
            raise VerificationError(f"{self.path}: blob {digest}", wanted=str(digest), got=str(got))
        return data

    def check_blob(self, descriptor: Descriptor, progress: Callable[[int], None]) -> Path:
        """Where a blob is, after all of it was hashed. Raises NotFoundError, VerificationError."""
        path = self.blob_path(descriptor.digest)
        if not path.is_file():
            raise NotFoundError(f"{self.path}: no blob {descriptor.digest}")
        got = hash_file(path, progress)
        if got != descriptor.digest:
            raise VerificationError(f"{self.path}: blob {path.name}", wanted=str(descriptor.digest), got=str(got))
        return path

    def create(self) -> list[Path]:
        """Make the directory a layout where it is none; what was made for it, outermost first."""
        made = [path for path in (self.path, *self.path.parents) if not path.exists()][::-1]
        blobs = self.path / "blobs" / "sha256"
        made += [path for path in (blobs.parent, blobs) if not path.exists()]
        blobs.mkdir(parents=True, exist_ok=True)
        marker = self.path / "oci-layout"
        if not marker.exists():
            marker.write_bytes(_LAYOUT)
            made.append(marker)
        return made

    def add_blob(self, digest: Digest, source: Path | bytes) -> bool:
        """Put a blob in, atomically; a file of this file system is moved. False: it was there."""
        path = self.blob_path(digest)
        if path.is_file():
            return False
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            if isinstance(source, bytes):
                fresh.write_bytes(source)
            else:
                shutil.move(source, fresh)
            os.chmod(fresh, 0o644)
            os.replace(fresh, path)
        finally:
            fresh.unlink(missing_ok=True)
        return True

    def publish(self, descriptor: Descriptor, tag: str | None) -> None:
        """Name an image; the one that had the name, or that had none, is no longer in the index."""
        with self._locked():
            try:
                index = self._read_index()
            except FileNotFoundError:
                index = {"schemaVersion": 2, "manifests": []}
            entry: dict[str, Any] = {
                "mediaType": descriptor.media_type,
                "digest": str(descriptor.digest),
                "size": descriptor.size,
            }
            if tag is not None:
                entry["annotations"] = {REF_NAME: tag}
            kept = [item for item in index["manifests"] if (item.get("annotations") or {}).get(REF_NAME) != tag]
            fresh = self.path / f".index.json.{os.getpid()}"
            try:
                fresh.write_text(json.dumps({**index, "manifests": [*kept, entry]}, separators=(",", ":")))
                os.replace(fresh, self.path / "index.json")
            finally:
                fresh.unlink(missing_ok=True)

    def _read_index(self) -> dict[str, Any]:
        what = f"{self.path}: index.json"
        index = load_json((self.path / "index.json").read_bytes(), what)
        manifests = index.get("manifests")
        if not isinstance(manifests, list) or not all(isinstance(entry, dict) for entry in manifests):
            raise InvalidDocumentError(f"{what}: wanted manifests")
        return index

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.path / "oci-layout").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def hash_file(path: Path, progress: Callable[[int], None] = lambda _: None) -> Digest:
    """The digest of a whole file; `progress` is called with the bytes read so far."""
    digest, done = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        while data := file.read(_READ_BYTES):
            digest.update(data)
            done += len(data)
            progress(done)
    return Digest(digest.hexdigest())
