"""The directory where layers are while they are converted: gone afterwards, or found again after a crash."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..descriptor import Descriptor
from ..digest import Digest
from ..errors import CacheError
from .layout import hash_file

_KEPT_SECONDS = 86400.0


def work_parent() -> Path:
    """This user's directory of work directories: below TMPDIR, else in /var/tmp, which may hold large files.

    Raises CacheError when it belongs to another.
    """
    parent = Path(os.environ.get("TMPDIR") or "/var/tmp", f"registry-storagectl-{os.getuid()}")  # noqa: S108
    parent.mkdir(mode=0o700, exist_ok=True)
    status = parent.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o022:
        raise CacheError(f"{parent}: wanted a directory that only this user can write to")
    return parent


class WorkDirectory:
    """One conversion's directory; see `opened`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def file(self, name: str) -> Path:
        """A path in it."""
        return self.path / name

    def save(self, key: str, record: dict[str, Any]) -> None:
        """Remember what became of a layer; its blob is complete on disk by now."""
        fresh = self.file(f"{key}.json.new")
        fresh.write_text(json.dumps(record))
        os.replace(fresh, self.file(f"{key}.json"))

    def load(self, key: str) -> dict[str, Any] | None:
        """What `save` remembered."""
        try:
            record = json.loads(self.file(f"{key}.json").read_text())
        except (OSError, ValueError):
            return None
        return record if isinstance(record, dict) else None

    def holds(self, name: str, descriptor: Descriptor) -> bool:
        """Whether a file is there and has that digest."""
        path = self.file(name)
        try:
            return path.stat().st_size == descriptor.size and hash_file(path) == descriptor.digest
        except OSError:
            return False


@contextlib.contextmanager
def opened(purpose: str, parent: Path | None = None) -> Iterator[WorkDirectory]:
    """The directory for `purpose`, with what a crashed process of the same purpose left in it.

    It is removed at the end, whatever happened. Directories that others left long ago are removed too.
    """
    parent = work_parent() if parent is None else parent
    _remove_old(parent)
    name = hashlib.sha256(purpose.encode()).hexdigest()[:24]
    number = 0
    while True:
        path = parent / (f"{name}-{number}" if number else name)
        lock = _lock(path)
        if lock is not None:
            break
        number += 1  # somebody does the same at the same time
    try:
        yield WorkDirectory(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)
        with contextlib.suppress(OSError):
            parent.rmdir()


def _lock(path: Path) -> int | None:
    while True:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            path.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except FileNotFoundError:
            pass
        os.close(descriptor)  # its last owner has just removed it


def _remove_old(parent: Path) -> None:
    before = time.time() - _KEPT_SECONDS
    for path in list(parent.iterdir()) if parent.is_dir() else []:
        try:
            if path.stat().st_mtime >= before:
                continue
        except OSError:
            continue
        descriptor = _lock(path)
        if descriptor is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(descriptor)


def descriptor_record(descriptor: Descriptor) -> dict[str, Any]:
    """As it stands in a manifest."""
    return {
        "mediaType": descriptor.media_type,
        "digest": str(descriptor.digest),
        "size": descriptor.size,
        "annotations": dict(descriptor.annotations),
    }


def parse_digest(text: str | None) -> Digest | None:
    """The opposite of ``str``, for what may be missing."""
    return None if text is None else Digest.parse(text)
