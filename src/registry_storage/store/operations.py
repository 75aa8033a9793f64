"""FUSE requests to the store's tree and back: pyfuse3's handlers, and errors to errno."""

import errno
import functools
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, NoReturn, TypeVar

import pyfuse3
import trio

from ..errors import InvalidInputError, NoSuchNodeError, NotFoundError, NotLazyError, RegistryStorageError
from .attributes import LAYER_SECONDS, Stat
from .reasons import Reasons
from .recorder import Recorder
from .tree import Tree

_log = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Awaitable[Any]])

_ERRNO: tuple[tuple[type[Exception], int], ...] = (
    (NotLazyError, errno.ENOENT),
    (NotFoundError, errno.ENOENT),
    (NoSuchNodeError, errno.ENOENT),
    (InvalidInputError, errno.ENOENT),
    (RegistryStorageError, errno.EIO),
)
"""What a lookup answers; a read that fails is EIO, whatever the reason."""


KERNEL_RETRY_SECONDS = 0.02
"""After a long wait the kernel's own second try, which comes at once, is not worth another one."""
LONG_SECONDS = 1.0
"""What failed sooner is simply tried again."""
MAX_FAILED_READS = 256


def _errno(error: Exception) -> int:
    if isinstance(error, OSError):
        return errno.EIO
    return next(number for kind, number in _ERRNO if isinstance(error, kind))


def _answer(handler: F) -> F:
    """Turn what goes wrong in `handler` into a reply; a defect of ours fails one request, not the daemon."""

    @functools.wraps(handler)
    async def answering(self: "Operations", *arguments: Any) -> Any:
        try:
            return await handler(self, *arguments)
        except pyfuse3.FUSEError:
            raise
        except (RegistryStorageError, OSError) as error:
            if handler.__name__ != "read":
                self.reasons.tell(handler.__name__, error)
                raise pyfuse3.FUSEError(_errno(error)) from None
            if not isinstance(error, RegistryStorageError):  # those were told where they happened, with their file
                self.reasons.tell("read", error)
            raise pyfuse3.FUSEError(errno.EIO) from None
        except (ValueError, IndexError):  # a node number that was never given
            raise pyfuse3.FUSEError(errno.ESTALE) from None
        except Exception:
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


def _refuse_layers(node: int) -> None:
    if node >> 32:
        raise pyfuse3.FUSEError(errno.EROFS)


class _FailedRead(NamedTuple):
    """A read that failed: the kernel tried to read ahead, and will ask once more for the page itself."""

    span: range
    until: float


class Operations(pyfuse3.Operations):
    """Handles are node numbers, so that they mean the same to the next process."""

    supports_dot_lookup = False
    enable_writeback_cache = False
    enable_acl = False

    def __init__(self, tree: Tree, root: str, read_timeout_seconds: float, recorder: Recorder | None) -> None:
        super().__init__()
        self.reasons = Reasons()
        self._tree = tree
        self._root = root
        self._recorder = recorder
        self._timeout = read_timeout_seconds
        self._failed_reads: dict[int, _FailedRead] = {}
        self._absent = pyfuse3.EntryAttributes()
        self._absent.st_ino = 0
        self._absent.entry_timeout = LAYER_SECONDS

    @_answer
    async def lookup(self, parent_inode: int, name: bytes, ctx: object) -> pyfuse3.EntryAttributes:
        """LOOKUP; that a layer has no such name is remembered by the kernel, any other absence is not."""
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
    async def open(self, inode: int, flags: int, ctx: object) -> pyfuse3.FileInfo:
        """OPEN, for reading only."""
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise pyfuse3.FUSEError(errno.EROFS)
        in_layer = inode >> 32 != 0
        return pyfuse3.FileInfo(fh=inode, keep_cache=in_layer, direct_io=not in_layer)

    @_answer
    async def read(self, fh: int, off: int, size: int) -> bytes:
        """READ; within the time limit, or EIO."""
        failed = self._failed_reads.pop(fh, None)
        if failed is not None and off in failed.span and trio.current_time() < failed.until:
            raise pyfuse3.FUSEError(errno.EIO)
        started = trio.current_time()
        try:
            with trio.fail_after(self._timeout):
                opened = self._tree.open_layer(fh)
                if opened is not None:
                    layer, inode = opened
                    data = await layer.read(inode, off, size)
                    if self._recorder is not None:
                        await self._recorder.note(fh >> 32, layer, inode, off, len(data))
                    return data
                return await self._tree.read(fh, off, size)
        except (RegistryStorageError, OSError, trio.TooSlowError) as error:
            now = trio.current_time()
            if now - started >= LONG_SECONDS:
                if len(self._failed_reads) >= MAX_FAILED_READS:
                    self._failed_reads.clear()
                self._failed_reads[fh] = _FailedRead(range(off, off + size), now + KERNEL_RETRY_SECONDS)
            if isinstance(error, trio.TooSlowError):
                raise TimeoutError(errno.ETIMEDOUT, f"node {fh:#x}: no bytes within {self._timeout:g} s") from None
            raise

    @_answer
    async def opendir(self, inode: int, ctx: object) -> int:
        """OPENDIR."""
        return inode

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
    async def statfs(self, ctx: object) -> pyfuse3.StatvfsData:
        """STATFS: the file system that holds the cache."""
        real, reply = os.statvfs(self._root), pyfuse3.StatvfsData()
        for field in ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_favail"):
            setattr(reply, field, getattr(real, field))
        reply.f_namemax = 255
        return reply

    @_answer
    async def create(self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: object) -> NoReturn:
        """CREATE of ``use`` counts a use; the answer is always ENOENT, or podman would warn."""
        _refuse_layers(parent_inode)
        uses = self._tree.add_use(parent_inode, name)
        _log.debug("layer %d: one more use, %d now", parent_inode & 0x0FFFFFFF, uses)
        raise pyfuse3.FUSEError(errno.ENOENT)

    @_answer
    async def rmdir(self, parent_inode: int, name: bytes, ctx: object) -> None:
        """RMDIR of a layer gives up a use; the answer is always ENOENT."""
        _refuse_layers(parent_inode)
        uses = self._tree.drop_use(parent_inode, name)
        _log.debug("layer %s: one use less, %d now", name.decode("utf-8", "backslashreplace"), uses)
        raise pyfuse3.FUSEError(errno.ENOENT)

    async def forget(self, inode_list: object) -> None:
        """FORGET: nothing is kept for the kernel."""

    async def release(self, fh: int) -> None:
        """RELEASE: handles hold nothing."""

    async def releasedir(self, fh: int) -> None:
        """RELEASEDIR: handles hold nothing."""

    async def _read_only(self, *_: object) -> Any:
        raise pyfuse3.FUSEError(errno.EROFS)

    setattr = mknod = mkdir = unlink = symlink = rename = link = setxattr = removexattr = write = _read_only  # type: ignore[assignment]  # whatever they take
