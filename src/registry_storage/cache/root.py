"""The root directory, owned by one daemon at a time."""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from ..digest import Digest
from ..errors import CacheError


@dataclass(frozen=True, slots=True, order=True)
class LayerKey:
    """Names a layer's tree: the blob its bytes come from and the TOC that describes them.

    Both, because one blob can be described by several TOCs (an external one is chosen by the image's author).
    """

    layer_digest: Digest
    toc_digest: Digest

    def __str__(self) -> str:
        return f"{self.layer_digest.hex}-{self.toc_digest.hex}"


class Root:
    """`<root>/`: ``lock``, ``state.db``, ``documents/``, ``layers/``, ``blobs/``; mode 0700.

    Raises CacheError when the directory cannot be made or another daemon holds it.
    """

    def __init__(self, path: Path, *, lock: int | None = None) -> None:
        """`lock`: the descriptor of its locked file, handed on by the process that holds it."""
        self.path = path
        if lock is not None:
            self._lock = lock
            return
        try:
            for part in ("", "documents", "layers", "blobs"):
                (path / part).mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise CacheError(f"root directory {path}: {error.strerror}: {error.filename}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.pread(self._lock, 32, 0).decode("ascii", "replace").strip()
            os.close(self._lock)
            raise CacheError(f"root directory {path}: in use by another daemon, process {owner or 'unknown'}") from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, b"%d\n" % os.getpid(), 0)

    @property
    def lock(self) -> int:
        """The descriptor of the locked file, to hand on."""
        return self._lock

    @property
    def state_file(self) -> Path:
        """The ledger's database."""
        return self.path / "state.db"

    @property
    def documents(self) -> Path:
        """Manifests and configs by digest."""
        return self.path / "documents"

    def layer(self, key: LayerKey) -> Path:
        """The directory of one layer."""
        return self.path / "layers" / str(key)

    def blob(self, digest: Digest) -> Path:
        """A whole, verified blob."""
        return self.path / "blobs" / digest.hex

    def close(self) -> None:
        """Let another daemon have it."""
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def write_atomically(path: Path, data: bytes | bytearray | memoryview) -> None:
    """Replace `path` by `data`: after a crash there is the old content or the new one, never a part. Mode 0600."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
