"""The kubelet's credential provider plugins, for hosts that have them anyway (credentialprovider.kubelet.k8s.io)."""

import fnmatch
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from ..errors import ConfigError
from .credential_helpers import run_program
from .credentials import Credentials

_MAX_FILE_BYTES = 1 << 20
_GROUP = "credentialprovider.kubelet.k8s.io/"
_DURATION = re.compile(r"(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+(?:\.[0-9]+)?)s)?")
_MAX_CACHED = 256


@dataclass(frozen=True, slots=True)
class Provider:
    """One entry of a CredentialProviderConfig."""

    name: str
    match_images: tuple[str, ...]
    cache_seconds: float
    api_version: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]


class CredentialProviders:
    """Asks the plugins that match; their answers are kept as long as they say. The file is read at the first use."""

    def __init__(self, config: Path, directory: Path, *, seconds: float = 10.0) -> None:
        """`directory`: where the plugins are. `seconds`: how long one may take."""
        self._config = config
        self._directory = directory
        self._seconds = seconds
        self._providers: Sequence[Provider] | None = None
        self._answers: dict[tuple[str, str], tuple[float, Credentials | None]] = {}

    async def find(self, name: str) -> Credentials | None:
        """See CredentialsSource."""
        if self._providers is None:
            self._providers = load_providers(self._config)
        for provider in self._providers:
            if any(matches(pattern, name) for pattern in provider.match_images):
                found = await self._ask(provider, name)
                if found is not None:
                    return found
        return None

    async def _ask(self, provider: Provider, name: str) -> Credentials | None:
        known = self._answers.get((provider.name, name))
        if known is not None and trio.current_time() < known[0]:
            return known[1]
        what = f"credential provider {provider.name}"
        request = {"apiVersion": provider.api_version, "kind": "CredentialProviderRequest", "image": name}
        command = [str(self._directory / provider.name), *provider.arguments]
        try:
            with trio.fail_after(self._seconds):
                status, output = await run_program(
                    command, json.dumps(request).encode(), {**os.environ, **provider.environment}
                )
        except OSError as error:
            raise ConfigError(f"{what}: {command[0]}: {error.strerror}") from None
        except trio.TooSlowError:
            raise ConfigError(f"{what}: no answer in {self._seconds:g} seconds") from None
        if status:
            raise ConfigError(f"{what}: it failed (status {status})")
        found, seconds = _parse_answer(output, provider, name, what)
        while len(self._answers) >= _MAX_CACHED:
            del self._answers[next(iter(self._answers))]
        self._answers[provider.name, name] = trio.current_time() + seconds, found
        return found


def matches(pattern: str, name: str) -> bool:
    """Whether ``host[:port][/path]`` of `pattern`, with globs in the parts of the host, covers repository `name`."""
    host, _, path = pattern.removeprefix("https://").removeprefix("http://").partition("/")
    host, _, port = host.partition(":")
    name_host, _, name_path = name.partition("/")
    name_host, _, name_port = name_host.partition(":")
    parts, name_parts = host.split("."), name_host.split(".")
    return (
        len(parts) == len(name_parts)
        and port == name_port
        and all(fnmatch.fnmatchcase(one, part) for part, one in zip(parts, name_parts, strict=True))
        and name_path.startswith(path)
    )


def load_providers(path: Path) -> tuple[Provider, ...]:
    """The entries of a CredentialProviderConfig, in YAML or JSON. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    document = _parse_yaml(data, path)
    entries = document.get("providers") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ConfigError(f"{path}: wanted a CredentialProviderConfig with a list of providers")
    return tuple(_provider(entry, path) for entry in entries)


def _parse_yaml(data: bytes, path: Path) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        pass
    try:
        import yaml
    except ImportError:
        raise ConfigError(f"{path}: not JSON, and YAML needs pip install 'registry-storage[kubelet]'") from None
    try:
        return yaml.safe_load(data)
    except yaml.YAMLError:
        raise ConfigError(f"{path}: neither JSON nor YAML") from None


def _provider(entry: object, path: Path) -> Provider:
    try:
        if not isinstance(entry, dict):
            raise TypeError  # noqa: TRY301
        name, version = entry["name"], entry.get("apiVersion", f"{_GROUP}v1")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}", name) or not version.startswith(_GROUP):
            raise ValueError  # noqa: TRY301
        return Provider(
            name,
            tuple(str(image) for image in entry["matchImages"]),
            _seconds(entry.get("defaultCacheDuration", "0s")),
            version,
            tuple(str(word) for word in entry.get("args") or ()),
            {str(one["name"]): str(one["value"]) for one in entry.get("env") or ()},
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        what = "wanted providers with name, matchImages, defaultCacheDuration and apiVersion"
        raise ConfigError(f"{path}: {what}") from None


def _parse_answer(output: bytes, provider: Provider, name: str, what: str) -> tuple[Credentials | None, float]:
    try:
        document = json.loads(output)
        seconds = _seconds(document["cacheDuration"]) if document.get("cacheDuration") else provider.cache_seconds
        patterns = sorted(document.get("auth") or {}, key=len, reverse=True)
        for pattern in patterns:
            if matches(pattern, name):
                entry = document["auth"][pattern]
                user, password = entry["username"], entry["password"]
                if not isinstance(user, str) or not isinstance(password, str):
                    raise TypeError  # noqa: TRY301
                return Credentials(user, password, origin=what), seconds
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ConfigError(f"{what}: wanted a CredentialProviderResponse, got something else") from None
    return None, seconds


def _seconds(text: str) -> float:
    """Of Go's durations: ``12h``, ``10m0s``. Raises ValueError."""
    found = _DURATION.fullmatch(text)
    if not text or found is None:
        raise ValueError(text)
    hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + seconds
