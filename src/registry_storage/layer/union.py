"""Paths of an image, across its layers: enough to find a program; whiteouts are not looked at."""

import posixpath
import stat
import sys
from collections.abc import Sequence
from typing import NamedTuple

from .layer import Layer

MAX_SYMLINKS = 16
MAX_CHUNKS = 4096
"""Of one file, that are looked at."""


class Place(NamedTuple):
    """A regular file."""

    layer: Layer
    inode: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.layer.index.attributes(self.inode).size

    @property
    def compressed_bytes(self) -> int:
        """What fetching all of it takes; infinite for a file of very many chunks."""
        index = self.layer.index
        numbers = range(*index.chunk_range(self.inode, 0, self.size))
        if len(numbers) > MAX_CHUNKS:
            return sys.maxsize
        return sum(chunk.blob_size for chunk in map(index.chunk, numbers) if not chunk.is_hole)

    @property
    def path(self) -> bytes:
        """Absolute."""
        return b"/" + self.layer.index.path(self.inode)


def find(layers: Sequence[Layer], path: bytes) -> Place | None:
    """The regular file at an absolute path, symbolic links followed; of several the first layer's."""
    for _ in range(MAX_SYMLINKS):
        parts = [part for part in posixpath.normpath(path).split(b"/") if part]
        target: bytes | None = None
        for layer in layers:
            found = _walk(layer, parts)
            if isinstance(found, int):
                return Place(layer, found)
            if found is not None:
                target = found
                break
        if target is None:
            return None
        path = target
    return None


def _walk(layer: Layer, parts: Sequence[bytes]) -> int | bytes | None:
    """The inode of a regular file, or the way that the first symbolic link leads to, or None."""
    inode, index = 0, layer.index
    for position, part in enumerate(parts):
        found = index.lookup(inode, part)
        if found is None:
            return None
        inode, mode = found, index.mode(found)
        if stat.S_ISLNK(mode):
            # An absolute target leaves nothing of what stands before it.
            return posixpath.join(b"/", *parts[:position], index.read_link(inode), *parts[position + 1 :])
        last = position == len(parts) - 1
        if last != stat.S_ISREG(mode) or not (last or stat.S_ISDIR(mode)):
            return None
    return inode if parts else None
