"""Two directory trees, compared in everything that a container can see."""

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

_READ_SIZE = 1 << 20


@dataclass(frozen=True, slots=True)
class Node:
    """One name of a tree."""

    type: str
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int | None
    """None for directories, whose size is the file system's own affair."""
    rdev: int
    nlink: int
    same_file_as: str
    """The first name, in sorted order, of the same inode."""
    target: str | None
    xattrs: tuple[tuple[str, bytes], ...]
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Difference:
    """One field of one name that is not the same in both; `name` "." is the top."""

    name: str
    field: str
    """A field of Node, or "name" when one tree does not have it."""
    expected: object
    seen: object


@dataclass(frozen=True, slots=True)
class Allowance:
    """A difference that a format cannot avoid, and why."""

    reason: str
    applies: Callable[[Difference], bool]


def walk(top: Path) -> dict[str, Node]:
    """Every name below `top`, which is ".", with everything that is to be compared. Reads every file."""
    with contextlib.chdir(top):  # or every path would begin with look-ups of the store's own directories
        return _walk()


def _walk() -> dict[str, Node]:
    first_names: dict[tuple[int, int], str] = {}
    digests: dict[tuple[int, int], str] = {}
    nodes: dict[str, Node] = {}
    for path in sorted(_names()):
        status = os.lstat(path)
        inode = (status.st_dev, status.st_ino)
        first_names.setdefault(inode, path)
        if stat.S_ISREG(status.st_mode) and inode not in digests:
            digests[inode] = _sha256(path)
        nodes[path] = Node(
            type=_TYPES[stat.S_IFMT(status.st_mode)],
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
            mtime_ns=status.st_mtime_ns,
            size=None if stat.S_ISDIR(status.st_mode) else status.st_size,
            rdev=status.st_rdev,
            nlink=status.st_nlink,
            same_file_as=first_names[inode],
            target=os.readlink(path) if stat.S_ISLNK(status.st_mode) else None,
            xattrs=tuple(
                (key, os.getxattr(path, key, follow_symlinks=False))
                for key in sorted(os.listxattr(path, follow_symlinks=False))
            ),
            sha256=digests.get(inode),
        )
    return nodes


def differences(expected: dict[str, Node], seen: dict[str, Node]) -> list[Difference]:
    """Everything in which two trees differ, sorted by name."""
    found: list[Difference] = []
    for name in sorted(expected.keys() | seen.keys()):
        one, other = expected.get(name), seen.get(name)
        if one is None or other is None:
            found.append(Difference(name, "name", one, other))
            continue
        found += [
            Difference(name, field.name, getattr(one, field.name), getattr(other, field.name))
            for field in fields(Node)
            if getattr(one, field.name) != getattr(other, field.name)
        ]
    return found


def not_allowed(found: list[Difference], allowances: list[Allowance]) -> list[Difference]:
    """The differences that no allowance explains."""
    return [one for one in found if not any(allowance.applies(one) for allowance in allowances)]


_TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
}


def _names() -> list[str]:
    names = ["."]
    for folder, directories, files in os.walk("."):
        names += [os.path.normpath(os.path.join(folder, name)) for name in directories + files]
    return names


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while data := file.read(_READ_SIZE):
            digest.update(data)
    return digest.hexdigest()
