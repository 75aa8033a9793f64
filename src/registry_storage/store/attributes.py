"""What stat(2) says of a node, and for how long the kernel may believe it."""

import os
import stat
from dataclasses import dataclass

from ..toc.entry import Attributes

LAYER_SECONDS = 86400.0
"""Layers never change."""
STORE_SECONDS = 60.0
"""The store's own directories come and go with their images."""
DIRECTORY_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Stat:
    """One node; times in nanoseconds, the timeout in seconds."""

    node: int
    mode: int
    nlink: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    rdev: int
    timeout: float


def layer_stat(node: int, attributes: Attributes) -> Stat:
    """An entry of a layer as its TOC describes it."""
    return Stat(
        node,
        attributes.mode,
        attributes.nlink,
        attributes.uid,
        attributes.gid,
        DIRECTORY_BYTES if stat.S_ISDIR(attributes.mode) else attributes.size,
        attributes.mtime_ns,
        attributes.rdev,
        LAYER_SECONDS,
    )


def directory_stat(node: int, changed_ns: int) -> Stat:
    """A directory of the store's own tree, asked for anew each time: by its time the kernel sees that it changed.

    Its owner may remove what is in it, which is how podman gives up a use.
    """
    return Stat(node, stat.S_IFDIR | 0o755, 2, os.geteuid(), os.getegid(), DIRECTORY_BYTES, changed_ns, 0, 0.0)


def file_stat(node: int, size: int) -> Stat:
    """A file of the store's own tree that never changes."""
    return Stat(node, stat.S_IFREG | 0o444, 1, os.geteuid(), os.getegid(), size, 0, 0, STORE_SECONDS)


def document_stat(node: int, size: int, changed_ns: int) -> Stat:
    """A file of the store's own tree that may be another tomorrow."""
    return Stat(node, stat.S_IFREG | 0o444, 1, os.geteuid(), os.getegid(), size, changed_ns, 0, 0.0)


def symlink_stat(node: int, target: bytes) -> Stat:
    """A symbolic link of the store's own tree."""
    return Stat(node, stat.S_IFLNK | 0o777, 1, os.geteuid(), os.getegid(), len(target), 0, 0, STORE_SECONDS)
