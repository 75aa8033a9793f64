"""What stat(2) shows of one inode of a layer."""

from typing import NamedTuple


class Attributes(NamedTuple):
    """A tuple rather than a dataclass: one is made for every getattr and lookup."""

    mode: int
    """Type bits and permissions, ``st_mode``."""
    uid: int
    gid: int
    nlink: int
    """Names in this layer; a directory has 2 and one for each subdirectory."""
    size: int
    """Bytes; a symbolic link's target's length, 4096 for a directory."""
    mtime_ns: int
    """Nanoseconds since 1970, never negative."""
    rdev: int
    """``st_rdev`` as os.makedev makes it; 0 unless a device."""
