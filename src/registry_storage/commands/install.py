"""``registry-storagectl install`` and ``uninstall``: the service, and what podman is told of its stores."""

import argparse
import contextlib
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import trio

from ..config import load_settings
from ..errors import InvalidInputError
from ..host import written
from ..host.podman import known_version
from ..host.setup import Plan, check, plan
from ..host.written import State
from ..images.repair import make_store
from ..names import DAEMON
from . import doctor

_SYSTEMD_RUNS = Path("/run/systemd/system")


@dataclass(frozen=True, slots=True)
class Arguments:
    """What the command line says."""

    plan: Plan
    print_only: bool
    now: bool
    elsewhere: bool
    """Files are written for another system, so nothing here is told about them."""


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the commands."""
    for name, run, text, more in (
        (
            "install",
            run_install,
            "write the systemd unit, and tell podman and CRI-O about the stores",
            "Write the systemd unit and, where there is none, storage.conf(5); of a storage.conf that somebody else "
            "wrote the lines are printed that must be added to it. Podman is told of the layer store and of the image "
            "store; podman 5.5 and later only of the latter. May be repeated; never changes what it did not write.",
        ),
        (
            "uninstall",
            run_uninstall,
            "remove what install wrote",
            "Stop the service and remove the files that install wrote, unless somebody changed them since. The cache "
            "stays. May be repeated.",
        ),
    ):
        parser = commands.add_parser(name, help=text, description=more, allow_abbrev=False)
        parser.add_argument("--user", action="store_true", help="for this user without root, by a unit of theirs")
        parser.add_argument("--mountpoint", type=Path, metavar="DIR", help="where the layers are shown")
        parser.add_argument("--root", type=Path, metavar="DIR", help="where contents and state are kept")
        parser.add_argument(
            "--images", type=Path, metavar="DIR", help="where the image store is (default: images in the root)"
        )
        parser.add_argument(
            "--layer-store",
            action=argparse.BooleanOptionalAction,
            help="tell podman of the layer store (default: not podman 5.5 and later, which forgets its layers)",
        )
        parser.add_argument("--prefix", type=Path, metavar="DIR", default=Path("/"), help="the / of another system")
        if name == "install":
            parser.add_argument("--print", action="store_true", dest="print_only", help="only show what it would write")
            parser.add_argument("--now", action="store_true", help="also start the service, then do what doctor does")
        parser.set_defaults(read=read, run=run)


def read(given: argparse.Namespace) -> Arguments:
    """Raises InvalidInputError for paths that are not absolute, and for a unit of root without root."""
    for name in ("mountpoint", "root", "images", "prefix"):
        path = getattr(given, name)
        if path is not None and not path.is_absolute():
            raise InvalidInputError(f"--{name}: wanted an absolute path, got {path}")
    print_only = getattr(given, "print_only", False)
    elsewhere = given.prefix != Path("/")
    now = getattr(given, "now", False)
    if now and (print_only or elsewhere):
        raise InvalidInputError("--now starts the service here: not with --print or --prefix")
    if not (given.user or print_only or elsewhere or os.geteuid() == 0):
        raise InvalidInputError("only root can write the system's unit; --user is for one user without root")
    layer_store = given.layer_store
    if layer_store is None:
        podman = None if elsewhere else known_version()
        layer_store = podman is None or not podman.forgets_layers
    planned = plan(
        user=given.user,
        mountpoint=given.mountpoint,
        root=given.root,
        images=given.images,
        layer_store=layer_store,
        prefix=given.prefix,
    )
    return Arguments(planned, print_only, now, elsewhere)


async def run_install(arguments: Arguments) -> int:
    """1 when something is left for a person to do."""
    planned = arguments.plan
    if arguments.print_only:
        for file in planned.files:
            _say(f"# {file.path} ({file.why})\n{file.text}")
        for words in planned.by_hand:
            _say(words)
        _say(f"# then: {planned.start}")
        return 0
    status = 0
    for file in planned.files:
        try:
            changed = written.write(file.path, file.text)
        except FileExistsError:
            status = 1
            what = f"{file.path}: left alone, because somebody else wrote or changed it"
            sys.stderr.write(f"{what}; wanted:\n{file.text}")
        else:
            _say(f"{file.path}: {'written' if changed else 'already as it should be'} ({file.why})")
    for words in planned.by_hand:
        status = 1
        sys.stderr.write(words + "\n")
    if not arguments.elsewhere:
        _make_directories(planned)
        if not planned.by_hand and (lacking := check(planned)):
            status = 1
            sys.stderr.write(f"{lacking}\n")
        _systemctl(planned, "daemon-reload")
        if arguments.now and not status:
            return await _start(planned)
        _say(f"next: {planned.start}, then {shlex.join(planned.doctor)}")
    return status


async def _start(planned: Plan) -> int:
    """Start the service, and look whether all is well; the exit status."""
    status = _systemctl(planned, "enable", "--now", DAEMON)
    if status is None:
        sys.stderr.write(f"systemd does not run here; start this by hand: {shlex.join(planned.command)}\n")
        return 1
    if planned.user and not status:  # the mount is where podman is
        return (await trio.run_process(planned.doctor, check=False)).returncode
    return status or await doctor.look(load_settings(None, planned.settings))


async def run_uninstall(arguments: Arguments) -> int:
    """1 when something of ours was changed by somebody, and stays."""
    planned = arguments.plan
    status = 0
    if not arguments.elsewhere and written.state_of(planned.files[0].path) is State.OURS:
        _systemctl(planned, "disable", "--now", DAEMON)
    for file in planned.files:
        was = written.remove(file.path)
        if was is State.OURS:
            _say(f"{file.path}: removed")
        elif was is State.CHANGED:
            status = 1
            sys.stderr.write(f"{file.path}: left alone, because somebody changed it\n")
    if not arguments.elsewhere:
        with contextlib.suppress(OSError):
            planned.mountpoint.rmdir()
            planned.mountpoint.parent.rmdir()
        _systemctl(planned, "daemon-reload")
        if planned.mountpoint.parent.is_dir():
            _say(f"{planned.mountpoint.parent}: the cache stays; rm -rf removes it, when no container uses it")
    for words in planned.by_hand:
        _say(f"not ours: {words}".replace("put this into it, in", "if it is there, remove from"))
    return status


def _make_directories(planned: Plan) -> None:
    """Podman refuses to work while one of them is missing, even before the first start."""
    mountpoint = planned.mountpoint
    if not os.path.lexists(mountpoint):
        mountpoint.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mountpoint.mkdir(mode=0o755)
    make_store(planned.images)


def _systemctl(planned: Plan, *words: str) -> int | None:
    """Its status; None where systemd does not run. What it says goes to standard error."""
    program = shutil.which("systemctl")
    if program is None or not _SYSTEMD_RUNS.is_dir():
        return None
    return subprocess.run([program, *(["--user"] if planned.user else []), *words], check=False).returncode


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
