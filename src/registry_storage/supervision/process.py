"""A worker as its supervisor sees it: a process, and a channel to it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Self

from .handed import OPTION, Handed, say

MODULE = "registry_storage.supervision.worker_start"


def _interpreter() -> str:
    """The one that is installed now, or, where its directory is closed to this user, the one that we are."""
    return sys.executable if os.access(sys.executable, os.X_OK) else "/proc/self/exe"


class WorkerProcess:
    """Its process descriptor becomes readable when it ends."""

    def __init__(self, pid: int, descriptor: int, channel: socket.socket, *, prepared: bool) -> None:
        """`descriptor`: of the process. Both it and the channel are closed by `reap`."""
        channel.setblocking(False)
        self.pid = pid
        self.descriptor = descriptor
        self.channel = channel
        self.prepared = prepared
        self.started = time.monotonic()
        self.serving = False

    @classmethod
    def start(cls, handed: Handed, arguments: Sequence[str]) -> Self:
        """A new process; `handed.channel` is set here. Raises OSError."""
        channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            handed = replace(handed, channel=theirs.fileno())
            process = subprocess.Popen(
                [sys.executable, "-m", MODULE, OPTION, handed.to_text(), *arguments],
                executable=_interpreter(),
                pass_fds=(handed.device, handed.lock, handed.verified, handed.channel),
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a terminal's SIGINT is the supervisor's
            )
        process.returncode = 0  # it is waited for here
        return cls(process.pid, os.pidfd_open(process.pid), channel, prepared=False)

    @classmethod
    def spare(cls, channel: int, descriptor: int) -> Self:
        """The copy that a worker left, by the descriptors that it sent. It becomes our child when that worker ends."""
        lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
        pid = next(int(line.split()[1]) for line in lines if line.startswith("Pid:"))
        return cls(pid, descriptor, socket.socket(fileno=channel), prepared=True)

    def say(self, word: bytes) -> bool:
        """Tell it something; False: it is gone."""
        return say(self.channel, word)

    def hear(self) -> tuple[bytes, list[int]]:
        """What it says, and the descriptors that came along; nothing when it is gone or silent."""
        try:
            word, descriptors, _, _ = socket.recv_fds(self.channel, 64, 2)
        except OSError:
            return b"", []
        return word, descriptors

    def kill(self) -> None:
        """SIGKILL."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.descriptor, signal.SIGKILL)

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
        try:
            ended = os.waitid(os.P_PIDFD, self.descriptor, os.WEXITED)
        except ChildProcessError:  # a spare, still the child of the worker that left it
            ended = None
        os.close(self.descriptor)
        self.channel.close()
        if ended is None:
            return 0
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
