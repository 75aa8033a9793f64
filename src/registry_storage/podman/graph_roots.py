"""Which layers of ours the graph roots of this host use, and where those graph roots are.

In a graph root, ``overlay/<id>/additionallayer`` holds the path of the store's layer that stands for ``<id>``, and
``overlay/<id>/diff`` is a symbolic link into it. Graph roots belong to users: nothing in them is believed but that.
"""

import base64
import binascii
import logging
import os
import pwd
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from ..digest import Digest
from ..errors import ConfigError, InvalidDigestError, InvalidReferenceError
from ..reference import Reference
from ..user import user_id
from .small_file import read_small
from .storage_conf import SYSTEM_FILES, USER_FILE, StorageConf

_log = logging.getLogger(__name__)

_SYSTEM_ROOT = Path("/var/lib/containers/storage")
_USER_ROOT = ".local/share/containers/storage"
_LOCKS = ("/overlay-layers/layers.lock", "/storage.lock", "/overlay-images/images.lock")
_MOST_LAYERS = 100_000
_MOST_DESCRIPTORS = 4096


class UsedLayer(NamedTuple):
    """A layer by the name that the store shows it under."""

    reference: str
    name_digest: Digest


def used_layers(graph_roots: Iterable[Path]) -> Counter[UsedLayer]:
    """How many layers of these graph roots are each layer of the store. What cannot be read is no use."""
    found: Counter[UsedLayer] = Counter()
    for graph_root in graph_roots:
        for directory in _directories(graph_root / "overlay"):
            target = _read(directory / "additionallayer")
            if target is None:
                try:
                    target = os.readlink(directory / "diff")
                except OSError:
                    continue
            layer = parse_target(target.strip())
            if layer is not None:
                found[layer] += 1
    return found


def parse_target(path: str) -> UsedLayer | None:
    """The layer that a path of the store leads to: ``…/<base64 of the reference>/<digest>[/diff]``."""
    parts = path.removesuffix("/").removesuffix("/diff").rsplit("/", 2)
    if len(parts) != 3:
        return None
    try:
        text = base64.b64decode(parts[1], validate=True).decode("ascii")
        return UsedLayer(str(Reference.parse(text)), Digest.parse(parts[2]))
    except (binascii.Error, UnicodeDecodeError, InvalidReferenceError, InvalidDigestError):
        return None


def configured_graph_roots() -> set[Path]:
    """What storage.conf(5) names for this user; for root, also every user's own."""
    chosen = os.environ.get("CONTAINERS_STORAGE_CONF")
    found = set(_named([Path(chosen)] if chosen else SYSTEM_FILES, _SYSTEM_ROOT))
    if user_id() != 0:
        found |= set(_of_user(pwd.getpwuid(user_id())))
        return found
    for user in pwd.getpwall():
        if user.pw_uid and Path(user.pw_dir, _USER_ROOT).is_dir():
            found |= set(_of_user(user))
    return found


def graph_roots_of(pid: int) -> frozenset[Path] | None:
    """The graph roots whose locks a process holds; None when its files cannot be seen.

    podman announces a use twice: before it has taken any lock, and once more while it makes the layer.
    """
    try:
        descriptors = os.listdir(f"/proc/{pid}/fd")[:_MOST_DESCRIPTORS]
    except OSError:
        return None
    found: set[Path] = set()
    for descriptor in descriptors:
        try:
            target = os.readlink(f"/proc/{pid}/fd/{descriptor}")
        except OSError:
            continue
        found |= {Path(target.removesuffix(lock)) for lock in _LOCKS if target.endswith(lock)}
    return frozenset(found)


def _named(files: Iterable[Path], default: Path) -> Iterator[Path]:
    """The graph roots of the first file that is there, else the default one."""
    for path in files:
        try:
            conf = StorageConf.read(path)
        except ConfigError as error:
            _log.warning("%s", error)
            continue
        if conf.exists:
            yield from (Path(name) for name in (conf.graph_root, conf.image_store) if name.startswith("/"))
            if conf.graph_root:
                return
            break
    yield default


def _of_user(user: pwd.struct_passwd) -> Iterator[Path]:
    home = Path(user.pw_dir)
    yield from _named([home / ".config" / USER_FILE], home / _USER_ROOT)
    for path in SYSTEM_FILES:
        try:
            pattern = StorageConf.read(path).rootless_storage_path
        except ConfigError:
            continue
        if pattern:
            words = {"$HOME": user.pw_dir, "$UID": str(user.pw_uid), "$USER": user.pw_name}
            for word, value in words.items():
                pattern = pattern.replace(word, value)
            yield Path(pattern)


def _directories(path: Path) -> Iterator[Path]:
    try:
        with os.scandir(path) as entries:
            for count, entry in enumerate(entries):
                if count >= _MOST_LAYERS:
                    _log.warning("%s: more than %d layers: the others are not looked at", path, _MOST_LAYERS)
                    return
                if entry.name != "l" and entry.is_dir(follow_symlinks=False):
                    yield path / entry.name
    except OSError:
        return


def _read(path: Path) -> str | None:
    """A small regular file; None for anything else, whatever its owner made of it."""
    try:
        return read_small(path)
    except OSError:
        return None
