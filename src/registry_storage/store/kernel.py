"""The mount and the handshake with the kernel: we own ``/dev/fuse``, whoever answers the requests.

The protocol is that of linux/fuse.h, version 7.38; numbers without a name in Python stand here with theirs.
"""

import array
import ctypes
import errno
import logging
import os
import select
import shutil
import socket
import stat
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ..errors import MountError
from ..names import FILE_SYSTEM

_log = logging.getLogger(__name__)

DEVICE = "/dev/fuse"
MAX_READ = 1 << 20
"""Largest read, in bytes: 256 pages."""
SMALL_READ = 128 << 10
"""Largest read whose reply fits into a socket's buffer without privileges."""

_IN_HEADER = struct.Struct("<IIQQIIIHH")  # len, opcode, unique, nodeid, uid, gid, pid, total_extlen, padding
_OUT_HEADER = struct.Struct("<IiQ")  # len, error, unique
_INIT_IN = struct.Struct("<IIII")  # major, minor, max_readahead, flags
_INIT_OUT = struct.Struct("<IIIIHHIIHHII24x")
_INIT = 26
_MAJOR, _MINOR = 7, 38

_NOTIFY_RESEND = 7
_SO_SNDBUFFORCE = 32
_LIBFUSE_QUEUE_BYTES = 4 << 20

_ASYNC_READ = 1 << 0
_BIG_WRITES = 1 << 5
_AUTO_INVAL_DATA = 1 << 12
_DO_READDIRPLUS = 1 << 13
_ASYNC_DIO = 1 << 15
_PARALLEL_DIROPS = 1 << 18
_MAX_PAGES = 1 << 22
_CACHE_SYMLINKS = 1 << 23
WANTED = (
    _ASYNC_READ | _BIG_WRITES | _AUTO_INVAL_DATA | _DO_READDIRPLUS | _ASYNC_DIO | _PARALLEL_DIROPS | _MAX_PAGES
    | _CACHE_SYMLINKS
)  # fmt: skip
"""Nothing is opened, so files and directories stay in the kernel's cache; for the store's own, which change, it looks
at their times (auto_inval_data)."""

_PR_SET_CHILD_SUBREAPER = 36
_MS_NODEV, _MS_NOSUID = 4, 2
_MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Handshake:
    """What the kernel offered and got."""

    minor: int
    flags: int


@dataclass(frozen=True, slots=True)
class Mounted:
    """A mount whose INIT was answered: whoever has the descriptor can serve it."""

    device: int
    max_read: int
    handshake: Handshake


def mount_and_greet(mountpoint: Path) -> Mounted:
    """Mount at `mountpoint` and answer the kernel's INIT. Raises MountError."""
    max_read = MAX_READ if _has_large_buffers() else SMALL_READ
    device = mount(mountpoint, max_read)
    try:
        handshake = shake_hands(device, max_read)
    except BaseException:
        unmount(mountpoint)
        os.close(device)
        raise
    os.set_blocking(device, False)
    return Mounted(device, max_read, handshake)


def is_alive(device: int) -> bool:
    """The mount of this descriptor is still there."""
    poller = select.poll()
    poller.register(device, select.POLLIN)
    return not any(events & (select.POLLERR | select.POLLNVAL) for _, events in poller.poll(0))


def resend(device: int) -> bool:
    """Have the kernel deliver again what was taken by a process that is gone; False: it cannot (before 6.9)."""
    try:
        os.write(device, _OUT_HEADER.pack(_OUT_HEADER.size, _NOTIFY_RESEND, 0))
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
    return True


def make_room(libfuse_socket: socket.socket) -> None:
    """Let one message hold the largest reply: beyond the system's limit only with privileges (CAP_NET_ADMIN)."""
    libfuse_socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _LIBFUSE_QUEUE_BYTES)


def _has_large_buffers() -> bool:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        try:
            make_room(ours)
        except PermissionError:
            return False
    return True


def mount(mountpoint: Path, max_read: int) -> int:
    """Mount and return the descriptor of the device, close-on-exec; the kernel's INIT is still unread.

    With privileges by mount(2), else through ``fusermount3``. A dead mount of ours at the same place is replaced.
    Raises MountError.
    """
    _replace_dead_mount(mountpoint)
    try:
        mountpoint.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise MountError(f"mount point {mountpoint}: {error.strerror}") from None
    if not mountpoint.is_dir():
        raise MountError(f"mount point {mountpoint}: not a directory")
    if os.geteuid() == 0:
        return _mount_with_privileges(mountpoint, max_read)
    return _mount_with_fusermount(mountpoint, max_read)


def unmount(mountpoint: Path) -> None:
    """Take the mount away, from under its users if there are any. Errors are logged, not raised."""
    if os.geteuid() == 0:
        target = os.fsencode(mountpoint)
        if _libc.umount2(target, 0) == 0 or ctypes.get_errno() == errno.EINVAL:
            return
        if _libc.umount2(target, _MNT_DETACH) != 0:
            _log.error("%s cannot be unmounted: %s", mountpoint, os.strerror(ctypes.get_errno()))
        else:
            _log.warning("%s was still in use: it is detached, and goes away with its last user", mountpoint)
        return
    result = subprocess.run(
        [_fusermount(), "-u", "-z", "--", str(mountpoint)], capture_output=True, text=True, check=False
    )
    if result.returncode:
        _log.error("%s cannot be unmounted: %s", mountpoint, result.stderr.strip())


