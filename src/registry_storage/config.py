"""The daemon's settings: defaults, then the configuration file, then the command line."""

import os
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from .descriptor import Platform
from .errors import ConfigError, InvalidDocumentError
from .names import DAEMON, DEFAULT_CONFIG, DEFAULT_ROOT
from .user import user_id

LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")

_ARCHITECTURES = {
    "x86_64": Platform("linux", "amd64"),
    "aarch64": Platform("linux", "arm64"),
    "armv7l": Platform("linux", "arm", "v7"),
    "armv6l": Platform("linux", "arm", "v6"),
    "i686": Platform("linux", "386"),
    "ppc64le": Platform("linux", "ppc64le"),
    "riscv64": Platform("linux", "riscv64"),
    "s390x": Platform("linux", "s390x"),
}


def host_platform() -> Platform:
    """The platform whose images this host runs, in the words of the image specification (Go's GOARCH)."""
    machine = os.uname().machine
    return _ARCHITECTURES.get(machine, Platform("linux", machine))


def _setting(
    default: Any,
    text: str,
    *,
    metavar: str = "",
    bounds: tuple[float, float] | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A field of Settings: `text` is what --help, the manual and the documentation say about it."""
    about = {"text": text, "metavar": metavar, "bounds": bounds, "choices": choices}
    if callable(default):
        return field(default_factory=default, metadata=about)
    return field(default=default, metadata=about)


STARTING_READ_AHEAD_KIB = 16
"""The kernel's read-ahead while the container of an optimized image starts, and while it is recorded what such a
container reads: little, so that hardly more is fetched than is read; the same, so that all of it is fetched ahead."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set. A field is a key of the file and, with dashes, a flag."""

    root: Path = _setting(Path(DEFAULT_ROOT), "where contents, documents and state are kept", metavar="DIR")
    platform: Platform = _setting(
        host_platform, "which manifest of a multi-platform image is served", metavar="OS/ARCH[/VARIANT]"
    )
    prefetch: bool = _setting(
        True, "fetch a layer's prioritized files, or the programs that the image's config names, before they are read"
    )
    background_fetch: bool = _setting(True, "fetch the rest of a layer that is in use when nobody reads")
    lookup_timeout_seconds: float = _setting(
        20.0,
        "how long podman waits at most for an answer about a layer before it pulls that layer itself",
        metavar="S",
        bounds=(1, 300),
    )
    read_timeout_seconds: float = _setting(
        60.0,
        "how long a read waits at most for its bytes before it fails with EIO; the next read tries again",
        metavar="S",
        bounds=(1, 3600),
    )
    wait_for_registry: bool = _setting(
        False, "reads wait until the registry is back, however long that takes, instead of failing with EIO"
    )
    read_ahead_kib: int = _setting(128, "the kernel's read-ahead on the mount", metavar="KIB", bounds=(0, 16384))
    record: Path | None = _setting(
        None, "where to write down what is read from layers, as JSON lines; for optimizing images", metavar="FILE"
    )
    registries_conf: Path | None = _setting(
        None, "instead of the places that containers-registries.conf(5) names; drop-ins still count", metavar="FILE"
    )
    auth_file: Path | None = _setting(
        None, "instead of the places that containers-auth.json(5) names", metavar="FILE"
    )
    credential_providers: Path | None = _setting(
        None, "the kubelet's CredentialProviderConfig, whose plugins are asked last", metavar="FILE"
    )
    credential_provider_dir: Path = _setting(
        Path("/usr/libexec/kubernetes/kubelet-plugins/credential-provider/exec"),
        "where these plugins are",
        metavar="DIR",
    )
    certs_dir: Path | None = _setting(
        None, "instead of the places that containers-certs.d(5) names", metavar="DIR"
    )
    control_socket: Path | None = _setting(
        None, "where registry-storagectl reaches the daemon (default: control.sock in the root)", metavar="PATH"
    )
    control_group: str = _setting(
        "", "a group whose members may use the control socket, besides root and the daemon's own user", metavar="GROUP"
    )
    metrics: str = _setting(
        "",
        "where metrics are served in OpenMetrics: host:port, or the path of a socket (default: nowhere)",
        metavar="ADDRESS",
    )
    traces: str = _setting(
        "", "where spans are sent by OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces (default: nowhere)",
        metavar="URL",
    )
    cache_size: str = _setting(
        "50%", "how much of its disk the root may take: a share, or a size such as 20GiB", metavar="SIZE"
    )
    keep_free: str = _setting(
        "5%", "how much of the disk stays free, whoever fills it: below that, the cache shrinks", metavar="SIZE"
    )
    graph_roots: str = _setting(
        "",
        "further graph roots whose images use this store, besides those that storage.conf(5) names",
        metavar="DIR[:DIR…]",
    )
    keep_unused_hours: float = _setting(
        168.0, "how long layers stay that no image uses any more", metavar="H", bounds=(0, 87600)
    )
    images: Path | None = _setting(
        None, "the additional image store that we write (default: images in the root)", metavar="DIR"
    )
    images_grace_seconds: float = _setting(
        30.0,
        "how long what was removed from the image store stays for podmans that have read its lists before",
        metavar="S",
        bounds=(0.1, 3600),
    )
    log_level: str = _setting("info", "the least important lines to log", choices=LOG_LEVELS)
    log_format: str = _setting("text", "log lines for people, or one JSON object a line", choices=LOG_FORMATS)

    def __post_init__(self) -> None:
        for about in DESCRIPTIONS:
            value = getattr(self, about.name)
            if about.bounds is not None:
                low, high = about.bounds
                if not low <= value <= high:
                    raise ConfigError(f"{about.name}: wanted {low} to {high}, got {value}")
            if about.choices and value not in about.choices:
                raise ConfigError(f"{about.name}: wanted one of {', '.join(about.choices)}, got {value!r}")


def images_path(settings: Settings) -> Path:
    """Where the additional image store is."""
    return settings.images or settings.root / "images"


@dataclass(frozen=True, slots=True)
class Description:
    """One setting, for whoever explains or asks for it."""

    name: str
    kind: type
    """What its values are; None may also be allowed, where that is the default."""
    text: str
    metavar: str
    bounds: tuple[float, float] | None
    choices: tuple[str, ...]

    @property
    def flag(self) -> str:
        """``--read-ahead-kib``."""
        return "--" + self.name.replace("_", "-")

    def flag_for(self, value: object) -> str:
        """The one that sets `value`: ``--no-prefetch`` for False."""
        return self.flag.replace("--", "--no-", 1) if value is False else self.flag


def _describe() -> tuple[Description, ...]:
    hints = typing.get_type_hints(Settings)
    found = []
    for item in fields(Settings):
        kind = hints[item.name]
        if isinstance(kind, types.UnionType):
            kind = next(one for one in typing.get_args(kind) if one is not types.NoneType)
        found.append(Description(item.name, kind, **item.metadata))
    return tuple(found)


DESCRIPTIONS = _describe()
"""In the order in which they are shown."""


@dataclass(frozen=True, slots=True)
class Effective:
    """Settings, and where each of them was set."""

    settings: Settings
    origins: Mapping[str, str]
    """``default``, the path of a file, a flag, or ``user's own`` for the root of a user's daemon."""
    file: Path
    """The configuration file."""
    file_exists: bool


def user_root(environ: Mapping[str, str]) -> Path:
    """Where a user's own daemon keeps its state, as ``install --user`` sets it up."""
    home = Path(environ.get("HOME") or os.path.expanduser("~"))
    return Path(environ.get("XDG_DATA_HOME") or home / ".local/share") / DAEMON


def user_config(environ: Mapping[str, str]) -> Path:
    """A user's own configuration file."""
    home = Path(environ.get("HOME") or os.path.expanduser("~"))
    return Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / DAEMON / Path(DEFAULT_CONFIG).name


def load_settings(file: Path | None, overrides: Mapping[str, object]) -> Settings:
    """Defaults, then `file` (the default file may be missing, a named one may not), then `overrides`.

    A user who is not root and has a daemon of their own means that one, where nothing says another.

    Raises ConfigError for a file that cannot be read, an unknown key, or a value of the wrong type or range.
    """
    return load_effective(file, overrides).settings


def load_effective(file: Path | None, overrides: Mapping[str, object]) -> Effective:
    """The same, with the origin of each setting."""
    own_root, own_config = user_root(os.environ), user_config(os.environ)
    has_own = user_id() != 0 and own_root.is_dir()
    path, exists = file or (own_config if has_own and own_config.exists() else Path(DEFAULT_CONFIG)), True
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        if file is not None:
            raise ConfigError(f"{path}: no such file") from None
        document, exists = {}, False
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    known = {about.name: about for about in DESCRIPTIONS}
    values: dict[str, Any] = {}
    for key, value in document.items():
        if key not in known:
            raise ConfigError(f"{path}: unknown key {key!r}; known are {', '.join(sorted(known))}")
        values[key] = _typed(f"{path}: {key}", value, known[key].kind)
    by_user = {"root": own_root} if has_own and (path == Path(DEFAULT_CONFIG) or "root" not in values) else {}
    try:
        settings = replace(Settings(), **(values | by_user | dict(overrides)))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}" if values else str(error)) from None
    origins = dict.fromkeys(known, "default") | dict.fromkeys(values, str(path)) | dict.fromkeys(by_user, "user's own")
    origins |= {name: known[name].flag_for(value) for name, value in overrides.items() if name in known}
    return Effective(settings, origins, path, exists)


def _typed(what: str, value: object, wanted: type) -> object:
    if wanted in (Path, Platform):
        if not isinstance(value, str):
            raise ConfigError(f"{what}: wanted a string, got {type(value).__name__}")
        try:
            return Platform.parse(value) if wanted is Platform else Path(value)
        except InvalidDocumentError as error:
            raise ConfigError(f"{what}: {error}") from None
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        raise ConfigError(f"{what}: wanted {wanted.__name__}, got {type(value).__name__}")
    return value
