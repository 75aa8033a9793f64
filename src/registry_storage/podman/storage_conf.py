"""What the configuration of podman's and CRI-O's storage says: containers-storage.conf(5)."""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ..errors import ConfigError
from ..user import user_id
from .small_file import read_small

SYSTEM_FILES = (Path("/etc/containers/storage.conf"), Path("/usr/share/containers/storage.conf"))
"""The first that is there counts."""
USER_FILE = Path("containers/storage.conf")
"""In a user's configuration directory."""
LAYER_STORES, IMAGE_STORES = "additionallayerstores", "additionalimagestores"
"""The keys of ``[storage.options]`` that concern us."""


@dataclass(frozen=True, slots=True)
class StorageConf:
    """What one file says, as far as it concerns us; an empty string where it says nothing."""

    path: Path
    """Where it is, or would be."""
    exists: bool = False
    driver: str = ""
    layer_stores: tuple[str, ...] = ()
    """The additional layer stores, as they are written: ``/path:ref``."""
    image_stores: tuple[str, ...] = ()
    """The additional image stores."""
    graph_root: str = ""
    image_store: str = ""
    """Where images are kept that are not in the graph root."""
    rootless_storage_path: str = ""

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, *, user: int | None = None) -> Self:
        """The file that counts for `user` (default: this one). Raises ConfigError."""
        return cls.read(place(environ, user=user))

    @classmethod
    def read(cls, path: Path) -> Self:
        """The file at `path`; one that is missing says nothing. Raises ConfigError."""
        try:
            document = tomllib.loads(read_small(path))
        except FileNotFoundError:
            return cls(path)
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{path}: not TOML: {error}") from None
        storage = _table(document, "storage", path)
        options = _table(storage, "options", path)
        return cls(
            path,
            exists=True,
            driver=_text(storage, "driver", path),
            layer_stores=_texts(options, LAYER_STORES, path),
            image_stores=_texts(options, IMAGE_STORES, path),
            graph_root=_text(storage, "graphroot", path),
            image_store=_text(storage, "imagestore", path),
            rootless_storage_path=_text(storage, "rootless_storage_path", path),
        )


def place(environ: Mapping[str, str] | None = None, *, user: int | None = None) -> Path:
    """Which file counts: the first that is there."""
    environ = os.environ if environ is None else environ
    if explicit := environ.get("CONTAINERS_STORAGE_CONF"):
        return Path(explicit)
    system, vendor = SYSTEM_FILES
    if (user_id() if user is None else user) != 0:
        home = Path(environ.get("HOME") or os.path.expanduser("~"))
        own = Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / USER_FILE
        if own.exists() or not (system.exists() or vendor.exists()):
            return own
    return vendor if vendor.exists() and not system.exists() else system


def _table(document: Mapping[str, Any], key: str, path: Path) -> Mapping[str, Any]:
    table = document.get(key, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: {key}: wanted a table, got {type(table).__name__}")
    return table


def _text(table: Mapping[str, Any], key: str, path: Path) -> str:
    value = table.get(key, "")
    if not isinstance(value, str):
        raise ConfigError(f"{path}: {key}: wanted a string, got {value!r:.100}")
    return value


def _texts(table: Mapping[str, Any], key: str, path: Path) -> tuple[str, ...]:
    values = table.get(key, [])
    if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
        raise ConfigError(f"{path}: {key}: wanted a list of strings, got {values!r:.100}")
    return tuple(values)
