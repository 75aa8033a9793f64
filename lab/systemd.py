"""A Debian tree with systemd as its process 1, in namespaces of its own: services run in it as on a host.

Its cgroups are a group of version 2 that belongs to it alone (on machines with hybrid cgroups without controllers),
its /run and /dev are fresh, what would change the machine's kernel is read-only. When the holder ends, everything in
it has ended.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from lab import places, processes

START_SECONDS = 60.0
_UNIFIED = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
_PATH = "/opt/registry-storage/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_BOOT = """\
set -e
echo $$ > "$3/cgroup.procs"
exec unshare --mount --pid --fork --kill-child --cgroup --uts --ipc sh -c "$4" sh "$1" "$2"
"""
_INSIDE = """\
set -e
mount --make-rslave /
mkdir -p "$1/old-root" "$1/wheels"
mount --bind "$1" "$1"
mount --bind "$2" "$1/wheels"
cd "$1"
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
# Only where one is seen with nothing above it may a user mount a proc for a container of theirs.
mkdir run/whole-proc
mount -t proc proc run/whole-proc
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do
    touch dev/$device
    mount --bind /dev/$device dev/$device
done
mknod -m 666 dev/fuse c 10 229
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs tmpfs dev/shm
hostname lab
pivot_root . old-root
umount -l /old-root
mount --make-rshared /
exec env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --unit=multi-user.target
"""


class Booted:
    """A system that has started."""

    def __init__(self, init: int) -> None:
        self._init = init

    def run(
        self,
        script: str,
        *,
        user: str = "root",
        environment: Mapping[str, str] | None = None,
        timeout_seconds: float = 300.0,
    ) -> subprocess.CompletedProcess[str]:
        """A shell's script; what it says on both outputs is in `stdout`, whatever its status is."""
        variables = {"PATH": _PATH, "HOME": "/root", "LC_ALL": "C.UTF-8", **(environment or {})}
        enter = ["nsenter", "--target", str(self._init), "--all", "--wd", "--"]
        enter += [] if user == "root" else ["runuser", "-u", user, "--"]
        given = [f"{name}={value}" for name, value in variables.items()]
        words = [*enter, "env", "-i", *given, "sh", "-c", f"exec 2>&1\n{script}"]
        return processes.run(words, allow_failure=True, timeout_seconds=timeout_seconds)


@contextlib.contextmanager
def booted(root: Path, wheels: Path) -> Iterator[Booted]:
    """The tree at `root`, in which systemd is installed, with `wheels` at /wheels. Raises ProgramError."""
    group = next((place for place in _UNIFIED if (place / "cgroup.procs").exists()), None)
    if group is None:
        raise processes.ProgramError("no cgroups of version 2 are mounted")
    own = group / f"lab-systemd-{os.getpid()}"
    own.mkdir()
    holder = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "--", "sh", "-c", _BOOT, "sh", root, wheels, own, _INSIDE],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        init = _wait_until_running(holder)
        yield Booted(init)
    finally:
        for pid in _children(holder.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        holder.kill()
        holder.wait()
        if holder.stdout is not None:
            holder.stdout.close()
        _remove_group(own)
        for mounted in places.mounts_below(root):
            processes.run(["umount", "-l", mounted], allow_failure=True)


def _wait_until_running(holder: "subprocess.Popen[str]") -> int:
    deadline = time.monotonic() + START_SECONDS
    state = "not started"
    while time.monotonic() < deadline:
        if holder.poll() is not None:
            raise processes.ProgramError(f"systemd does not start: {holder.stdout.read() if holder.stdout else ''}")
        for init in _children(holder.pid):
            said = Booted(init).run("systemctl is-system-running", timeout_seconds=20)
            state = said.stdout.strip()
            if state in ("running", "degraded"):
                return init
        time.sleep(0.1)
    raise processes.ProgramError(f"systemd did not start within {START_SECONDS:g} s: {state}")


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _remove_group(group: Path) -> None:
    """As soon as the last process in it is gone."""
    deadline = time.monotonic() + 10
    while group.exists() and time.monotonic() < deadline:
        for directory, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(directory)
        time.sleep(0.02)
