"""The daemon's settings: defaults, then the configuration file, then the command line."""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from .descriptor import Platform
from .errors import ConfigError, InvalidDocumentError
from .names import DEFAULT_CONFIG, DEFAULT_ROOT

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


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set. A field is a key of the file and, with dashes, a flag."""

    root: Path = Path(DEFAULT_ROOT)
    """Where contents, documents and state are kept."""
    platform: Platform = field(default_factory=host_platform)
    """Which manifest of a multi-platform image is served."""
    prefetch: bool = True
    """Fetch a layer's prioritized files as soon as podman uses the layer."""
    background_fetch: bool = True
    """Fetch the rest of a layer that is in use when nobody reads."""
    lookup_timeout_seconds: float = 20.0
    """How long podman waits at most for an answer about a layer before it pulls that layer itself."""
    read_timeout_seconds: float = 60.0
    """How long a read waits at most for its bytes before it fails with EIO; the next read tries again."""
    read_ahead_kib: int = 128
    """The kernel's read-ahead on the mount."""
    record: Path | None = None
    """Where to write down what is read from layers, as JSON lines; for optimizing images."""
    control_socket: Path | None = None
    """Where ``registry-storagectl`` reaches the daemon; in the root directory, when not set."""
    control_group: str = ""
    """A group whose members may use the control socket, besides root and the daemon's own user."""
    log_level: str = "info"
    log_format: str = "text"

    def __post_init__(self) -> None:
        for name, low, high in (
            ("lookup_timeout_seconds", 1, 300),
            ("read_timeout_seconds", 1, 3600),
            ("read_ahead_kib", 0, 16384),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{name}: wanted {low} to {high}, got {value}")
        for name, choices in (("log_level", LOG_LEVELS), ("log_format", LOG_FORMATS)):
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name}: wanted one of {', '.join(choices)}, got {getattr(self, name)!r}")


def load_settings(file: Path | None, overrides: Mapping[str, object]) -> Settings:
    """Defaults, then `file` (the default file may be missing, a named one may not), then `overrides`.

    Raises ConfigError for a file that cannot be read, an unknown key, or a value of the wrong type or range.
    """
    path = Path(DEFAULT_CONFIG) if file is None else file
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        if file is not None:
            raise ConfigError(f"{path}: no such file") from None
        document = {}
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    defaults = Settings()
    known = {item.name for item in fields(Settings)}
    values: dict[str, Any] = {}
    for key, value in document.items():
        if key not in known:
            raise ConfigError(f"{path}: unknown key {key!r}; known are {', '.join(sorted(known))}")
        values[key] = _typed(f"{path}: {key}", value, getattr(defaults, key))
    try:
        return replace(defaults, **(values | dict(overrides)))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}" if values else str(error)) from None


def _typed(what: str, value: object, default: object) -> object:
    if default is None or isinstance(default, Path | Platform):
        if not isinstance(value, str):
            raise ConfigError(f"{what}: wanted a string, got {type(value).__name__}")
        try:
            return Platform.parse(value) if isinstance(default, Platform) else Path(value)
        except InvalidDocumentError as error:
            raise ConfigError(f"{what}: {error}") from None
    wanted = type(default)
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        raise ConfigError(f"{what}: wanted {wanted.__name__}, got {type(value).__name__}")
    return value
