"""FUSE requests for the store's own tree and back: pyfuse3's handlers. Layers are answered by the lane."""

import errno
import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar

import pyfuse3
import trio

from .. import metrics, traces
from .attributes import LAYER_SECONDS, Stat
from .errnos import EXPECTED, errno_of
from .reasons import Reasons
from .tree import Tree

_log = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Awaitable[Any]])


def _answer(handler: F) -> F:
    """Turn what goes wrong in `handler` into a reply; a defect of ours fails one request, not the daemon."""

    @functools.wraps(handler)
    async def answering(self: "Operations", *arguments: Any) -> Any:
        try:
            with metrics.timed(handler.__name__), traces.span(f"fuse {handler.__name__}"):
                return await handler(self, *arguments)
        except pyfuse3.FUSEError:
            raise
        except EXPECTED as error:
            self.reasons.tell(handler.__name__, error)
            number = errno_of(error)
            if number != errno.ENOENT:
                metrics.count_error(handler.__name__)
            if handler.__name__ == "read" and number == errno.ENOENT:
                number = errno.EIO
            raise pyfuse3.FUSEError(number) from None
        except Exception:
            metrics.count_error(handler.__name__)
            _log.exception("%s failed", handler.__name__)
            raise pyfuse3.FUSEError(errno.EIO) from None

    return answering  # type: ignore[return-value]  # same signature


def _attributes(found: Stat) -> pyfuse3.EntryAttributes:
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = found.node
    entry.generation = 0
    entry.entry_timeout = found.timeout
    entry.attr_timeout = found.timeout
    entry.st_mode = found.mode
    entry.st_nlink = found.nlink
    entry.st_uid = found.uid
    entry.st_gid = found.gid
    entry.st_rdev = found.rdev
    entry.st_size = found.size
    entry.st_blksize = 4096
    entry.st_blocks = (found.size + 511) // 512
    entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = found.mtime_ns
    return entry


class Operations(pyfuse3.Operations):
    """Nothing is opened (the lane says so to the kernel), so a handle is the node's number: the lane puts it there."""

    supports_dot_lookup = False
    enable_writeback_cache = False
    enable_acl = False

    def __init__(self, tree: Tree, read_timeout_seconds: float) -> None:
        super().__init__()
        self.reasons = Reasons()
        self._tree = tree
        self._timeout = read_timeout_seconds
        self._absent = pyfuse3.EntryAttributes()
        self._absent.st_ino = 0
        self._absent.entry_timeout = LAYER_SECONDS

    @_answer
    async def lookup(self, parent_inode: int, name: bytes, ctx: object) -> pyfuse3.EntryAttributes:
        """LOOKUP; that a chain has no such name is remembered by the kernel, any other absence is not."""
        found = await self._tree.lookup(parent_inode, name)
        return self._absent if found is None else _attributes(found)

    @_answer
    async def getattr(self, inode: int, ctx: object) -> pyfuse3.EntryAttributes:
        """GETATTR."""
        return _attributes(await self._tree.stat(inode))

    @_answer
    async def readlink(self, inode: int, ctx: object) -> bytes:
        """READLINK."""
        return await self._tree.read_link(inode)

    @_answer
    async def getxattr(self, inode: int, name: bytes, ctx: object) -> bytes:
        """GETXATTR."""
        value = await self._tree.xattr(inode, name)
        if value is None:
            raise pyfuse3.FUSEError(pyfuse3.ENOATTR)
        return value

    @_answer
    async def listxattr(self, inode: int, ctx: object) -> list[bytes]:
        """LISTXATTR."""
        return [name for name, _ in await self._tree.xattrs(inode)]

    @_answer
    async def read(self, fh: int, off: int, size: int) -> bytes:
        """READ; within the time limit, or EIO."""
        with trio.move_on_after(self._timeout):
            return await self._tree.read(fh, off, size)
        raise TimeoutError(errno.ETIMEDOUT, f"node {fh:#x}: no bytes within {self._timeout:g} s")

    @_answer
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """READDIRPLUS; positions are those of the listing."""
        position = start_id
        while children := await self._tree.children(fh, position):
            for name, node in children:
                position += 1
                if not pyfuse3.readdir_reply(token, name, _attributes(await self._tree.stat(node)), position):
                    return

    @_answer
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> NoReturn:
        """CREATE of ``use`` counts a use; the answer is always ENOENT, or podman would warn."""
        uses = self._tree.add_use(parent_inode, name, ctx.pid)
        _log.debug("layer %d: one more use, %d now", parent_inode & 0x0FFFFFFF, uses)
        raise pyfuse3.FUSEError(errno.ENOENT)

    @_answer
    async def rmdir(self, parent_inode: int, name: bytes, ctx: object) -> None:
        """RMDIR of a layer gives up a use; the answer is always ENOENT."""
        uses = self._tree.drop_use(parent_inode, name)
        _log.debug("layer %s: one use less, %d now", name.decode("utf-8", "backslashreplace"), uses)
        raise pyfuse3.FUSEError(errno.ENOENT)

    async def _read_only(self, *_: object) -> Any:
        raise pyfuse3.FUSEError(errno.EROFS)

    setattr = mknod = mkdir = unlink = symlink = rename = link = setxattr = removexattr = write = _read_only  # type: ignore[assignment]  # whatever they take
