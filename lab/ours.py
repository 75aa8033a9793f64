"""Our own converter, as a person runs it."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from lab import processes

FORMATS: Mapping[str, str] = {
    "ours-estargz": "--estargz",
    "ours-zstd": "--zstd-chunked",
    "ours-stargz": "--zstd-chunked=stargz",
}
"""The option for each format; every kind of layer that we write."""


def command(*words: str | os.PathLike[str]) -> list[str]:
    """The words that run ``registry-storagectl words…``."""
    return [sys.executable, "-m", "registry_storage.ctl", *(os.fspath(word) for word in words)]


def environment(work: Path, **more: str) -> dict[str, str]:
    """Its temporary files below `work`; loopback registries need no configuration."""
    return {"PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": os.fspath(work), **more}


def run(work: Path, *words: str | os.PathLike[str], directory: Path | None = None, **more: str) -> str:
    """What it says on standard output; raises ProgramError when it fails."""
    return processes.run(command(*words), environment=environment(work, **more), directory=directory).stdout


def stopped_after(work: Path, seconds: float, number: signal.Signals, *words: str) -> int:
    """The exit status after a signal at that moment; the end of its own accord may come first."""
    process = subprocess.Popen(
        command(*words),
        env={**os.environ, **environment(work)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
        return process.wait(30)
    finally:
        process.kill()
        process.wait()
