"""Credentials from the files of containers-auth.json(5) and of docker, read again when they change."""

import base64
import binascii
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..user import user_id
from .credential_helpers import HelperPrograms
from .credentials import Credentials

_MAX_FILE_BYTES = 4 << 20
_DOCKER_HUB = "https://index.docker.io/v1/"
_DOCKER_HUB_HOSTS = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})


def auth_file_paths(environ: Mapping[str, str] | None = None) -> list[Path]:
    """Where to look, in order; ``REGISTRY_AUTH_FILE`` is the only one when it is set."""
    environ = os.environ if environ is None else environ
    if explicit := environ.get("REGISTRY_AUTH_FILE"):
        return [Path(explicit)]
    home = Path(environ.get("HOME") or os.path.expanduser("~"))
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    docker = Path(environ.get("DOCKER_CONFIG") or home / ".docker")
    runtime, user = environ.get("XDG_RUNTIME_DIR"), user_id()
    # Podman looks into one of the first two. A user cannot look below /run/containers where root's podman made it; what
    # root's `podman login` wrote depends on how root came in, which a service does not know.
    directories = [
        *([Path(runtime, "containers")] if runtime else []),
        *([Path(f"/run/containers/{user}")] if user == 0 or not runtime else []),
        *([Path("/run/user/0/containers")] if user == 0 else []),
    ]
    return [
        *(directory / "auth.json" for directory in dict.fromkeys(directories)),
        config / "containers/auth.json",
        docker / "config.json",
        home / ".dockercfg",
    ]


class AuthFiles:
    """The first file that has credentials for a repository decides, and in it the most specific key."""

    def __init__(self, paths: Sequence[Path] | None = None, *, helper_seconds: float = 10.0) -> None:
        """`helper_seconds`: how long a credential helper may take."""
        self._paths = tuple(auth_file_paths() if paths is None else paths)
        self._programs = HelperPrograms(helper_seconds)
        self._loaded: dict[Path, tuple[tuple[int, int, int], dict[str, Any]]] = {}

    @property
    def paths(self) -> Sequence[Path]:
        """Where it looks, in order; not all of them need exist."""
        return self._paths

    async def find(self, name: str) -> Credentials | None:
        """See CredentialsSource."""
        host = name.partition("/")[0]
        for path in self._paths:
            document = self._load(path)
            helpers = _table(document, "credHelpers", path)
            auths = document if path.name == ".dockercfg" else _table(document, "auths", path)
            for key in _keys(name):
                if helper := helpers.get(key):
                    found = await self._programs.ask(helper, key, path)
                    if found is not None:
                        return found
                if found := _credentials(auths.get(key), path, key):
                    return found
            for key, entry in auths.items():
                if _host_of_legacy_key(key) == host and (found := _credentials(entry, path, key)):
                    return found
            if store := document.get("credsStore"):
                # One for all registries, public ones too, and often left behind by a desktop.
                server = _DOCKER_HUB if host == "docker.io" else host
                found = await self._programs.ask(store, server, path, optional=True)
                if found is not None:
                    return found
        return None

    def _load(self, path: Path) -> dict[str, Any]:
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                signature = (status.st_mtime_ns, status.st_size, status.st_ino)
                known = self._loaded.get(path)
                if known is not None and known[0] == signature:
                    return known[1]
                data = file.read(_MAX_FILE_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            self._loaded.pop(path, None)
            return {}
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from None
        if len(data) > _MAX_FILE_BYTES:
            raise ConfigError(f"{path}: wanted at most {_MAX_FILE_BYTES} bytes, got more")
        try:
            document = json.loads(data) if data.strip() else {}
        except (ValueError, RecursionError):
            # The decoder's own message could quote a secret.
            raise ConfigError(f"{path}: not JSON") from None
        if not isinstance(document, dict):
            raise ConfigError(f"{path}: wanted a JSON object, got {type(document).__name__}")
        self._loaded[path] = (signature, document)
        return document


def _keys(name: str) -> Iterator[str]:
    """``host/a/b``, ``host/a``, ``host``."""
    while name:
        yield name
        name = name.rpartition("/")[0]


def _host_of_legacy_key(key: str) -> str | None:
    """The host of keys as docker wrote them, ``https://host/v1/``; None for a key of another kind."""
    scheme, separator, rest = key.partition("://")
    if not separator:
        scheme, rest = "", key
    if scheme not in ("", "http", "https"):
        return None
    host, _, path = rest.partition("/")
    if not scheme and path.strip("/") not in ("", "v1", "v2"):
        return None
    return "docker.io" if host in _DOCKER_HUB_HOSTS else host


def _table(document: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    table = document.get(key)
    if table is None:
        return {}
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: {key}: wanted an object, got {type(table).__name__}")
    return table


def _credentials(entry: object, path: Path, key: str) -> Credentials | None:
    """Of one entry of ``auths``; None when it is absent or empty, as it is beside a ``credsStore``."""
    if entry is None:
        return None
    if not isinstance(entry, dict):
        raise ConfigError(f"{path}: auths: {key!r}: wanted an object, got {type(entry).__name__}")
    fields = {name: entry.get(name) or "" for name in _FIELDS}
    for name, value in fields.items():
        if not isinstance(value, str):
            raise ConfigError(f"{path}: auths: {key!r}: {name}: wanted a string, got {type(value).__name__}")
    username, password = fields["username"], fields["password"]
    if fields["auth"]:
        try:
            text = base64.b64decode(fields["auth"], validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise ConfigError(f"{path}: auths: {key!r}: auth: not base64 of text") from None
        username, colon, password = text.partition(":")
        if not colon:
            raise ConfigError(f"{path}: auths: {key!r}: auth: wanted user:password in base64, got no colon")
        password = password.rstrip("\0")
    found = Credentials(username, password, fields["identitytoken"], fields["registrytoken"], str(path))
    return None if found == Credentials() else found


_FIELDS = ("auth", "username", "password", "identitytoken", "registrytoken")
