"""``registry-storagectl doctor``: what keeps layers from being lazy on this host, and what to do about it."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from .. import __version__
from ..config import Settings, images_path
from ..control.address import socket_path
from ..control.client import connect
from ..errors import ConfigError, RegistryStorageError
from ..flags import add_settings, effective_settings
from ..host import local, remote, stores
from ..host.finding import Finding, Level, failure, ok, warning
from ..host.podman import known_version
from ..logs import printable
from ..names import DAEMON
from ..podman.storage_conf import StorageConf
from ..reference import Reference
from ..registry.surroundings import Surroundings

_ANSWER_SECONDS = 10.0
_MOST_REGISTRIES = 8


@dataclass(frozen=True, slots=True)
class Arguments:
    """What the command line says."""

    settings: Settings | None
    problem: str
    """Why there are no settings."""
    images: tuple[Reference, ...]
    as_json: bool


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "doctor",
        help="look for what keeps layers from being lazy here, and say what to do",
        description="Look at kernel, FUSE, disk, mount, podman, its configuration, and the registries of IMAGEs "
        "(default: those that are in use). Each line is ok, a warning, or a failure with what to do. The status is 1 "
        "when there is a failure.",
        allow_abbrev=False,
    )
    parser.add_argument("names", nargs="*", metavar="IMAGE", help="an image whose registry to look at")
    parser.add_argument("--json", action="store_true", dest="as_json", help="for machines")
    add_settings(parser)
    parser.set_defaults(read=read, run=run)


def read(given: argparse.Namespace) -> Arguments:
    """Settings that cannot be loaded are a finding. Raises InvalidReferenceError."""
    images = tuple(Reference.parse(text) for text in given.names)
    try:
        settings = effective_settings(given).settings
    except ConfigError as error:
        return Arguments(None, str(error), images, given.as_json)
    return Arguments(settings, "", images, given.as_json)


async def look(settings: Settings) -> int:
    """As the command does without an image; its status."""
    return await run(Arguments(settings, "", (), as_json=False))


async def run(arguments: Arguments) -> int:
    """Print the findings; 1 when one is a failure."""
    findings = []
    async with trio.open_nursery() as nursery:
        send, receive = trio.open_memory_channel[Finding](0)
        nursery.start_soon(_look, arguments, send)
        async for finding in receive:
            findings.append(finding)
            if not arguments.as_json:
                _print(finding)
    if arguments.as_json:
        document = [
            {"subject": one.subject, "level": one.level.value, "said": one.said, "mend": one.mend} for one in findings
        ]
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    return int(any(finding.level is Level.FAILURE for finding in findings))


async def _look(arguments: Arguments, send: trio.MemorySendChannel[Finding]) -> None:
    machine = local.Machine()
    async with send:

        async def tell(check: Callable[[], Iterable[Finding]]) -> None:
            for finding in await _in_time(check):
                await send.send(finding)

        await tell(lambda: local.check_kernel(machine))
        await tell(lambda: local.check_device(machine))
        settings = arguments.settings
        if settings is None:
            mend = f"mend the file; registry-storagectl config checks it, {DAEMON} --help explains the settings"
            await send.send(failure("configuration", arguments.problem, mend))
            settings = Settings()
        await tell(lambda: local.check_root(settings, machine))
        daemon = await _ask_daemon(settings, send)
        for store in await _mountpoints(daemon.mountpoint):
            await tell(lambda store=store: local.check_mount(store))  # type: ignore[misc]
        await tell(lambda: local.check_podman(machine))
        load, images = StorageConf.load, daemon.images
        await tell(lambda: stores.check_storage_conf(load, daemon.mountpoint, images, known_version(machine.podman)))
        await tell(lambda: stores.check_image_stores(load, images, machine.listed_images))
        around = Surroundings.of(settings)
        async for finding in remote.check_files(around):
            await send.send(finding)
        references = arguments.images or daemon.references
        async with around.client() as client:
            async for finding in remote.check_registries(client, references, settings.platform):
                await send.send(finding)
        if not references:
            await send.send(ok("registry", "no image is in use yet: name one to look at its registry"))


@dataclass(frozen=True, slots=True)
class Daemon:
    """What the running daemon says of itself, or would."""

    images: Path
    """Its image store."""
    mountpoint: Path | None = None
    references: tuple[Reference, ...] = ()
    """One image of each registry."""


async def _ask_daemon(settings: Settings, send: trio.MemorySendChannel[Finding]) -> Daemon:
    absent = Daemon(images_path(settings).absolute())
    try:
        with trio.fail_after(_ANSWER_SECONDS):
            async with connect(socket_path(settings)) as client:
                status = await client.get("/v1/status")
    except trio.TooSlowError:
        said = f"it does not answer within {_ANSWER_SECONDS:g} s"
        await send.send(failure("daemon", said, f"look into its log: journalctl -u {DAEMON}"))
        return absent
    except (RegistryStorageError, OSError) as error:
        await send.send(failure("daemon", str(error), f"systemctl start {DAEMON}, or say where it is: --root"))
        return absent
    if status["version"] != __version__:
        said = f"process {status['pid']} is version {status['version']}, this is {__version__}"
        await send.send(warning("daemon", said, f"systemctl restart {DAEMON}"))
    else:
        await send.send(ok("daemon", f"process {status['pid']}, version {status['version']}"))
    found: dict[str, Reference] = {}
    for layer in status["layers"]:
        for link in layer["links"]:
            reference = Reference.parse(link["reference"])
            found.setdefault(reference.host, reference)
    images = Path(status.get("images", absent.images))  # an older daemon does not say
    return Daemon(images, Path(status["mountpoint"]), tuple(found.values())[:_MOST_REGISTRIES])


async def _mountpoints(served: Path | None) -> list[Path]:
    """Where podman looks; else where the daemon serves."""
    try:
        named = StorageConf.load().layer_stores
    except ConfigError:
        named = ()
    paths = [Path(store.rpartition(":")[0] or store) for store in named]
    if served is not None and served not in paths:
        paths.append(served)
    return paths


async def _in_time(check: Callable[[], Iterable[Finding]]) -> Sequence[Finding]:
    """A dead file system may hold a check up for ever."""
    with trio.move_on_after(_ANSWER_SECONDS):
        return await trio.to_thread.run_sync(lambda: list(check()), abandon_on_cancel=True)
    return [failure("mount", "a file system does not answer", f"look into the log: journalctl -u {DAEMON}")]


def _print(finding: Finding) -> None:
    mark = {Level.OK: "ok     ", Level.WARNING: "WARNING", Level.FAILURE: "FAILURE"}[finding.level]
    sys.stdout.write(f"{mark}  {finding.subject}: {printable(finding.said)}\n")
    if finding.mend:
        sys.stdout.write(f"         -> {printable(finding.mend)}\n")
    sys.stdout.flush()
