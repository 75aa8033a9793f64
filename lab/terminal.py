"""A terminal of a given size, by a tmux of its own."""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from lab import processes

PATIENCE_SECONDS = 60.0


class Terminal:
    """Runs `command` between `with` and its end, then says ``ended with`` its status. `socket`: tmux's own."""

    def __init__(self, socket: Path, width: int, height: int, command: str) -> None:
        self._socket = socket
        self._words = ["-f", "/dev/null", "new-session", "-d", "-x", str(width), "-y", str(height)]
        self._command = f"{command}; echo ended with $?; cat"

    def __enter__(self) -> Self:
        self._tmux(*self._words, self._command)
        return self

    def types(self, keys: str) -> None:
        """As tmux names them."""
        self._tmux("send-keys", keys)

    def shows(self, wanted: Callable[[str], bool]) -> str:
        """The screen, as soon as it is as wanted. Raises ProgramError after a minute."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not wanted(screen := self._tmux("capture-pane", "-p")):
            if time.monotonic() > deadline:
                raise processes.ProgramError(f"not what was wanted:\n{screen}")
            time.sleep(0.1)
        return screen

    def _tmux(self, *words: str) -> str:
        environment = os.environ | {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
        command = ["tmux", "-S", str(self._socket), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            self._tmux("kill-server")
