"""Where the control socket is, and who may connect to it."""

import errno
import grp
import os
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import Settings
from ..errors import ConfigError

if TYPE_CHECKING:
    import trio  # who only asks must not wait for it to be loaded

FILE = "control.sock"
BACKLOG = 64
_LONGEST = 107
"""Bytes of a path that fit into a socket's address."""
_SO_PEERGROUPS = 59
_CREDENTIALS = struct.Struct("iII")


def socket_path(settings: Settings) -> Path:
    """Where the daemon with these settings listens."""
    return settings.control_socket or settings.root / FILE


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end, as the kernel says (unix(7), SO_PEERCRED)."""

    pid: int
    uid: int
    gids: frozenset[int]


def peer_of(connection: "socket.socket | trio.socket.SocketType") -> Peer:
    """Raises OSError."""
    pid, uid, gid = _CREDENTIALS.unpack(
        connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    try:
        more = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 1024)
    except OSError:  # more than 256 groups: only the first is known
        more = b""
    return Peer(pid, uid, frozenset({gid, *(number for (number,) in struct.iter_unpack("I", more))}))


@dataclass(frozen=True, slots=True)
class Access:
    """Root, the daemon's own user, and one group if one is set."""

    gid: int | None = None

    @classmethod
    def of(cls, settings: Settings) -> "Access":
        """Raises ConfigError for a group that does not exist, or that cannot reach the socket."""
        if not settings.control_group:
            return cls()
        if settings.control_socket is None:
            raise ConfigError("control_group: needs a control_socket too: only its owner may enter the root directory")
        try:
            return cls(grp.getgrnam(settings.control_group).gr_gid)
        except KeyError:
            raise ConfigError(f"control_group: no group is called {settings.control_group!r}") from None

    @property
    def mode(self) -> int:
        """Of the socket."""
        return 0o600 if self.gid is None else 0o660

    def admits(self, peer: Peer) -> bool:
        """Whether `peer` may ask."""
        return peer.uid in (0, os.geteuid()) or (self.gid is not None and self.gid in peer.gids)


def listen(path: Path, access: Access) -> socket.socket:
    """A listening socket at `path`, reachable only when its owner and mode are set; a stale one is replaced.

    Raises ConfigError where something else is, or another daemon listens.
    """
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _check_stale(path)
        new = path.with_name(f".{path.name}.new")
        new.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            os.fchmod(listener.fileno(), access.mode)  # the file gets this mode, whatever the umask adds or takes
            with short(new) as address:
                listener.bind(address)
            os.chown(new, -1, -1 if access.gid is None else access.gid)
            new.chmod(access.mode)
            listener.listen(BACKLOG)
            new.replace(path)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise ConfigError(f"control socket {path}: {error.strerror or error}") from None
    return listener


def is_reachable(path: Path) -> bool:
    """Whether a process listens at `path`. Raises OSError where that cannot be told."""
    with short(path) as address, closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        try:
            probe.connect(address)
        except OSError as error:
            if error.errno in (errno.ECONNREFUSED, errno.ENOENT):
                return False
            raise
    return True


@contextmanager
def short(path: Path) -> Iterator[str]:
    """An address of `path` that is valid in this process meanwhile, however long the path is."""
    if len(os.fsencode(path)) <= _LONGEST:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def _check_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"control socket {path}: something else is there")
    if is_reachable(path):
        raise ConfigError(f"control socket {path}: another daemon listens there")
