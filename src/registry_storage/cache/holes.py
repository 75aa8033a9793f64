"""Gives parts of a file back to the file system (fallocate(2), which Python does not have)."""

import ctypes
import os

_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


def punch_hole(file: int, offset: int, size: int) -> None:
    """These bytes read as zeros from now on, and whole blocks of them are free. Raises OSError."""
    if size > 0 and _libc.fallocate(file, _PUNCH_HOLE | _KEEP_SIZE, offset, size) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
