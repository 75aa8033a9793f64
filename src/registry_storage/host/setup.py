"""What belongs where so that the daemon runs and podman uses it: planned, so that it can be shown, done and undone."""

import os
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..config import user_root
from ..errors import ConfigError
from ..names import CONTROL, DAEMON, DEFAULT_MOUNTPOINT, DEFAULT_ROOT
from ..podman.storage_conf import IMAGE_STORES, LAYER_STORES, StorageConf, place
from .storage_lines import Stores, layer_entry, new_tables, with_stores
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
    images: Path
    """The additional image store."""
    stores: Stores
    """Of which podman is told."""
    files: tuple[PlannedFile, ...]
    by_hand: tuple[str, ...]
    """What must be added to files of somebody else, in words and lines."""
    start: str
    """The command that starts the service."""
    command: tuple[str, ...]
    """What the service runs."""
    settings: Mapping[str, Path]
    """Those that its command line sets."""
    doctor: tuple[str, ...]
    """The command that looks whether all is well."""


def plan(
    *,
    user: bool,
    mountpoint: Path | None = None,
    root: Path | None = None,
    images: Path | None = None,
    layer_store: bool = True,
    prefix: Path = Path("/"),
    environ: Mapping[str, str] | None = None,
) -> Plan:
    """For this host, with root's units or a user's.

    `layer_store`: whether its podman can use one. `prefix`: what stands for ``/`` (for packages and tests).
    """
    environ = os.environ if environ is None else environ
    home = Path(environ.get("HOME") or os.path.expanduser("~"))
    state = root or (user_root(environ) if user else Path(DEFAULT_ROOT))
    mount = mountpoint or (state / "store" if user or root else Path(DEFAULT_MOUNTPOINT))
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    units = config / "systemd/user" if user else Path("/etc/systemd/system")
    settings = {**({"root": state} if user or root else {}), **({"images": images} if images else {})}
    flags = [word for name, path in settings.items() for word in (f"--{name}", str(path))]
    command = [*(in_podmans_namespace() if user else ()), *_program(DAEMON, "registry_storage"), *flags, str(mount)]
    stores = Stores(mount if layer_store else None, images or state / "images")
    at_root = ["--root", str(state)] if "root" in settings else []
    reload = [*_program(CONTROL, "registry_storage.ctl"), "upgrade", *at_root]
    text = unit(command, reload, root=str(state), user=user, mountpoint=str(mount))
    files = [PlannedFile(_under(prefix, units / SERVICE), text, "the service")]
    by_hand: list[str] = []
    _plan_storage_conf(files, by_hand, stores, mount, user, prefix, environ)
    start = f"systemctl {'--user ' if user else ''}enable --now {DAEMON}"
    return Plan(
        user, mount, images or state / "images", stores, tuple(files), tuple(by_hand), start, tuple(command), settings,
        tuple(_doctor(user, at_root)),
    )  # fmt: skip


def _doctor(user: bool, at_root: list[str]) -> list[str]:
    if not user:
        return [CONTROL, "doctor", *at_root]
    program = _program(CONTROL, "registry_storage.ctl")
    return [*in_podmans_namespace()[:2], *program, "doctor", *at_root]


def _plan_storage_conf(
    files: list[PlannedFile],
    by_hand: list[str],
    stores: Stores,
    mount: Path,
    user: bool,
    prefix: Path,
    environ: Mapping[str, str],
) -> None:
    """A new file where there is none; a file of somebody else gets its lines from a person."""
    number = (os.geteuid() or 1) if user else 0
    path = _under(prefix, place(environ, user=number))
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        text = ""
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    if not text or text.startswith("# Written by registry-storagectl install"):
        fresh = with_stores("", stores, new_tables(environ, user=number))
        files.append(PlannedFile(path, fresh, "tells podman and CRI-O"))
        return
    try:
        there = StorageConf.read(path)
        lacking = Stores(
            None if stores.layers and layer_entry(stores.layers) in there.layer_stores else stores.layers,
            None if str(stores.images) in there.image_stores else stores.images,
        )
        changed, reason = with_stores(text, stores), ""
    except ConfigError as error:
        there, lacking, changed, reason = StorageConf(path), stores, "", f" ({error})"
    if changed != text:
        lines = "".join(f"\n    {line}" for line in lacking.lines())
        by_hand.append(f"{path} is somebody else's{reason}: put this into it, in [storage.options]:{lines}")
    if stores.layers is None and layer_entry(mount) in there.layer_stores:
        forgotten = "this podman forgets layers from there"
        by_hand.append(f"{path}: take {layer_entry(mount)} out of {LAYER_STORES}: {forgotten}")


def in_podmans_namespace() -> list[str]:
    """What a user's daemon is started with: where a rootless podman is, layers have the owners that it maps.

    systemd takes podman for the main process, and the daemon sends its signs of life all the same.
    """
    return [shutil.which("podman") or "/usr/bin/podman", "unshare", "env", "-u", "WATCHDOG_PID"]


def _program(name: str, module: str) -> list[str]:
    """How a program of this installation is started."""
    script = Path(sysconfig.get_path("scripts"), name)
    if script.is_file():
        return [str(script)]
    found = shutil.which(name)
    return [found] if found else [sys.executable, "-m", module]


def check(planned: Plan) -> str:
    """What storage.conf lacks after the plan was carried out; empty: nothing."""
    try:
        conf = StorageConf.load(user=(os.geteuid() or 1) if planned.user else 0)
    except ConfigError as error:
        return str(error)
    named = {LAYER_STORES: conf.layer_stores, IMAGE_STORES: conf.image_stores}
    lacking = [entry for key, entry in planned.stores.entries().items() if entry not in named[key]]
    return f"{conf.path} does not name {' and '.join(lacking)} yet" if lacking else ""


def _under(prefix: Path, path: Path) -> Path:
    return prefix / path.relative_to("/") if prefix != Path("/") else path
