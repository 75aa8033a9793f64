"""Files that podman reads while we write them: whole or not at all, also after a power cut."""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from ..errors import CacheError

STAMP_BYTES = 64
"""What a lock file holds; readers read their JSON again when it has changed (containers/storage, lockfile)."""
LOCK_SECONDS = 30.0
_POLL_SECONDS = 0.01
NEW = ".new"
"""How the names of unfinished files and directories end; no name that podman looks for does."""


def make_directory(path: Path) -> None:
    """A directory that everybody may read, whatever the umask."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o755)


def write_durably(path: Path, data: bytes) -> None:
    """Replace `path`, mode 0644; the bytes are on the disk before the name is, and so is the name afterwards."""
    temporary = path.with_name(f".{path.name}{NEW}")
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.fchmod(file, 0o644)
        view = memoryview(data)
        while view:
            view = view[os.write(file, view) :]
        os.fsync(file)
    finally:
        os.close(file)
    temporary.replace(path)
    sync_directory(path.parent)


def link_durably(path: Path, target: str) -> None:
    """Replace the symbolic link `path`."""
    temporary = path.with_name(f".{path.name}{NEW}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """The names in `path` are on the disk."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def remove_tree(path: Path) -> None:
    """Remove a directory or a file that may be there; never follows a link."""
    if not path.is_symlink() and path.is_dir():  # a link may lead into a mount that nobody serves
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def make_lock(path: Path) -> None:
    """A lock file with a stamp: a shorter one is not what readers expect."""
    if not path.is_file() or path.stat().st_size != STAMP_BYTES:
        write_durably(path, os.urandom(STAMP_BYTES))


@contextlib.contextmanager
def stamped(path: Path) -> Iterator[None]:
    """Hold the write lock of `path`; its stamp is fresh before anything is changed below it.

    So a reader that comes after a crash in between reads once too often, never once too little. Raises CacheError
    when a reader does not let go of it. One thread at a time: the lock is the process's.
    """
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        _lock(file, path)
        os.pwrite(file, os.urandom(STAMP_BYTES), 0)
        os.fdatasync(file)
        yield
    finally:
        os.close(file)


def _lock(file: int, path: Path) -> None:
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            if time.monotonic() > deadline:
                raise CacheError(f"{path}: a reader has held the lock for {LOCK_SECONDS:g} s") from None
            time.sleep(_POLL_SECONDS)
        else:
            return
