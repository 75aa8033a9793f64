"""The command ``registry-storagectl``."""

import argparse
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio

from . import __version__, logs
from .commands import (
    cache,
    convert,
    doctor,
    explain,
    images,
    install,
    look,
    optimize,
    repair,
    settings,
    status,
    top,
    upgrade,
)
from .errors import InvalidInputError, RegistryStorageError
from .names import CONTROL

_BARE = ("--zstd-chunked", "--zstdchunked")
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog=CONTROL,
        description="Make images lazily pullable, look into them, and look after the daemon.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{CONTROL} {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    convert.add_parser(commands)
    optimize.add_parser(commands)
    look.add_parsers(commands)
    explain.add_parser(commands)
    doctor.add_parser(commands)
    settings.add_parser(commands)
    status.add_parsers(commands)
    top.add_parser(commands)
    install.add_parsers(commands)
    repair.add_parser(commands)
    upgrade.add_parser(commands)
    cache.add_parser(commands)
    images.add_parsers(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status: 0, 1 when it failed, 2 for misuse, 128 and the signal's number after one."""
    words = sys.argv[1:] if arguments is None else arguments
    # The kind is behind a "="; argparse would take SRC for it.
    given = build_parser().parse_args([f"{word}=podman" if word in _BARE else word for word in words])
    logs.set_up("warning", "text")
    try:
        asked = given.read(given)
    except InvalidInputError as error:
        return _complain(error, 2)
    status = 1
    try:
        status = trio.run(_until_signalled, given.run, asked)
    except* (RegistryStorageError, OSError) as group:
        errors = _leaves(group)
        for text in dict.fromkeys(_words(error) for error in errors):
            _complain(text, 1)
    return status


async def _until_signalled(command: Callable[[Any], Awaitable[int]], asked: object) -> int:
    """Run the command; a signal cancels it, and what it began is undone on the way out."""
    status = 0
    async with trio.open_nursery() as nursery:

        async def listen(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
            nonlocal status
            with trio.open_signal_receiver(*_SIGNALS) as signals:
                task_status.started()
                async for number in signals:
                    status = _complain(f"stopped by {signal.Signals(number).name}", 128 + number)
                    nursery.cancel_scope.cancel()

        await nursery.start(listen)
        status = await command(asked)
        nursery.cancel_scope.cancel()
    return status


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def _complain(what: object, status: int) -> int:
    sys.stderr.write(f"{CONTROL}: {logs.printable(str(what))}\n")
    return status


def _leaves(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


if __name__ == "__main__":
    sys.exit(main())
