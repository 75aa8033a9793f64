"""One file of containers-registries.conf(5), parsed and checked as podman does it."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..errors import ConfigError

_MAX_FILE_BYTES = 4 << 20
_PULLS = ("", "all", "digest-only", "tag-only")

T = TypeVar("T", str, bool)


@dataclass(frozen=True, slots=True)
class Mirror:
    """One ``[[registry.mirror]]`` table."""

    location: str
    insecure: bool = False
    pulls: str = "all"
    """``all``, ``digest-only`` or ``tag-only``: which references may be fetched from it."""


@dataclass(frozen=True, slots=True)
class Registry:
    """One ``[[registry]]`` table."""

    prefix: str
    """What it applies to: the beginning of references, or ``*.domain``."""
    location: str
    """What stands in place of the prefix; empty: the reference as it is."""
    insecure: bool = False
    blocked: bool = False
    mirrors: tuple[Mirror, ...] = ()
    """To be asked first, in this order."""
    origin: Path = Path()

    def match(self, text: str) -> int:
        """How many characters of a reference the prefix covers; -1: it does not apply."""
        if self.prefix.startswith("*."):
            start = text.find(self.prefix[1:])
            end = start + len(self.prefix) - 1
            if start < 0 or "/" in text[:start]:
                return -1
        else:
            end = len(self.prefix)
            if not text.startswith(self.prefix):
                return -1
        return end if text[end : end + 1] in ("", "/", ":", "@") else -1


@dataclass(frozen=True, slots=True)
class RegistriesFile:
    """What one file says, as far as it concerns us."""

    registries: tuple[Registry, ...]
    credential_helpers: tuple[str, ...] | None
    """None: the file does not say."""
    auth_helper: str
    """``additional-layer-store-auth-helper``."""


def load_registries_file(path: Path) -> RegistriesFile:
    """Raises ConfigError for a file that podman would refuse too."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES)
        document = tomllib.loads(data.decode())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    registries = [_registry(table, path) for table in _tables(document.get("registry", []), "registry", path)]
    old = _version_one(document, path)
    if registries and old:
        raise ConfigError(f"{path}: wanted [[registry]] tables or lists of version 1 of the format, got both")
    registries += old
    _check_conflicts(registries, path)
    helpers = document.get("credential-helpers")
    if helpers is not None and (not isinstance(helpers, list) or not all(isinstance(one, str) for one in helpers)):
        raise ConfigError(f"{path}: credential-helpers: wanted a list of strings, got {helpers!r:.100}")
    return RegistriesFile(
        tuple(registries),
        None if helpers is None else tuple(helpers),
        _typed(document, "additional-layer-store-auth-helper", "", str(path)),
    )


def _registry(table: Mapping[str, Any], path: Path) -> Registry:
    what = f"{path}: registry"
    location, prefix = _location(table, "location", what), _location(table, "prefix", what)
    what = f"{path}: registry {prefix or location!r}"
    if not prefix and not location:
        raise ConfigError(f"{what}: wanted a location or a prefix, got none")
    if "*" in prefix and ("*" in prefix[1:] or not prefix.startswith("*.") or set("/:@") & set(prefix)):
        raise ConfigError(f"{what}: prefix: wanted a wildcard of the form *.example.com")
    if not location and not prefix.startswith("*."):
        raise ConfigError(f"{what}: wanted a location, got none")
    if _typed(table, "pull-from-mirror", "", what):
        raise ConfigError(f"{what}: pull-from-mirror belongs into its [[registry.mirror]] tables")
    by_digest = _typed(table, "mirror-by-digest-only", False, what)
    mirrors = tuple(
        _mirror(one, by_digest, f"{what}: mirror") for one in _tables(table.get("mirror", []), f"{what}: mirror", path)
    )
    insecure, blocked = (_typed(table, key, False, what) for key in ("insecure", "blocked"))
    return Registry(prefix or location, location, insecure, blocked, mirrors, path)


def _mirror(table: Mapping[str, Any], by_digest: bool, what: str) -> Mirror:
    location = _location(table, "location", what)
    if not location:
        raise ConfigError(f"{what}: wanted a location, got none")
    pulls = _typed(table, "pull-from-mirror", "", what)
    if pulls not in _PULLS:
        raise ConfigError(f"{what} {location!r}: pull-from-mirror: wanted all, digest-only or tag-only, got {pulls!r}")
    if by_digest and pulls:
        raise ConfigError(f"{what} {location!r}: wanted mirror-by-digest-only or pull-from-mirror, got both")
    return Mirror(location, _typed(table, "insecure", False, what), "digest-only" if by_digest else pulls or "all")


def _version_one(document: Mapping[str, Any], path: Path) -> list[Registry]:
    """Lists of hosts, from the time before ``[[registry]]`` tables."""
    old = document.get("registries")
    hosts: dict[str, set[str]] = {}
    for key in ("insecure", "block"):
        table = old.get(key) if isinstance(old, dict) else None
        for host in table.get("registries", []) if isinstance(table, dict) else []:
            if isinstance(host, str) and host:
                hosts.setdefault(host, set()).add(key)
    return [
        Registry(host, host, insecure="insecure" in keys, blocked="block" in keys, origin=path)
        for host, keys in hosts.items()
    ]


def _check_conflicts(registries: list[Registry], path: Path) -> None:
    """One registry may stand behind several prefixes, but is insecure or blocked behind all or none of them."""
    seen: dict[str, Registry] = {}
    for one in registries:
        place = one.location or one.prefix
        other = seen.setdefault(place, one)
        for key in ("insecure", "blocked"):
            if getattr(one, key) != getattr(other, key):
                raise ConfigError(f"{path}: registry {place!r} stands there several times, with and without {key}")


def _location(table: Mapping[str, Any], key: str, what: str) -> str:
    text = _typed(table, key, "", what).rstrip("/")
    if text.startswith(("http://", "https://")):
        raise ConfigError(f"{what}: {key}: wanted no scheme, got {text!r:.100}")
    return text


def _tables(value: object, what: str, path: Path) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(table, dict) for table in value):
        raise ConfigError(f"{what if str(path) in what else f'{path}: {what}'}: wanted a list of tables")
    return value


def _typed(table: Mapping[str, Any], key: str, default: T, what: str) -> T:
    value = table.get(key, default)
    if not isinstance(value, type(default)):
        raise ConfigError(f"{what}: {key}: wanted {type(default).__name__}, got {value!r:.100}")
    return value
