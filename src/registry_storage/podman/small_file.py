"""Small files of which anybody may be the owner: whatever stands at the path, reading it ends."""

import errno
import os
import stat
from pathlib import Path

LARGEST = 1 << 20
"""Bytes; what comes after them is not read."""


def read_small(path: Path) -> str:
    """The text of a regular file, with U+FFFD for what is no UTF-8. Raises OSError, also for anything else."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return os.read(descriptor, LARGEST).decode("utf-8", "replace")
    finally:
        os.close(descriptor)
