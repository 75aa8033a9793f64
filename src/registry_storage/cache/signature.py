"""Tells whether a file is still as it was left here."""

import os
from pathlib import Path
from typing import NamedTuple, Self


class Signature(NamedTuple):
    """Changes whenever somebody writes, truncates, removes or replaces the file (but for the clock's last tick)."""

    inode: int
    size: int
    """Bytes."""
    mtime_ns: int

    @classmethod
    def of(cls, file: Path | int) -> Self | None:
        """Of a path, or of an open file; None when it is not there."""
        try:
            found = os.stat(file)
        except OSError:
            return None
        return cls.of_status(found)

    @classmethod
    def of_status(cls, found: os.stat_result) -> Self:
        """Of a file that was looked at."""
        return cls(found.st_ino, found.st_size, found.st_mtime_ns)
