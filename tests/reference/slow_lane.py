"""What the lane answers to a request for a layer, said plainly: linux/fuse.h by struct, the layer by its index."""

import errno
import stat
import struct
from dataclasses import dataclass, field

from registry_storage.toc.index import TocIndex

IN_HEADER = struct.Struct("<IIQQIIIHH")
OUT_HEADER = struct.Struct("<IiQ")
ATTR = struct.Struct("<6Q10I")
ENTRY = struct.Struct("<4QII")
READ_IN = struct.Struct("<QQIIQII")
DIRENT = struct.Struct("<QQII")
DAY = 86400
LOOKUP, GETATTR, READLINK, READ, GETXATTR, LISTXATTR, READDIR, READDIRPLUS = 1, 3, 5, 15, 22, 23, 28, 44
"""What the lane answers from a layer's index; the others it refuses, carries or obeys."""
FORGET, SETATTR, RMDIR, OPEN, STATFS, FLUSH, OPENDIR = 2, 4, 11, 14, 17, 25, 27
CREATE, INTERRUPT, BATCH_FORGET, LSEEK = 35, 36, 42, 46


def request(opcode: int, node: int, body: bytes = b"", unique: int = 2, pid: int = 1) -> bytes:
    """A request as the kernel writes it."""
    return IN_HEADER.pack(IN_HEADER.size + len(body), opcode, unique, node, 0, 0, pid, 0, 0) + body


def read_body(offset: int, size: int) -> bytes:
    """The body of READ, READDIR and READDIRPLUS."""
    return READ_IN.pack(0, offset, size, 0, 0, 0, 0)


@dataclass
class SlowLayer:
    """A layer whose chunks in `verified` are in `content`."""

    number: int
    index: TocIndex
    content: bytes
    verified: set[int] = field(default_factory=set)

    def answer(self, message: bytes) -> bytes | None:
        """The reply; None where Python is asked first."""
        _, opcode, unique, node, *_ = IN_HEADER.unpack_from(message)
        body = message[IN_HEADER.size :]
        inode = (node & 0xFFFFFFFF) - 1
        try:
            payload = self._payload(opcode, inode, body)
        except OSError as error:
            return OUT_HEADER.pack(OUT_HEADER.size, -(error.errno or 0), unique)
        if payload is None:
            return None
        return OUT_HEADER.pack(OUT_HEADER.size + len(payload), 0, unique) + payload

    def _payload(self, opcode: int, inode: int, body: bytes) -> bytes | None:
        if not 0 <= inode < self.index.inode_count:
            raise OSError(errno.ESTALE, "")
        kind = stat.S_IFMT(self.index.mode(inode))
        if opcode == LOOKUP:
            if kind != stat.S_IFDIR:
                raise OSError(errno.ENOTDIR, "")
            child = self.index.lookup(inode, body[:-1])
            return ENTRY.pack(0, 0, DAY, 0, 0, 0) + bytes(88) if child is None else self._entry(child)
        if opcode == GETATTR:
            return struct.pack("<QII", DAY, 0, 0) + self._attr(inode)
        if opcode == READLINK:
            if kind != stat.S_IFLNK:
                raise OSError(errno.EINVAL, "")
            return self.index.read_link(inode)
        if opcode in (GETXATTR, LISTXATTR):
            return self._xattrs(opcode, inode, body)
        _, offset, size, *_ = READ_IN.unpack_from(body)
        if opcode == READ:
            return self._read(inode, kind, offset, size)
        if kind != stat.S_IFDIR:
            raise OSError(errno.ENOTDIR, "")
        return self._names(inode, offset, size, plus=opcode == READDIRPLUS)

    def _xattrs(self, opcode: int, inode: int, body: bytes) -> bytes:
        (size,) = struct.unpack_from("<I4x", body)
        attributes = self.index.xattrs(inode)
        if opcode == LISTXATTR:
            value = b"".join(name + b"\0" for name, _ in attributes)
        else:
            found = [value for name, value in attributes if name == body[8:-1]]
            if not found:
                raise OSError(errno.ENODATA, "")
            value = found[0]
        if size == 0:
            return struct.pack("<II", len(value), 0)
        if len(value) > size:
            raise OSError(errno.ERANGE, "")
        return value

    def _read(self, inode: int, kind: int, offset: int, size: int) -> bytes | None:
        if kind != stat.S_IFREG:
            raise OSError(errno.EINVAL, "")
        first, end = self.index.chunk_range(inode, offset, size)
        if not set(range(first, end)) <= self.verified:
            return None
        length = max(0, min(size, self.index.attributes(inode).size - offset))
        start = self.index.content_offset(inode) + offset
        return self.content[start : start + length]

    def _names(self, inode: int, position: int, room: int, *, plus: bool) -> bytes:
        listing = [(b".", inode, False), (b"..", self.index.parent(inode), False)]
        listing += [(name, child, True) for name, child in self.index.children(inode, 0, 1 << 30)]
        reply = b""
        for place, (name, child, known) in enumerate(listing[position:], position):
            node = self.number << 32 | (child + 1)
            if name == b".." and inode == 0:
                node = 4 << 28 | self.number
            record = (self._entry(child) if known else bytes(128)) if plus else b""
            record += DIRENT.pack(node, place + 1, len(name), stat.S_IFMT(self.index.mode(child)) >> 12) + name
            record += bytes(-len(record) % 8)
            if len(reply) + len(record) > room:
                break
            reply += record
        return reply

    def _entry(self, inode: int) -> bytes:
        return ENTRY.pack(self.number << 32 | (inode + 1), 0, DAY, DAY, 0, 0) + self._attr(inode)

    def _attr(self, inode: int) -> bytes:
        found = self.index.attributes(inode)
        seconds, nanoseconds = divmod(found.mtime_ns, 10**9)
        return ATTR.pack(
            self.number << 32 | (inode + 1), found.size, (found.size + 511) // 512, *[seconds] * 3, *[nanoseconds] * 3,
            found.mode, found.nlink, found.uid, found.gid, found.rdev & 0xFFFFFFFF, 4096, 0,
        )  # fmt: skip
