"""What belongs where so that the daemon runs and podman uses it: planned, so that it can be shown, done and undone."""

import json
import os
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError
from ..names import DAEMON, DEFAULT_MOUNTPOINT, DEFAULT_ROOT
from .storage_conf import StorageConf, entry, new_tables, place, with_store
from .units import SERVICE, unit


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A file that is ours alone."""

    path: Path
    text: str
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that an installation consists of."""

    user: bool
    mountpoint: Path
    files: tuple[PlannedFile, ...]
    by_hand: tuple[str, ...]
    """What must be added to files of somebody else, in words and lines."""
    start: str
    """The command that starts the service."""


def plan(
    *,
    user: bool,
    mountpoint: Path | None = None,
    root: Path | None = None,
    prefix: Path = Path("/"),
    environ: Mapping[str, str] | None = None,
) -> Plan:
    """For this host, with root's units or a user's. `prefix`: what stands for ``/`` (for packages and tests)."""
    environ = os.environ if environ is None else environ
    home = Path(environ.get("HOME") or os.path.expanduser("~"))
    data = Path(environ.get("XDG_DATA_HOME") or home / ".local/share") / DAEMON
    state = root or (data if user else Path(DEFAULT_ROOT))
    mount = mountpoint or (state / "store" if user or root else Path(DEFAULT_MOUNTPOINT))
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    units = config / "systemd/user" if user else Path("/etc/systemd/system")
    command = [*daemon_command(), *(["--root", str(state)] if user or root else []), str(mount)]
    files = [PlannedFile(_under(prefix, units / SERVICE), unit(command, root=str(state), user=user), "the service")]
    by_hand: list[str] = []
    _plan_storage_conf(files, by_hand, mount, user, prefix, environ)
    start = f"systemctl {'--user ' if user else ''}enable --now {DAEMON}"
    return Plan(user, mount, tuple(files), tuple(by_hand), start)


def _plan_storage_conf(
    files: list[PlannedFile],
    by_hand: list[str],
    mount: Path,
    user: bool,
    prefix: Path,
    environ: Mapping[str, str],
) -> None:
    """A new file where there is none; a file of somebody else gets its line from a person."""
    number = (os.geteuid() or 1) if user else 0
    path = _under(prefix, place(environ, user=number))
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        text = ""
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    ours = not text or text.startswith("# Written by registry-storagectl install")
    fresh = with_store("", mount, new_tables(environ, user=number))
    if ours:
        files.append(PlannedFile(path, fresh, "tells podman and CRI-O"))
        return
    try:
        if with_store(text, mount) == text:
            return
        reason = ""
    except ConfigError as error:
        reason = f" ({error})"
    line = f"additionallayerstores = [{json.dumps(entry(mount))}]"
    by_hand.append(f"{path} is somebody else's{reason}: put this into it, in [storage.options]:\n    {line}")


def daemon_command() -> list[str]:
    """How the daemon of this installation is started."""
    script = Path(sysconfig.get_path("scripts"), DAEMON)
    if script.is_file():
        return [str(script)]
    found = shutil.which(DAEMON)
    return [found] if found else [sys.executable, "-m", "registry_storage"]


def check(planned: Plan) -> str:
    """What storage.conf lacks after the plan was carried out; empty: nothing."""
    try:
        stores = StorageConf.load(user=(os.geteuid() or 1) if planned.user else 0).stores
    except ConfigError as error:
        return str(error)
    return "" if entry(planned.mountpoint) in stores else f"storage.conf does not name {entry(planned.mountpoint)} yet"


def _under(prefix: Path, path: Path) -> Path:
    return prefix / path.relative_to("/") if prefix != Path("/") else path
