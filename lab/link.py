"""A simulated link in front of a registry: benchmarks/link.py as a process of its own."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from lab import processes


@dataclass(frozen=True, slots=True)
class Crossed:
    """What crossed the link between two looks at it."""

    down_bytes: int
    up_bytes: int
    connections: int
    requests: int


class Link:
    """Listens at `host` between `with` and its end; 0 means unlimited or no delay."""

    def __init__(self, far: str, *, rtt_ms: float = 0.0, mbit: float = 0.0) -> None:
        self.far = far
        self.rtt_ms = rtt_ms
        self.mbit = mbit
        self.host = ""
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        words = ["--to", self.far, "--rtt-ms", str(self.rtt_ms), "--mbit", str(self.mbit)]
        # It ends by itself when our end of its standard input is closed, in whatever way we end.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.link", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent.parent,
            start_new_session=True,
        )
        self.host = self._read_line()
        return self

    def crossed(self) -> Crossed:
        """The counters since the last call."""
        pipe = self._running().stdin
        assert pipe is not None
        pipe.write("\n")
        pipe.flush()
        return Crossed(**json.loads(self._read_line()))

    def cpu_seconds(self) -> float:
        """Processor time that the proxy has used."""
        fields = Path(f"/proc/{self._running().pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _read_line(self) -> str:
        process = self._running()
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise processes.ProgramError(f"the link to {self.far} ended with {process.wait()}")
        return line.strip()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise processes.ProgramError(f"the link to {self.far} is not running")
        return self._process

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            with self._process:  # closes the pipes, then waits
                pass
            self._process = None
