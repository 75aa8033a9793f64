"""The process that serves a mount which its supervisor holds."""

import argparse
import ctypes
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import trio

from .. import __version__, logs, traces
from ..cli import build_parser, report
from ..config import Settings
from ..daemon import check, run
from ..errors import RegistryStorageError
from ..flags import effective_settings
from . import privileges
from .handed import GO, OPTION, PREPARED, Handed, say

_PR_SET_PDEATHSIG = 1


def _die_with_supervisor() -> None:
    """Without it nobody would hold the mount together; whoever comes next starts a worker of its own."""
    supervisor = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:
        sys.exit(1)


def _settings(arguments: Sequence[str]) -> tuple[Settings, Path]:
    given = build_parser().parse_args(arguments)
    settings = effective_settings(given).settings
    return replace(settings, root=settings.root.absolute()), given.mountpoint.absolute()


def main(arguments: Sequence[str]) -> int:
    """Prepare, wait for the word, and serve; the exit status: 0 when told to end or the mount is gone.

    Whatever is wrong with the settings is found before the word: an earlier worker then goes on.
    """
    _die_with_supervisor()
    privileges.give_up()
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(OPTION, type=Handed.from_text, required=True, dest="handed")
    given, rest = parser.parse_known_args(arguments[:2])
    handed: Handed = given.handed
    channel = socket.socket(fileno=handed.channel)
    try:
        settings, mountpoint = _settings([*rest, *arguments[2:]])
        logs.set_up(settings.log_level, settings.log_format)
        check(settings)
        finish = traces.set_up(settings.traces, __version__) if settings.traces else _nothing
        if not say(channel, PREPARED) or channel.recv(64) != GO:
            return 0
        trio.run(run, settings, mountpoint, handed, channel, finish, _end)
    except* RegistryStorageError as group:
        report(group)
    return 1


def _nothing() -> None:
    pass


def _end() -> NoReturn:
    """At once: what threads are doing is of no use to anybody, and the next worker waits for our end."""
    logging.shutdown()
    os._exit(0)
