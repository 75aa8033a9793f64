"""The administrator's word on registries: containers-registries.conf(5)."""

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..errors import ConfigError, RegistryError
from ..reference import Reference
from .hosts import Endpoint, Registries, endpoint

_MAX_FILE_BYTES = 4 << 20

T = TypeVar("T", str, bool)


@dataclass(frozen=True, slots=True)
class _Registry:
    """One ``[[registry]]`` table."""

    prefix: str
    location: str
    insecure: bool
    blocked: bool

    def match(self, name: str) -> int:
        """How many characters of `name` the prefix covers; -1: it does not apply."""
        if self.prefix.startswith("*."):
            start = name.find(self.prefix[1:])
            end = start + len(self.prefix) - 1
            if start < 0 or "/" in name[:start]:
                return -1
        else:
            end = len(self.prefix)
            if not name.startswith(self.prefix):
                return -1
        return end if name[end : end + 1] in ("", "/", ":", "@") else -1


class RegistriesConf(Registries):
    """Reads the files again when one of them changes."""

    def __init__(
        self, files: Sequence[Path] | None = None, directories: Sequence[Path] | None = None
    ) -> None:
        """`files`: the first that exists counts. `directories`: of each, every ``*.conf`` in order of names
        is added, later entries for a prefix replacing earlier ones. Default: see `default_places`."""
        default_files, default_directories = default_places()
        self._files = tuple(default_files if files is None else files)
        self._directories = tuple(default_directories if directories is None else directories)
        self._signature: object = None
        self._registries: tuple[_Registry, ...] = ()

    def endpoints(self, reference: Reference) -> Sequence[Endpoint]:
        """See Registries."""
        self._load()
        text = str(reference)
        found = max(
            (registry for registry in self._registries if registry.match(text) >= 0),
            key=lambda registry: len(registry.prefix),
            default=None,
        )
        if found is None:
            return super().endpoints(reference)
        if found.blocked:
            raise RegistryError(f"{reference}: registries.conf blocks {found.prefix}")
        name = reference.name
        if found.location and not found.prefix.startswith("*."):
            name = found.location + name[found.match(text) :]
        host, _, repository = name.partition("/")
        if not repository:
            raise ConfigError(f"registries.conf: {found.prefix}: {reference} would have no repository name")
        located = Reference(host, repository, reference.tag, reference.digest)
        return (endpoint(located, insecure=found.insecure),)

    def _load(self) -> None:
        paths = [next((path for path in self._files if path.is_file()), None)]
        for directory in self._directories:
            try:
                paths += sorted(path for path in directory.iterdir() if path.suffix == ".conf")
            except OSError:
                continue
        signature = tuple((path, _signature(path)) for path in paths if path is not None)
        if signature == self._signature:
            return
        registries: dict[str, _Registry] = {}
        for path, status in signature:
            if status is not None:
                for registry in _parse(path):
                    registries[registry.prefix] = registry
        self._registries = tuple(registries.values())
        self._signature = signature


def default_places(environ: Mapping[str, str] | None = None) -> tuple[list[Path], list[Path]]:
    """(files of which the first that exists counts, drop-in directories) for this user."""
    environ = os.environ if environ is None else environ
    home = Path(environ.get("HOME") or os.path.expanduser("~"))
    user = Path(environ.get("XDG_CONFIG_HOME") or home / ".config", "containers")
    system = Path("/etc/containers")
    files = [user / "registries.conf", system / "registries.conf"]
    if explicit := environ.get("CONTAINERS_REGISTRIES_CONF"):
        files = [Path(explicit)]
    return files, [system / "registries.conf.d", user / "registries.conf.d"]


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _parse(path: Path) -> list[_Registry]:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES)
        document = tomllib.loads(data.decode())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    registries = [_registry(table, path) for table in _tables(document.get("registry", []), path)]
    # Version 1 of the format, where lists of hosts stand.
    old = document.get("registries")
    if isinstance(old, dict):
        for key in ("insecure", "block"):
            table = old.get(key)
            hosts = table.get("registries", []) if isinstance(table, dict) else []
            registries += [
                _Registry(host, host, insecure=key == "insecure", blocked=key == "block")
                for host in hosts
                if isinstance(host, str) and host
            ]
    return registries


def _registry(table: Mapping[str, Any], path: Path) -> _Registry:
    location, prefix = (_typed(table, key, "", path).rstrip("/") for key in ("location", "prefix"))
    if not location and not prefix.startswith("*."):
        raise ConfigError(f"{path}: registry {prefix!r}: wanted a location, got none")
    insecure, blocked = (_typed(table, key, False, path) for key in ("insecure", "blocked"))
    return _Registry(prefix or location, location, insecure, blocked)


def _tables(value: object, path: Path) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(table, dict) for table in value):
        raise ConfigError(f"{path}: registry: wanted [[registry]] tables")
    return value


def _typed(table: Mapping[str, Any], key: str, default: T, path: Path) -> T:
    value = table.get(key, default)
    if not isinstance(value, type(default)):
        raise ConfigError(f"{path}: registry: {key}: wanted {type(default).__name__}, got {value!r:.100}")
    return value
