"""Which files of a tree are opened, in order, by watching its file system with fanotify(7)."""

import ctypes
import errno
import os
import struct
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from ..errors import RegistryStorageError

_FAN_CLOEXEC, _FAN_NONBLOCK, _FAN_UNLIMITED_QUEUE = 0x1, 0x2, 0x10
_FAN_MARK_ADD, _FAN_MARK_FILESYSTEM = 0x1, 0x100
_FAN_ACCESS, _FAN_OPEN = 0x1, 0x20
_AT_FDCWD = -100
_METADATA = struct.Struct("<IBBHQii")  # event_len, vers, reserved, metadata_len, mask, fd, pid
_BUFFER_BYTES = 64 << 10
_libc = ctypes.CDLL(None, use_errno=True)


class WatchError(RegistryStorageError):
    """The tree cannot be watched."""


class Watch:
    """A context manager that watches the whole file system of a container's merged tree. Needs CAP_SYS_ADMIN.

    The container has mounts of its own, so events are told apart by inode number, and names come from a walk of
    the tree beforehand; what the container itself makes has no name and does not count.
    """

    def __init__(self, tree: Path) -> None:
        self._names: dict[int, str] = {}
        for folder, _, files in os.walk(tree):
            for file in files:
                path = os.path.join(folder, file)
                self._names.setdefault(os.lstat(path).st_ino, os.path.relpath(path, tree))
        flags = _FAN_CLOEXEC | _FAN_NONBLOCK | _FAN_UNLIMITED_QUEUE
        self._descriptor = _libc.fanotify_init(flags, os.O_RDONLY | os.O_CLOEXEC | os.O_LARGEFILE)
        if self._descriptor < 0:
            raise WatchError(f"fanotify: {os.strerror(ctypes.get_errno())}")
        mark = _libc.fanotify_mark(
            self._descriptor,
            _FAN_MARK_ADD | _FAN_MARK_FILESYSTEM,
            ctypes.c_uint64(_FAN_OPEN | _FAN_ACCESS),
            _AT_FDCWD,
            os.fsencode(tree),
        )
        if mark != 0:
            reason = os.strerror(ctypes.get_errno())
            os.close(self._descriptor)
            raise WatchError(f"fanotify: {tree}: {reason}")
        self._seen: dict[int, None] = {}
        self._stop = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._reader.join()
        os.close(self._descriptor)

    def paths(self) -> list[str]:
        """Regular files that were opened until now, in the order of the first time."""
        self._stop.set()
        self._reader.join()
        return [self._names[inode] for inode in self._seen if inode in self._names]

    def _read(self) -> None:
        while True:
            last = self._stop.is_set()
            try:
                events = os.read(self._descriptor, _BUFFER_BYTES)
            except OSError as failure:
                if failure.errno != errno.EAGAIN:
                    raise
                if last:
                    return
                self._stop.wait(0.02)
                continue
            offset = 0
            while offset < len(events):
                length, _, _, _, _, descriptor, _ = _METADATA.unpack_from(events, offset)
                offset += length
                if descriptor < 0:
                    continue
                self._seen.setdefault(os.fstat(descriptor).st_ino)
                os.close(descriptor)
