"""Programs that the laboratory starts: each one is waited for or ended by its own id."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

DEFAULT_TIMEOUT_SECONDS = 600.0


class ProgramError(Exception):
    """A program ended badly; the message holds the command and the end of what it said."""


def run(
    command: Sequence[str | os.PathLike[str]],
    *,
    environment: Mapping[str, str] | None = None,
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    allow_failure: bool = False,
    directory: Path | None = None,
    input_text: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end; its output is captured. Raises ProgramError unless `allow_failure`."""
    words = [os.fspath(word) for word in command]
    try:
        done = subprocess.run(
            words,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL if input_text is None else None,
            input=input_text,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_seconds,
            cwd=directory,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ProgramError(f"{' '.join(words)}: no end after {timeout_seconds:.0f} seconds") from error
    if done.returncode != 0 and not allow_failure:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-25:])
        raise ProgramError(f"{' '.join(words)}: exit status {done.returncode}\n{said}")
    return done


class Background:
    """A program that runs beside us. It ends with this process at the latest (parent-death signal)."""

    def __init__(
        self,
        command: Sequence[str | os.PathLike[str]],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
    ) -> None:
        self.words = [os.fspath(word) for word in command]
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", "--", *self.words],
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=directory,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def is_running(self) -> bool:
        return self.process.poll() is None

    def wait_until(self, ready: Callable[[], bool], *, what: str, timeout_seconds: float = 30.0) -> None:
        """Waits for `ready`; raises ProgramError when the program ends before or time runs out."""
        deadline = time.monotonic() + timeout_seconds
        while not ready():
            if not self.is_running():
                status = self.process.returncode
                raise ProgramError(
                    f"{' '.join(self.words)}: ended with {status} before {what}\n{self.tail()}"
                )
            if time.monotonic() > deadline:
                self.stop()
                raise ProgramError(
                    f"{' '.join(self.words)}: not {what} after {timeout_seconds:.0f} s\n{self.tail()}"
                )
            time.sleep(0.02)

    def stop(self, timeout_seconds: float = 20.0) -> int:
        """SIGTERM, then SIGKILL; the exit status. Does nothing to a program that has ended."""
        if self.is_running():
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout_seconds)
            except subprocess.TimeoutExpired:
                print(f"{self.words[0]} did not end after SIGTERM: killed", file=sys.stderr)
                self.process.kill()
        return self.process.wait()

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        self.process.kill()
        self.process.wait()

    def tail(self, lines: int = 25) -> str:
        """The end of the log."""
        with contextlib.suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        return ""


def free_port() -> int:
    """A TCP port of the loopback interface that nothing uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int) -> bool:
    """Whether something accepts connections at this port of the loopback interface."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
