"""Where the laboratory keeps what is expensive to make.

`LAYER_LAB` names the directory (default `/var/tmp/registry-storage-lab`); a name that begins with REGISTRY would
be taken by docker-registry for a setting of its own. A part of the laboratory is made
once, stamped with the version of its recipe, and made anew when the recipe changes. `make clean` leaves it
alone; removing the directory is always safe while nothing of it runs.
"""

import contextlib
import fcntl
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

VERSION = 1
"""Version of all recipes together; raising it makes everything anew."""

_thread_locks: dict[Path, threading.Lock] = {}
_thread_locks_guard = threading.Lock()


def lab_directory() -> Path:
    """The laboratory's directory, made when missing."""
    directory = Path(os.environ.get("LAYER_LAB", "/var/tmp/registry-storage-lab"))
    directory.mkdir(parents=True, exist_ok=True, mode=0o755)
    return directory


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds `path` (a lock file) for this process and this thread; waits for another holder."""
    with _thread_locks_guard:
        thread_lock = _thread_locks.setdefault(path, threading.Lock())
    path.parent.mkdir(parents=True, exist_ok=True)
    with thread_lock, path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_made(part: str, recipe: str) -> bool:
    """Whether `part` is there and was made by this version of its recipe."""
    stamp = _stamp(part)
    return stamp.is_file() and stamp.read_text() == _stamp_text(recipe)


def mark_made(part: str, recipe: str) -> None:
    """Remembers that `part` is complete."""
    stamp = _stamp(part)
    stamp.parent.mkdir(exist_ok=True)
    fresh = stamp.with_suffix(".new")
    fresh.write_text(_stamp_text(recipe))
    fresh.replace(stamp)


def mark_unmade(part: str) -> None:
    """Forgets that `part` is complete: called before it is changed."""
    _stamp(part).unlink(missing_ok=True)


def remove_tree(path: Path) -> None:
    """Removes a directory of which nothing may be mounted; raises OSError when something is."""
    for mounted in mounts_below(path):
        raise OSError(f"{path} is not removed: {mounted} is still mounted")
    if path.exists():
        shutil.rmtree(path)


@contextlib.contextmanager
def scratch(name: str) -> Iterator[Path]:
    """An empty directory for one process at a time; what an aborted one left there, mounts too, is removed."""
    directory = lab_directory() / name
    with locked(lab_directory() / f"{name}.lock"):
        _clear(directory)
        directory.mkdir()
        try:
            yield directory
        finally:
            _clear(directory)


def _clear(directory: Path) -> None:
    for mounted in mounts_below(directory):
        subprocess.run(["umount", "-l", mounted], check=False, capture_output=True)
    remove_tree(directory)


def mounts_below(path: Path) -> list[Path]:
    """The mount points at and below `path`, deepest first."""
    top = os.fspath(path.resolve())
    found: list[Path] = []
    with open("/proc/self/mountinfo") as table:
        for line in table:
            place = line.split()[4].encode().decode("unicode_escape")
            if place == top or place.startswith(top + "/"):
                found.append(Path(place))
    return sorted(found, key=lambda place: len(place.parts), reverse=True)


def _stamp(part: str) -> Path:
    return lab_directory() / "stamps" / part.replace("/", "-")


def _stamp_text(recipe: str) -> str:
    return f"lab {VERSION}\n{recipe}\n"
