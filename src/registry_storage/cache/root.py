"""The root directory, owned by one daemon at a time."""

import fcntl
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from .. import logs
from ..digest import Digest
from ..errors import CacheError
from .signature import Signature

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, order=True)
class LayerKey:
    """Names a layer's tree: the blob its bytes come from and the TOC that describes them.

    Both, because one blob can be described by several TOCs (an external one is chosen by the image's author).
    """

    layer_digest: Digest
    toc_digest: Digest

    @property
    def is_plain(self) -> bool:
        """The tree was made from the blob's own tar: it has no TOC."""
        return self.layer_digest == self.toc_digest

    def __str__(self) -> str:
        return f"{self.layer_digest.hex}-{self.toc_digest.hex}"


DYING_SECONDS = 10.0


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_dead(owner: str) -> bool:
    """No process has this id, or one that has ended."""
    if not owner.isdecimal():
        return False
    try:
        state = Path(f"/proc/{int(owner)}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except OSError:
        return True
    return state in (b"Z", b"X")


class Root:
    """`<root>/`: ``lock``, ``ledger``, ``documents/``, ``layers/``, ``blobs/``; mode 0700.

    Raises CacheError when the directory cannot be made or another daemon holds it.
    """

    def __init__(self, path: Path, *, lock: int | None = None) -> None:
        """`lock`: the descriptor of its locked file, handed on by the process that holds it."""
        self.path = path
        self._make_directories()
        self._lock = self._take_lock() if lock is None else lock

    def _make_directories(self) -> None:
        try:
            for part in ("", "documents", "layers", "blobs"):
                (self.path / part).mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise CacheError(f"root directory {self.path}: {error.strerror}: {error.filename}") from None

    def _take_lock(self) -> int:
        try:
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise CacheError(f"root directory {self.path}: {error.strerror}: {error.filename}") from None
        deadline = time.monotonic() + DYING_SECONDS
        while not _locked(lock):
            owner = os.pread(lock, 32, 0).decode("ascii", "replace").strip()
            # A supervisor that was killed takes its worker, which holds the lock too, with it in a moment.
            if not _is_dead(owner) or time.monotonic() > deadline:
                os.close(lock)
                who = logs.printable(owner) or "unknown"
                raise CacheError(f"root directory {self.path}: in use by another daemon, process {who}")
            time.sleep(0.02)
        os.ftruncate(lock, 0)
        os.pwrite(lock, b"%d\n" % os.getpid(), 0)
        return lock

    @property
    def lock(self) -> int:
        """The descriptor of the locked file, to hand on."""
        return self._lock

    @property
    def ledger(self) -> Path:
        """The ledger's journal."""
        return self.path / "ledger"

    @property
    def layers(self) -> Path:
        """The directories of all layers."""
        return self.path / "layers"

    @property
    def blobs(self) -> Path:
        """Whole blobs."""
        return self.path / "blobs"

    @property
    def documents(self) -> Path:
        """Manifests and configs by digest."""
        return self.path / "documents"

    def is_in_use(self) -> bool:
        """Something was kept here before."""
        return any(self.layers.iterdir()) or any(self.documents.iterdir())

    def layer(self, key: LayerKey) -> Path:
        """The directory of one layer."""
        return self.layers / str(key)

    def blob(self, digest: Digest) -> Path:
        """A whole, verified blob."""
        return self.path / "blobs" / digest.hex

    def check(self) -> None:
        """Make again what somebody else removed. Raises CacheError when another daemon has the directory now."""
        self._make_directories()
        if (found := Signature.of(self.path / "lock")) and found.inode == os.fstat(self._lock).st_ino:
            return
        _log.warning("root directory %s: the lock was removed by somebody else: it is made anew", self.path)
        lock = self._take_lock()
        os.dup2(lock, self._lock, inheritable=False)
        os.close(lock)

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
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)  # a part of it may be what fills the disk
        raise
    finally:
        os.close(descriptor)
