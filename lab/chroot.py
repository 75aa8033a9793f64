"""Other Debians beside the machine's own: Debian 13 for podman 5.4 and skopeo 1.18, sid for the newest podman.

The programs of one run in a mount and a process namespace of their own whose root is its tree. The
namespace lives as long as one holder process; when that ends, its mounts and processes are gone with it, so
an aborted run leaves nothing behind but one bind mount, which the next run replaces. That bind mount,
`stores` in the tree, is the window between both: what the machine mounts below it appears inside.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from lab import mirror, places, processes


@dataclass(frozen=True, slots=True)
class Debian:
    """A tree that can be made."""

    part: str
    """Its name in the laboratory."""
    suite: str
    packages: tuple[str, ...]

    @property
    def recipe(self) -> str:
        """What it is made of."""
        return f"{self.suite} minbase + " + " ".join(self.packages)

    @property
    def root(self) -> Path:
        """The directory of the tree."""
        return places.lab_directory() / self.part

    def make(self) -> None:
        """Makes the tree anew."""
        _clean(self.root)
        mirror.bootstrap(self.suite, self.root)
        mirror.install_into(self.root, list(self.packages), update=True)
        for directory in ("old-root", "stores", "work"):
            (self.root / directory).mkdir(exist_ok=True)


DEBIAN13 = Debian("debian13", "trixie", ("ca-certificates", "netavark", "podman", "runc", "skopeo"))
SID = Debian("sid", "sid", ("ca-certificates", "netavark", "podman", "runc"))
"""What it holds is newer each time it is made, so nothing that must stay the same is made with it."""
DEBIANS = {debian.part: debian for debian in (DEBIAN13, SID)}

# Runs as process 1 of the new namespaces. /run is fresh, so that no state of an earlier life is believed.
_HOLD = """\
set -e
mount --make-rslave /
mount --rbind "$1" "$1"
mount -t proc proc "$1/proc"
mount -t tmpfs tmpfs "$1/run"
mount --rbind /sys "$1/sys"
mount --rbind /dev "$1/dev"
cd "$1"
pivot_root . old-root
umount -l /old-root
echo ready
exec sleep infinity
"""


def _clean(root: Path) -> None:
    """Takes down what an aborted run left mounted in the tree."""
    for mounted in places.mounts_below(root):
        processes.run(["umount", "-l", mounted], allow_failure=True)


class RunningDebian:
    """One of the other Debians; `command` turns a command into one that runs there."""

    def __init__(self, root: Path, holder: int) -> None:
        self.root = root
        self.holder = holder
        self.stores = self.root / "stores"
        """The machine's path of the window; inside it is /stores."""
        self.work = self.root / "work"
        """The machine's path of a directory for scratch; inside it is /work."""

    def inside(self, path: Path) -> Path:
        """The path inside of a path of the machine's that lies in the tree."""
        return Path("/") / path.relative_to(self.root)

    def command(self, words: Sequence[str | os.PathLike[str]]) -> list[str]:
        """The words that run `words` inside."""
        return [*self.prefix, *(os.fspath(word) for word in words)]

    @property
    def prefix(self) -> tuple[str, ...]:
        return ("nsenter", "--target", str(self.holder), "--mount", "--pid", "--root", "--wd", "--")


@contextlib.contextmanager
def running(debian: Debian = DEBIAN13) -> Iterator[RunningDebian]:
    """Starts one of them, which must have been made. Several processes may at once, each in namespaces of its own."""
    root = debian.root
    with _window(debian):
        holder: subprocess.Popen[str] | None = None
        try:
            holder = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL", "--"),
                    *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "slave"),
                    *("sh", "-c", _HOLD, "hold", os.fspath(root)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            assert holder.stdout is not None
            said = holder.stdout.readline()
            if said != "ready\n":
                raise processes.ProgramError(f"{debian.part} does not start: {said}{holder.stdout.read()}")
            yield RunningDebian(root, _only_child(holder.pid))
        finally:
            if holder is not None:
                with contextlib.suppress(processes.ProgramError):
                    os.kill(_only_child(holder.pid), signal.SIGKILL)
                holder.kill()
                holder.wait()
                if holder.stdout is not None:
                    holder.stdout.close()


@contextlib.contextmanager
def _window(debian: Debian) -> Iterator[None]:
    """The bind mount and the directory for scratch: made anew by the first of several processes, left by the last."""
    root, lock = debian.root, places.lab_directory() / f"{debian.part}.lock"
    with lock.open("w") as users:
        with places.locked(lock.with_suffix(".turn")):
            if _is_alone(users):
                _clean(root)
                if (work := root / "work").exists():
                    places.remove_tree(work)
                work.mkdir()
                _mirror_own_path(root)
                stores = root / "stores"
                processes.run(["mount", "--bind", stores, stores])
                # Private parent, shared window: mounts below `stores` reach the namespaces, none comes back.
                processes.run(["mount", "--make-private", stores])
                processes.run(["mount", "--make-shared", stores])
            fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield
        finally:
            with places.locked(lock.with_suffix(".turn")):
                if _is_alone(users):
                    _unmount_window(root)


def _is_alone(users: IO[str]) -> bool:
    """Whether nobody else holds the lock; the caller has its turn."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _mirror_own_path(root: Path) -> None:
    """Inside, the machine's path of the tree leads to the tree: absolute links made outside are right there too."""
    link = root.joinpath(*root.parts[1:])
    if not link.is_symlink():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to("/")


def _only_child(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    if len(children) != 1:
        raise processes.ProgramError(f"process {pid} has {len(children)} children, expected one")
    return int(children[0])


def _unmount_window(root: Path) -> None:
    # The namespace goes away asynchronously; its mounts may keep the window busy for a moment.
    deadline = time.monotonic() + 5
    while places.mounts_below(root) and time.monotonic() < deadline:
        for mounted in places.mounts_below(root):
            processes.run(["umount", mounted], allow_failure=True)
        time.sleep(0.02)
    _clean(root)
