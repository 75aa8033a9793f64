"""The process that serves a mount which its supervisor holds."""

import argparse
import ctypes
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import trio

from .. import __version__, clock, logs, metrics, traces
from ..cli import build_parser, report
from ..config import Settings
from ..daemon import check, run
from ..errors import RegistryStorageError
from ..flags import effective_settings
from . import privileges
from .handed import GO, OPTION, PREPARED, SPARE, Handed, say

_log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1


def _die_with(supervisor: int) -> None:
    """Without it nobody would hold the mount together; whoever comes next starts a worker of its own."""
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
    supervisor = os.getppid()
    _die_with(supervisor)
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
        if not say(channel, PREPARED):
            return 0
        while channel.recv(64) == GO:
            _die_with(supervisor)  # a spare is its child since the worker before it ended
            spare = _fork_spare(channel)
            if spare is None:
                break
            channel, handed = spare, replace(handed, channel=spare.fileno(), again=True)
        else:
            return 0
        metrics.begin()
        clock.begin()
        finish = traces.set_up(settings.traces, __version__) if settings.traces else _nothing
        trio.run(run, settings, mountpoint, handed, channel, finish, _end)
    except* RegistryStorageError as group:
        report(group)
    return 1


def _fork_spare(channel: socket.socket) -> socket.socket | None:
    """Leave a copy of this process, loaded and with nothing begun, for the moment when this one dies.

    It costs little: what both have loaded is in memory once. In the copy: its own channel to the supervisor.
    """
    gc.freeze()  # or collecting would write to every page that is shared
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        copy = os.fork()
    except OSError as error:
        _log.warning("there is no spare worker: %s", error.strerror)
        ours.close()
        theirs.close()
        return None
    if copy == 0:
        ours.close()
        channel.close()
        return theirs
    theirs.close()
    with ours, suppress(OSError):  # the supervisor is gone: so are we soon, and the spare hears it, too
        descriptor = os.pidfd_open(copy)
        socket.send_fds(channel, [SPARE], [ours.fileno(), descriptor])
        os.close(descriptor)
    return None


def _nothing() -> None:
    pass


def _end() -> NoReturn:
    """At once: what threads are doing is of no use to anybody, and the next worker waits for our end."""
    logging.shutdown()
    os._exit(0)
