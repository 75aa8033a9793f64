"""``registry-storagectl top``: the daemon at work, on a full screen."""

import argparse
import json
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trio
from rich.console import Console
from rich.live import Live

from ..control.client import ControlClient, connect
from ..errors import InvalidInputError
from . import asking
from .top_view import Look, screen


@dataclass(frozen=True, slots=True)
class Arguments:
    """What the command line says."""

    socket: Path
    interval_seconds: float
    as_json: bool


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "top",
        help="watch the daemon at work",
        description="A live view of images, hosts and the longest waits. q or Ctrl-C ends it.",
        allow_abbrev=False,
    )
    parser.add_argument("--interval", type=float, default=1.0, metavar="S", help="seconds between looks (default: 1)")
    parser.add_argument("--json", action="store_true", dest="as_json", help="a JSON document a line, no screen")
    asking.add_options(parser)
    parser.set_defaults(read=read, run=run)


def read(given: argparse.Namespace) -> Arguments:
    """Raises InvalidInputError."""
    if not 0.1 <= given.interval <= 3600:
        raise InvalidInputError(f"--interval: wanted 0.1 to 3600, got {given.interval}")
    if not given.as_json and not sys.stdout.isatty():
        raise InvalidInputError("top needs a terminal; --json is for machines")
    return Arguments(asking.control_socket(given), given.interval, given.as_json)


async def run(arguments: Arguments) -> int:
    """Until q, a signal, or the daemon's end."""
    async with connect(arguments.socket) as client:
        if arguments.as_json:
            while True:
                now = await _look(client)
                sys.stdout.write(json.dumps({"status": now.status, "activity": now.activity}) + "\n")
                sys.stdout.flush()
                await trio.sleep(arguments.interval_seconds)
        before = now = await _look(client)
        console = Console(highlight=False)
        with _single_keys(), Live(console=console, screen=True, auto_refresh=False) as live:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_end_on_q, nursery.cancel_scope)
                while True:
                    live.update(screen(before, now, width=console.width, height=console.height), refresh=True)
                    await trio.sleep(arguments.interval_seconds)
                    before, now = now, await _look(client)
    return 0


async def _look(client: ControlClient) -> Look:
    return Look(trio.current_time(), await client.get("/v1/status"), await client.get("/v1/activity"))


async def _end_on_q(scope: trio.CancelScope) -> None:
    if not sys.stdin.isatty():
        return
    while True:
        await trio.lowlevel.wait_readable(sys.stdin)
        if sys.stdin.read(1) in ("q", "Q", ""):
            scope.cancel()
            return


@contextmanager
def _single_keys() -> Iterator[None]:
    """A key counts at once and is not shown; the terminal is as before afterwards."""
    if not sys.stdin.isatty():
        yield
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
