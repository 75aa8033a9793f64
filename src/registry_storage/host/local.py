"""What can be looked at on this machine: kernel, device, disk, mount and podman."""

import errno
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..config import Settings
from ..errors import ProgramError
from ..names import CONTROL, DAEMON, FILE_SYSTEM
from .finding import Finding, failure, ok, warning
from .mounts import file_system_at
from .podman import PodmanVersion, listed_images, podman_version

_NEEDED_KERNEL, _RESEND_KERNEL = (5, 4), (6, 9)
_FUSE = (10, 229)
_LITTLE_BYTES, _FEW_BYTES = 64 << 20, 1 << 30


@dataclass(frozen=True, slots=True)
class Machine:
    """Where to look; tests look elsewhere."""

    release: str = field(default_factory=lambda: os.uname().release)
    device: Path = Path("/dev/fuse")
    filesystems: Path = Path("/proc/filesystems")
    podman: Callable[[], PodmanVersion] = podman_version
    listed_images: Callable[[], frozenset[str]] = listed_images
    """Ids of the images that podman sees."""
    user: int = field(default_factory=os.geteuid)


def check_kernel(machine: Machine) -> Iterator[Finding]:
    """Old enough kernels lack what is needed, or what makes it comfortable."""
    found = re.match(r"([0-9]+)\.([0-9]+)", machine.release)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    if version < _NEEDED_KERNEL:
        said = f"Linux {machine.release}: its FUSE is older than protocol 7.31"
        yield failure("kernel", said, "install Linux 5.4 or later")
    elif version < _RESEND_KERNEL:
        said = f"Linux {machine.release}: some requests that are under way fail when the daemon is killed"
        yield warning("kernel", said, "Linux 6.9 delivers them to the next daemon")
    else:
        yield ok("kernel", f"Linux {machine.release}")
    known = machine.filesystems.read_text("utf-8").split()
    for name in ("fuse", "overlay"):
        if name not in known:
            yield failure("kernel", f"it does not know the file system {name}", f"modprobe {name}")


def check_device(machine: Machine) -> Iterator[Finding]:
    """``/dev/fuse``, or who opens it for us."""
    device = machine.device
    try:
        status = device.stat()
    except OSError as error:
        mend = "modprobe fuse; in a container, run it with --device /dev/fuse"
        yield failure("fuse", f"{device}: {error.strerror}", mend)
        return
    if not stat.S_ISCHR(status.st_mode) or (os.major(status.st_rdev), os.minor(status.st_rdev)) != _FUSE:
        mend = f"rm {device} && mknod -m 666 {device} c {_FUSE[0]} {_FUSE[1]}"
        yield failure("fuse", f"{device} is not the device of FUSE", mend)
        return
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        mend = f"chmod 666 {device}" if error.errno == errno.EACCES else "modprobe fuse"
        yield failure("fuse", f"{device} cannot be opened: {error.strerror}", mend)
        return
    if machine.user != 0 and shutil.which("fusermount3") is None and shutil.which("fusermount") is None:
        yield failure("fuse", "fusermount3 is not installed, and only root can mount without it", "install fuse3")
        return
    yield ok("fuse", f"{device} can be opened")


def check_root(settings: Settings, machine: Machine) -> Iterator[Finding]:
    """The root directory: whose it is, and how much room there is."""
    root = settings.root
    there = next(path for path in (root, *root.parents) if path.exists())
    try:
        status, space = there.stat(), os.statvfs(there)
    except OSError as error:
        yield failure("root", f"{there}: {error.strerror}", f"run this as the user who runs {DAEMON}")
        return
    if there == root and status.st_uid != machine.user:
        yield failure("root", f"{root} belongs to user {status.st_uid}", "run this as that user, or chown -R it")
        return
    if there == root and stat.S_IMODE(status.st_mode) & 0o077:
        said = f"{root} has mode {stat.S_IMODE(status.st_mode):04o}: others may read the images' files"
        yield failure("root", said, f"chmod 700 {root}")
    if not os.access(there, os.W_OK | os.X_OK) or space.f_flag & os.ST_RDONLY:
        yield failure("root", f"{there} cannot be written", "use another --root, or mount it writable")
        return
    free = space.f_bavail * space.f_frsize
    if free < _LITTLE_BYTES or (space.f_files and not space.f_favail):
        yield failure("disk", f"{there} is full: {_mib(free)} free", "make room, or use another --root")
    elif free < _FEW_BYTES:
        yield warning("disk", f"{there} has only {_mib(free)} free", "make room, or use another --root")
    else:
        yield ok("disk", f"{root}: {_mib(free)} free")


def check_mount(mountpoint: Path) -> Iterator[Finding]:
    """The directory that podman looks into."""
    start = f"start the daemon: systemctl start {DAEMON}"
    try:
        os.statvfs(mountpoint)
    except FileNotFoundError:
        said = f"{mountpoint} does not exist: every podman command fails"
        yield failure("mount", said, f"mkdir -p {mountpoint}, and {start}")
        return
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            said = f"{mountpoint} is the mount of a daemon that is gone: every podman command fails"
            yield failure("mount", said, f"{start} (it replaces the mount), or umount -l {mountpoint}")
        else:
            yield failure("mount", f"{mountpoint}: {error.strerror}", start)
        return
    kind = file_system_at(mountpoint)
    if kind != f"fuse.{FILE_SYSTEM}":
        if os.geteuid() != 0:
            start = f"look where a user's podman is: podman unshare {CONTROL} doctor; if it is not there, {start}"
        yield failure("mount", f"{mountpoint}: no daemon serves it (it is {kind or 'a plain directory'})", start)
    else:
        yield ok("mount", f"{mountpoint} is served")


def check_podman(machine: Machine) -> Iterator[Finding]:
    """Its version, and what follows from it."""
    try:
        version = machine.podman()
    except ProgramError as error:
        if "not installed" in str(error):
            yield warning("podman", str(error), "install podman; with CRI-O alone this does not matter")
        else:
            yield failure("podman", str(error), "mend what it names: podman does not start")
        return
    yield ok("podman", f"podman {version} {version.way}")


def _mib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size >> 20} MiB"
