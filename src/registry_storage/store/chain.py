"""The merged file system from the bottom layer up to one layer, for people who debug.

A node's serial is the sum of the entry counts of the layers below plus the entry's index in its own layer; a
directory is named by its topmost layer. So serials say where they belong without any table.
"""

import bisect
import stat
from collections.abc import Sequence
from functools import lru_cache

from ..layer.layer import Layer

OPAQUE = b"trusted.overlay.opaque"


def is_whiteout(layer: Layer, inode: int) -> bool:
    """The entry hides what the layers below have there (a character device 0/0)."""
    attributes = layer.index.attributes(inode)
    return stat.S_ISCHR(attributes.mode) and attributes.rdev == 0


class Chain:
    """Layers from the bottom up, seen as one tree."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = tuple(layers)
        self._starts = [0]
        for layer in layers[:-1]:
            self._starts.append(self._starts[-1] + layer.index.inode_count)
        self._stack = lru_cache(maxsize=1024)(self._find_stack)

    @property
    def root(self) -> int:
        """The serial of the root directory."""
        return self._starts[-1]

    def locate(self, serial: int) -> tuple[Layer, int]:
        """The layer and the entry's index in it."""
        position = bisect.bisect_right(self._starts, serial) - 1
        return self._layers[position], serial - self._starts[position]

    def lookup(self, serial: int, name: bytes) -> int | None:
        """The serial of `name` in a directory."""
        for position, directory in self._stack(serial):
            layer = self._layers[position]
            inode = layer.index.lookup(directory, name)
            if inode is not None:
                return None if is_whiteout(layer, inode) else self._starts[position] + inode
        return None

    def children(self, serial: int) -> list[tuple[bytes, int]]:
        """Names and serials of a directory, sorted by name."""
        seen: dict[bytes, int | None] = {}
        for position, directory in self._stack(serial):
            layer = self._layers[position]
            for name, inode in layer.index.children(directory, 0, layer.index.child_count(directory)):
                if name not in seen:
                    seen[name] = None if is_whiteout(layer, inode) else self._starts[position] + inode
        return sorted((name, found) for name, found in seen.items() if found is not None)

    def _find_stack(self, serial: int) -> tuple[tuple[int, int], ...]:
        """The directories that make up this one, topmost first: (position of the layer, index of the entry)."""
        position = bisect.bisect_right(self._starts, serial) - 1
        inode = serial - self._starts[position]
        index = self._layers[position].index
        names = [part for part in index.path(inode).split(b"/") if part]
        stack: list[tuple[int, int]] = []
        for below in range(position, -1, -1):
            layer = self._layers[below]
            found, opaque = 0, layer.index.xattr(0, OPAQUE) is not None
            for name in names:
                child = layer.index.lookup(found, name)
                if child is None:
                    found = -1
                    break
                found = child
                if not stat.S_ISDIR(layer.index.mode(child)):
                    return tuple(stack)  # a whiteout or a file: nothing below is seen through it
                opaque = opaque or layer.index.xattr(child, OPAQUE) is not None
            if found >= 0:
                stack.append((below, found))
            if opaque:
                break
        return tuple(stack)
