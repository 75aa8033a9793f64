"""A file of the root as memory that nobody can change behind our back, and that the kernel may take back."""

import mmap
import os
from pathlib import Path


def map_private_copy(descriptor: int, directory: Path) -> mmap.mmap:
    """The bytes of an open file, from an unlinked copy in `directory`.

    Mapped itself, a file that somebody truncates would end the process (SIGBUS), and one that is overwritten would
    change what was verified; in plain memory it would stay resident for ever. Where no such copy can be made (a full
    disk, a file system without O_TMPFILE) plain memory has to do. Raises ValueError for an empty file, OSError.
    """
    size = os.fstat(descriptor).st_size
    if size == 0:
        raise ValueError("the file is empty")
    try:
        copy = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            _copy(descriptor, copy, size)
            return mmap.mmap(copy, size, prot=mmap.PROT_READ)
        finally:
            os.close(copy)
    except OSError:
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        os.preadv(descriptor, [memory], 0)
        return memory


def _copy(source: int, target: int, size: int) -> None:
    """All of it; what was cut off meanwhile is zeros, which no checksum takes for right."""
    os.posix_fallocate(target, 0, size)  # a full disk is an error here, not a signal later
    done = 0
    while done < size and (step := os.copy_file_range(source, target, size - done, done, done)):
        done += step