def shake_hands(device: int, max_read: int, *, timeout_seconds: float = 10.0) -> Handshake:
    """Read the kernel's INIT and answer it with exactly what we want. Raises MountError."""
    if not select.select([device], [], [], timeout_seconds)[0]:
        raise MountError(f"{DEVICE}: the kernel sent no INIT within {timeout_seconds:g} s")
    request = os.read(device, MAX_READ + 4096)
    _, opcode, unique, *_ = _IN_HEADER.unpack_from(request)
    if opcode != _INIT:
        raise MountError(f"{DEVICE}: wanted INIT ({_INIT}), got operation {opcode}")
    major, minor, read_ahead, offered = _INIT_IN.unpack_from(request, _IN_HEADER.size)
    if major != _MAJOR or minor < 31:
        raise MountError(f"{DEVICE}: wanted protocol {_MAJOR}.31 or later, got {major}.{minor}")
    handshake = Handshake(min(minor, _MINOR), offered & WANTED)
    body = _INIT_OUT.pack(
        _MAJOR,
        handshake.minor,
        min(read_ahead, max_read) if read_ahead else max_read,
        handshake.flags,
        64,  # max_background: read-ahead requests under way
        48,  # congestion_threshold
        4096,  # max_write: nobody writes
        1,  # time_gran: nanoseconds
        max_read // 4096,  # max_pages
        0,  # map_alignment
        0,  # flags2
        0,  # max_stack_depth
    )
    os.write(device, _OUT_HEADER.pack(_OUT_HEADER.size + len(body), 0, unique) + body)
    return handshake


def synthetic_init(handshake: Handshake) -> bytes:
    """An INIT request for libfuse, which did not see the kernel's; its answer leads nowhere."""
    body = _INIT_IN.pack(_MAJOR, handshake.minor, MAX_READ, handshake.flags) + bytes(48)
    return _IN_HEADER.pack(_IN_HEADER.size + len(body), _INIT, (1 << 62) + 1, 0, 0, 0, 0, 0, 0) + body


def set_read_ahead(mountpoint: Path, kib: int) -> None:
    """Set the kernel's read-ahead for the mount; without the right to do so it stays as it is.

    Nothing is asked of the mount itself: a worker that is killed while it waits for its own answer never ends, and
    the next one, who would answer, is waiting for that end.
    """
    wanted = os.fsencode(mountpoint.parent.resolve() / mountpoint.name)
    device = [number for number, place, _ in _mounts() if place == wanted][-1:]
    if not device:
        _log.debug("%s: not mounted here", mountpoint)
        return
    setting = Path(f"/sys/class/bdi/{device[0]}/read_ahead_kb")
    try:
        setting.write_text(str(kib))
    except OSError as error:
        _log.debug("%s: %s", setting, error.strerror)


def _mount_with_privileges(mountpoint: Path, max_read: int) -> int:
    try:
        device = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise MountError(f"{DEVICE}: {error.strerror}; is the kernel module `fuse` loaded?") from None
    options = (
        f"fd={device},rootmode={stat.S_IFDIR:o},user_id={os.geteuid()},group_id={os.getegid()},"
        f"allow_other,default_permissions,max_read={max_read}"
    )
    result = _libc.mount(
        FILE_SYSTEM.encode(),
        os.fsencode(mountpoint),
        f"fuse.{FILE_SYSTEM}".encode(),
        ctypes.c_ulong(_MS_NODEV | _MS_NOSUID),
        options.encode(),
    )
    if result != 0:
        reason = os.strerror(ctypes.get_errno())
        os.close(device)
        raise MountError(f"mount point {mountpoint}: {reason}")
    return device


def adopt_orphans() -> None:
    """Whatever descends from this process becomes its child when its own parent ends (prctl(2))."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1))


def _fusermount() -> str:
    for name in ("fusermount3", "fusermount"):
        path = shutil.which(name)
        if path:
            return path
    raise MountError("fusermount3 is not installed (package fuse3); mounting without privileges needs it")


def _mount_with_fusermount(mountpoint: Path, max_read: int) -> int:
    """The helper mounts for us and passes the descriptor over ``_FUSE_COMMFD``."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        result = subprocess.run(
            [
                _fusermount(),
                "-o",
                f"fsname={FILE_SYSTEM},subtype={FILE_SYSTEM},default_permissions,max_read={max_read}",
                "--",
                str(mountpoint),
            ],
            env=os.environ | {"_FUSE_COMMFD": str(theirs.fileno())},
            pass_fds=[theirs.fileno()],
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if result.returncode:
            raise MountError(f"mount point {mountpoint}: {result.stderr.strip() or 'fusermount3 failed'}")
        _, ancillary, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(4))
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            device = array.array("i", data[:4])[0]
            os.set_inheritable(device, False)
            return device
    raise MountError(f"mount point {mountpoint}: fusermount3 sent no descriptor")


def _replace_dead_mount(mountpoint: Path) -> None:
    """A mount whose daemon is gone refuses what is not cached with ENOTCONN; a live one must not be covered."""
    try:
        try:
            os.statvfs(mountpoint)
        except ConnectionAbortedError:  # its daemon ended in this moment
            os.statvfs(mountpoint)
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            return
        _log.warning("%s: replacing the mount of a daemon that is gone", mountpoint)
        unmount(mountpoint)
        return
    wanted = os.fsencode(mountpoint.resolve())
    for _, place, after in _mounts():
        if place == wanted and after[0].startswith("fuse"):
            raise MountError(f"mount point {mountpoint}: {after[1]} is mounted there and alive")


def _mounts() -> list[tuple[str, bytes, list[str]]]:
    """What is mounted where, the newest last: device (major:minor), place; type, source and options."""
    found = []
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        before, _, after = line.partition(b" - ")
        fields = before.split()
        place = fields[4].decode("unicode_escape").encode("latin-1")
        found.append((fields[2].decode(), place, after.decode(errors="replace").split()))
    return found
