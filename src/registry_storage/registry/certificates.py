"""Whose certificates are believed, and which we show: containers-certs.d(5), and docker's certs.d."""

import logging
import os
import ssl
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

import certifi

from ..errors import ConfigError

_log = logging.getLogger(__name__)
_MAX_CONTEXTS = 256


class Certificates:
    """The TLS settings of each registry, read again when its directory changes."""

    def __init__(self, directories: Sequence[Path] | None = None) -> None:
        """`directories`: each holds directories named like registries, with their port where the name has one.
        The first of them that exists counts. Default: see `default_directories`."""
        self._directories = tuple(default_directories() if directories is None else directories)
        self._contexts: dict[tuple[Path | None, bool], tuple[object, ssl.SSLContext]] = {}

    @property
    def directories(self) -> Sequence[Path]:
        """Where it looks, in order; not all of them need exist."""
        return self._directories

    def directory(self, *hosts: str) -> Path | None:
        """The one that counts for the first of `hosts` that has one."""
        for host in dict.fromkeys(hosts):
            if not host or "/" in host or host.startswith("."):
                continue
            for directory in self._directories:
                if _is_directory(f"{directory}/{host}"):  # for each request: no Path until there is one
                    return directory / host
        return None

    def context(self, path: Path | None, *, verified: bool) -> ssl.SSLContext:
        """For TLS by what is in the `directory`, if there is one.

        `verified`: whether the certificate must be valid. Raises ConfigError for files that cannot be used.
        """
        signature = None if path is None else _signature(path)
        known = self._contexts.get((path, verified))
        if known is not None and known[0] == signature:
            return known[1]
        context = _context(verified)
        if path is not None:
            _load(context, path)
        while len(self._contexts) >= _MAX_CONTEXTS:
            del self._contexts[next(iter(self._contexts))]
        self._contexts[path, verified] = (signature, context)
        return context


def default_directories(environ: Mapping[str, str] | None = None) -> list[Path]:
    """Where podman looks too, in its order."""
    environ = os.environ if environ is None else environ
    home = Path(environ.get("HOME") or os.path.expanduser("~"))
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    return [config / "containers/certs.d", Path("/etc/containers/certs.d"), Path("/etc/docker/certs.d")]


def _context(verified: bool) -> ssl.SSLContext:
    if not verified:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    context = ssl.create_default_context()  # the machine's authorities, SSL_CERT_FILE and SSL_CERT_DIR
    paths = ssl.get_default_verify_paths()
    if paths.cafile is None and not (paths.capath and os.listdir(paths.capath)):
        context.load_verify_locations(certifi.where())
    return context


def _load(context: ssl.SSLContext, directory: Path) -> None:
    """``*.crt`` are authorities, ``*.cert`` with ``*.key`` is what we show."""
    names = sorted(_names(directory))
    for file in names:
        path = directory / file
        try:
            if path.suffix == ".crt":
                context.load_verify_locations(path)
            elif path.suffix == ".cert":
                key = path.with_suffix(".key")
                if key.name not in names:
                    what = f"{path}: wanted its key in {key.name}, got no such file"
                    raise ConfigError(f"{what} (certificates of authorities are in *.crt)")
                # A passphrase would be asked for at a terminal that is not there.
                context.load_cert_chain(path, key, password="")
            elif path.suffix == ".key" and path.with_suffix(".cert").name not in names:
                name = path.with_suffix(".cert").name
                raise ConfigError(f"{path}: wanted its certificate in {name}, got no such file")
        except ssl.SSLError as error:
            reason = (error.reason or "no PEM").replace("_", " ").lower()
            raise ConfigError(f"{path}: not a usable certificate or unencrypted key in PEM: {reason}") from None
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from None


def _is_directory(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError as error:
        _log.debug("%s: %s", path, error.strerror)
        return False


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError as error:
        raise ConfigError(f"{directory}: {error.strerror}") from None


def _signature(directory: Path) -> tuple[tuple[str, int, int, int], ...]:
    found = []
    for name in sorted(_names(directory)):
        try:
            status = os.stat(directory / name)
        except OSError:
            continue
        found.append((name, status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(found)
