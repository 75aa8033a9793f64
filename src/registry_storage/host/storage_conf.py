"""The configuration of podman's and CRI-O's storage: containers-storage.conf(5)."""

import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError

SYSTEM = Path("/etc/containers/storage.conf")
VENDOR = Path("/usr/share/containers/storage.conf")
_OPTIONS = re.compile(r"^[ \t]*\[storage\.options\][ \t]*(#.*)?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class StorageConf:
    """What one file says, as far as it concerns us."""

    path: Path
    """Where it is, or would be."""
    exists: bool
    driver: str
    stores: tuple[str, ...]
    """The additional layer stores, as they are written: ``/path:ref``."""
    graph_root: str

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, *, user: int | None = None) -> "StorageConf":
        """The file that counts for `user` (default: this one). Raises ConfigError."""
        path = place(environ, user=user)
        try:
            document = tomllib.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            return cls(path, False, "", (), "")
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not TOML: {error}") from None
        storage = _table(document, "storage", path)
        options = _table(storage, "options", path)
        stores = options.get("additionallayerstores", [])
        if not isinstance(stores, list) or not all(isinstance(one, str) for one in stores):
            raise ConfigError(f"{path}: additionallayerstores: wanted a list of strings, got {stores!r:.100}")
        driver, graph_root = storage.get("driver", ""), storage.get("graphroot", "")
        return cls(path, True, str(driver), tuple(stores), str(graph_root))


def place(environ: Mapping[str, str] | None = None, *, user: int | None = None) -> Path:
    """Which file counts: the first that is there."""
    environ = os.environ if environ is None else environ
    if explicit := environ.get("CONTAINERS_STORAGE_CONF"):
        return Path(explicit)
    if (os.geteuid() if user is None else user) != 0:
        home = Path(environ.get("HOME") or os.path.expanduser("~"))
        own = Path(environ.get("XDG_CONFIG_HOME") or home / ".config", "containers/storage.conf")
        if own.exists() or not (SYSTEM.exists() or VENDOR.exists()):
            return own
    return VENDOR if VENDOR.exists() and not SYSTEM.exists() else SYSTEM


def entry(mountpoint: Path) -> str:
    """The store as podman wants it: the directories below it are named by references."""
    return f"{mountpoint}:ref"


def new_tables(environ: Mapping[str, str] | None = None, *, user: int | None = None) -> dict[str, str]:
    """``[storage]`` as podman has it when there is no file; it does not work with a file that lacks one of them."""
    environ = os.environ if environ is None else environ
    user = os.geteuid() if user is None else user
    if user == 0:
        return {"driver": "overlay", "runroot": "/run/containers/storage", "graphroot": "/var/lib/containers/storage"}
    runtime = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{user}"
    home = Path(environ.get("HOME") or os.path.expanduser("~"))
    data = environ.get("XDG_DATA_HOME") or str(home / ".local/share")
    return {"driver": "overlay", "runroot": f"{runtime}/containers", "graphroot": f"{data}/containers/storage"}


def with_store(text: str, mountpoint: Path, tables: Mapping[str, str] | None = None) -> str:
    """`text` with the store in it and nothing else changed. Raises ConfigError where that cannot be done safely.

    What is missing is added: the text may be empty. `tables`: what stands in ``[storage]`` then.
    """
    tables = new_tables() if tables is None else tables
    line = f"additionallayerstores = [{json.dumps(entry(mountpoint))}]"
    before = tomllib.loads(text)
    options = before.get("storage", {}).get("options", {})
    if "additionallayerstores" in options:
        if entry(mountpoint) in options["additionallayerstores"]:
            return text
        raise ConfigError(f"it has other stores: add {json.dumps(entry(mountpoint))} to its additionallayerstores")
    if found := _OPTIONS.search(text):
        changed = f"{text[: found.end()]}\n{line}\n{text[found.end() :].removeprefix(chr(10))}"
    else:
        new = "".join(f"{key} = {json.dumps(value)}\n" for key, value in tables.items())
        start = "" if "storage" in before else f"[storage]\n{new}\n"
        changed = f"{text.rstrip()}\n\n{start}[storage.options]\n{line}\n".lstrip()
    try:
        after = tomllib.loads(changed)
        del after["storage"]["options"]["additionallayerstores"]
    except (tomllib.TOMLDecodeError, KeyError):
        after = {}
    wanted = before if "storage" in before else {**before, "storage": dict(tables)}
    wanted["storage"].setdefault("options", {})
    if after != wanted:
        raise ConfigError(f"its tables are written in an unusual way: add {line} to [storage.options]")
    return changed


def _table(document: Mapping[str, Any], key: str, path: Path) -> Mapping[str, Any]:
    table = document.get(key, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: {key}: wanted a table, got {type(table).__name__}")
    return table
