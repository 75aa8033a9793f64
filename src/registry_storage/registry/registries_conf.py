"""The administrator's word on registries: containers-registries.conf(5) with its drop-ins."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import ConfigError, InvalidReferenceError, RegistryError
from ..reference import Reference
from .hosts import Endpoint, Registries, endpoint
from .registries_file import Mirror, RegistriesFile, Registry, load_registries_file

AUTH_FILES = "containers-auth.json"
"""The name that stands for the auth files among credential helpers."""


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
        self._registries: tuple[Registry, ...] = ()
        self._helpers: tuple[str, ...] = ()
        self._auth_helper = ""

    def endpoints(self, reference: Reference) -> Sequence[Endpoint]:
        """See Registries."""
        found = self.find(reference)
        if found is None:
            return super().endpoints(reference)
        if found.blocked:
            raise RegistryError(f"{reference}: {found.origin} blocks {found.prefix}")
        wanted = ("all", "digest-only" if reference.digest else "tag-only")
        places = [mirror for mirror in found.mirrors if mirror.pulls in wanted]
        places.append(Mirror(found.location, found.insecure))
        return tuple(
            endpoint(_rewritten(reference, found, place.location), insecure=place.insecure) for place in places
        )

    def find(self, reference: Reference) -> Registry | None:
        """The table that applies to `reference`: the one with the longest prefix. Raises ConfigError."""
        self._load()
        text = str(reference)
        return max(
            (registry for registry in self._registries if registry.match(text) >= 0),
            key=lambda registry: len(registry.prefix),
            default=None,
        )

    @property
    def credential_helpers(self) -> tuple[str, ...]:
        """Whom to ask for credentials, in order; `AUTH_FILES` stands for the auth files. Raises ConfigError."""
        self._load()
        return self._helpers or (AUTH_FILES,)

    @property
    def auth_helper(self) -> str:
        """The program that podman hands credentials to for a layer store; empty: none. Raises ConfigError."""
        self._load()
        return self._auth_helper

    @property
    def files(self) -> list[Path]:
        """The files that count now, in the order in which they are read."""
        first = next((path for path in self._files if path.is_file()), None)
        paths = [] if first is None else [first]
        for directory in self._directories:
            try:
                paths += sorted(path for path in directory.iterdir() if path.suffix == ".conf" and path.is_file())
            except OSError:
                continue
        return paths

    def _load(self) -> None:
        signature = tuple((path, _signature(path)) for path in self.files)
        if signature == self._signature:
            return
        registries: dict[str, Registry] = {}
        helpers: tuple[str, ...] = ()
        auth_helper = ""
        for path, status in signature:
            said = load_registries_file(path) if status is not None else RegistriesFile((), None, "")
            registries |= {registry.prefix: registry for registry in said.registries}
            helpers = helpers if said.credential_helpers is None else said.credential_helpers
            auth_helper = said.auth_helper or auth_helper
        self._registries, self._helpers, self._auth_helper = tuple(registries.values()), helpers, auth_helper
        self._signature = signature


def default_places(environ: Mapping[str, str] | None = None) -> tuple[list[Path], list[Path]]:
    """(files of which the first that exists counts, drop-in directories) for this user."""
    environ = os.environ if environ is None else environ
    home = Path(environ.get("HOME") or os.path.expanduser("~"))
    user = Path(environ.get("XDG_CONFIG_HOME") or home / ".config", "containers")
    system = Path("/etc/containers")
    files = [user / "registries.conf", system / "registries.conf"]
    if explicit := environ.get("CONTAINERS_REGISTRIES_CONF") or environ.get("REGISTRIES_CONFIG_PATH"):
        files = [Path(explicit)]
    return files, [system / "registries.conf.d", user / "registries.conf.d"]


def _rewritten(reference: Reference, registry: Registry, location: str) -> Reference:
    """`reference` with `location` in place of what the prefix covers."""
    if not location:
        return reference
    text = location + str(reference)[registry.match(str(reference)) :]
    what = f"{registry.origin}: registry {registry.prefix!r}: {reference} would become {text!r}"
    try:
        located = Reference.parse(text)
    except InvalidReferenceError:
        raise ConfigError(f"{what}, which is no reference") from None
    if located.host != text.partition("/")[0]:
        raise ConfigError(f"{what}, which does not begin with the name of a host")
    return located


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
