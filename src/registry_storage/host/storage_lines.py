"""The lines that tell podman of our stores, put into a storage.conf(5) that may have others."""

import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError
from ..podman.storage_conf import IMAGE_STORES, LAYER_STORES
from ..user import user_id

_OPTIONS = re.compile(r"^[ \t]*\[storage\.options\][ \t]*(#.*)?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Stores:
    """What podman is to be told of; None: not of that."""

    layers: Path | None
    """Where the daemon shows layers."""
    images: Path | None
    """The graph root that it writes."""

    def entries(self) -> dict[str, str]:
        """What must be in which list of ``[storage.options]``."""
        found = {LAYER_STORES: None if self.layers is None else layer_entry(self.layers), IMAGE_STORES: self.images}
        return {key: str(value) for key, value in found.items() if value is not None}

    def lines(self) -> list[str]:
        """The same, as lines of a file."""
        return [line(key, value) for key, value in self.entries().items()]


def layer_entry(mountpoint: Path) -> str:
    """A layer store as podman wants it: the directories below it are named by references."""
    return f"{mountpoint}:ref"


def line(key: str, entry: str) -> str:
    """A list with one entry."""
    return f"{key} = [{json.dumps(entry)}]"


def new_tables(environ: Mapping[str, str] | None = None, *, user: int | None = None) -> dict[str, str]:
    """``[storage]`` as podman has it when there is no file; it does not work with a file that lacks one of them."""
    environ = os.environ if environ is None else environ
    user = user_id() if user is None else user
    if user == 0:
        return {"driver": "overlay", "runroot": "/run/containers/storage", "graphroot": "/var/lib/containers/storage"}
    runtime = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{user}"
    home = Path(environ.get("HOME") or os.path.expanduser("~"))
    data = environ.get("XDG_DATA_HOME") or str(home / ".local/share")
    return {"driver": "overlay", "runroot": f"{runtime}/containers", "graphroot": f"{data}/containers/storage"}


def with_stores(text: str, stores: Stores, tables: Mapping[str, str] | None = None) -> str:
    """`text` with the stores in it and nothing else changed. Raises ConfigError where that cannot be done safely.

    What is missing is added: the text may be empty. `tables`: what stands in ``[storage]`` then.
    """
    tables = new_tables() if tables is None else tables
    try:
        before = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"it is not TOML: {error}") from None
    options = before.get("storage", {}).get("options", {})
    missing = {key: value for key, value in stores.entries().items() if value not in options.get(key, ())}
    if others := [f"add {json.dumps(value)} to its {key}" for key, value in missing.items() if key in options]:
        raise ConfigError(f"it has other stores: {' and '.join(others)}")
    if not missing:
        return text
    lines = "".join(f"{line(key, value)}\n" for key, value in missing.items())
    if found := _OPTIONS.search(text):
        changed = f"{text[: found.end()]}\n{lines}{text[found.end() :].removeprefix(chr(10))}"
    else:
        new = "".join(f"{key} = {json.dumps(value)}\n" for key, value in tables.items())
        start = "" if "storage" in before else f"[storage]\n{new}\n"
        changed = f"{text.rstrip()}\n\n{start}[storage.options]\n{lines}".lstrip()
    try:
        after = tomllib.loads(changed)
        for key in missing:
            del after["storage"]["options"][key]
    except (tomllib.TOMLDecodeError, KeyError):
        after = {}
    wanted = before if "storage" in before else {**before, "storage": dict(tables)}
    wanted["storage"].setdefault("options", {})
    if after != wanted:
        told = " and ".join(line(key, value) for key, value in missing.items())
        raise ConfigError(f"its tables are written in an unusual way: add {told} to [storage.options]")
    return changed
