"""The command ``registry-storagectl``."""

import argparse
import importlib
import inspect
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from . import __version__, logs
from .errors import InvalidInputError, RegistryStorageError
from .names import CONTROL

_BARE = ("--zstd-chunked", "--zstdchunked")
_COMMANDS: Mapping[str, tuple[str, ...]] = {
    "convert": ("convert",),
    "optimize": ("optimize",),
    "look": ("inspect", "verify", "get-toc-digest"),
    "explain": ("explain",),
    "doctor": ("doctor",),
    "settings": ("config",),
    "status": ("status", "ls"),
    "top": ("top",),
    "install": ("install", "uninstall"),
    "repair": ("repair",),
    "upgrade": ("upgrade",),
    "cache": ("cache",),
    "images": ("add", "remove", "refresh", "list"),
}
"""Modules of `commands` and what each adds, in the order of --help."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The command line; with a known `command` only what it needs is loaded, since people wait for it."""
    parser = argparse.ArgumentParser(
        prog=CONTROL,
        description="Make images lazily pullable, look into them, and look after the daemon.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{CONTROL} {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in [name for name, words in _COMMANDS.items() if command in words] or _COMMANDS:
        importlib.import_module(f".commands.{module}", __package__).add_parsers(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status: 0, 1 when it failed, 2 for misuse, 128 and the signal's number after one."""
    words = sys.argv[1:] if arguments is None else arguments
    # The kind is behind a "="; argparse would take SRC for it.
    parser = build_parser(words[0] if words else None)
    given = parser.parse_args([f"{word}=podman" if word in _BARE else word for word in words])
    logs.set_up("warning", "text")
    try:
        asked = given.read(given)
    except InvalidInputError as error:
        return _complain(error, 2)
    status = 1
    run = _in_trio if inspect.iscoroutinefunction(given.run) else _waiting
    try:
        status = run(given.run, asked)
    except* (RegistryStorageError, OSError) as group:
        errors = _leaves(group)
        for text in dict.fromkeys(_words(error) for error in errors):
            _complain(text, 1)
    return status


class _StoppedError(Exception):
    """By a signal."""


def _waiting(command: Callable[[Any], int], asked: object) -> int:
    """A command that only waits for the daemon; a signal ends it, and what it began is undone on the way out."""

    def stop(number: int, _: object) -> None:
        raise _StoppedError(number)

    for number in _SIGNALS:
        signal.signal(number, stop)
    try:
        return command(asked)
    except _StoppedError as stopped:
        return _stopped_by(stopped.args[0])


def _in_trio(command: Callable[[Any], Coroutine[Any, Any, int]], asked: object) -> int:
    """A command that does several things at a time; the same for signals."""
    import trio  # the others do not wait for it to be loaded

    status = 0

    async def until_signalled() -> int:
        nonlocal status
        async with trio.open_nursery() as nursery:

            async def listen(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
                nonlocal status
                with trio.open_signal_receiver(*_SIGNALS) as signals:
                    task_status.started()
                    async for number in signals:
                        status = _stopped_by(number)
                        nursery.cancel_scope.cancel()

            await nursery.start(listen)
            status = await command(asked)
            nursery.cancel_scope.cancel()
        return status

    return trio.run(until_signalled)


def _stopped_by(number: int) -> int:
    return _complain(f"stopped by {signal.Signals(number).name}", 128 + number)


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
