"""A worker as its supervisor sees it: a process, and a channel to it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from .handed import OPTION, Handed, say

MODULE = "registry_storage.supervision.worker_start"


def _interpreter() -> str:
    """The one that is installed now, or, where its directory is closed to this user, the one that we are."""
    return sys.executable if os.access(sys.executable, os.X_OK) else "/proc/self/exe"


class WorkerProcess:
    """Started from construction; its process descriptor becomes readable when it ends."""

    def __init__(self, handed: Handed, arguments: Sequence[str]) -> None:
        """`handed.channel` is set here. Raises OSError."""
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel.setblocking(False)
        self.started = time.monotonic()
        self.prepared = False
        self.serving = False
        with theirs:
            handed = replace(handed, channel=theirs.fileno())
            self._process = subprocess.Popen(
                [sys.executable, "-m", MODULE, OPTION, handed.to_text(), *arguments],
                executable=_interpreter(),
                pass_fds=(handed.device, handed.lock, handed.verified, handed.channel),
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a terminal's SIGINT is the supervisor's
            )
        self.descriptor = os.pidfd_open(self._process.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    def say(self, word: bytes) -> bool:
        """Tell it something; False: it is gone."""
        return say(self.channel, word)

    def hear(self) -> bytes:
        """What it says; nothing when it is gone or silent."""
        try:
            return self.channel.recv(64)
        except OSError:
            return b""

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()

    def is_stuck(self) -> bool:
        """It was killed, and a thread of it does not end: the kernel waits in it for something, maybe for us.

        Nothing of it runs any more but that.
        """
        try:
            status = dict(line.split(":\t", 1) for line in Path(f"/proc/{self.pid}/status").read_text().splitlines())
        except OSError:
            return False
        pending = int(status["SigPnd"], 16) | int(status["ShdPnd"], 16)
        return bool(pending & 1 << signal.SIGKILL - 1) or status["State"][0] in "ZX"

    def reap(self) -> int:
        """After its descriptor was readable: its exit status, or minus the signal that ended it."""
        status = self._process.wait()
        os.close(self.descriptor)
        self.channel.close()
        return status
