"""The FUSE protocol as far as the lane speaks it (linux/fuse.h, version 7.38)."""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

cdef extern from "<linux/fuse.h>" nogil:
    enum:
        FUSE_LOOKUP, FUSE_FORGET, FUSE_GETATTR, FUSE_SETATTR, FUSE_READLINK, FUSE_SYMLINK, FUSE_MKNOD, FUSE_MKDIR
        FUSE_UNLINK, FUSE_RMDIR, FUSE_RENAME, FUSE_LINK, FUSE_OPEN, FUSE_READ, FUSE_WRITE, FUSE_STATFS, FUSE_SETXATTR
        FUSE_GETXATTR, FUSE_LISTXATTR, FUSE_REMOVEXATTR, FUSE_FLUSH, FUSE_OPENDIR, FUSE_READDIR, FUSE_CREATE
        FUSE_INTERRUPT, FUSE_BATCH_FORGET, FUSE_FALLOCATE, FUSE_READDIRPLUS, FUSE_RENAME2

    struct fuse_in_header:
        uint32_t len
        uint32_t opcode
        uint64_t unique
        uint64_t nodeid
        uint32_t uid
        uint32_t gid
        uint32_t pid

    struct fuse_out_header:
        uint32_t len
        int32_t error
        uint64_t unique

    struct fuse_attr:
        uint64_t ino
        uint64_t size
        uint64_t blocks
        uint64_t atime
        uint64_t mtime
        uint64_t ctime
        uint32_t atimensec
        uint32_t mtimensec
        uint32_t ctimensec
        uint32_t mode
        uint32_t nlink
        uint32_t uid
        uint32_t gid
        uint32_t rdev
        uint32_t blksize

    struct fuse_entry_out:
        uint64_t nodeid
        uint64_t generation
        uint64_t entry_valid
        uint64_t attr_valid
        fuse_attr attr

    struct fuse_attr_out:
        uint64_t attr_valid
        fuse_attr attr

    struct fuse_read_in:
        uint64_t fh
        uint64_t offset
        uint32_t size

    struct fuse_getxattr_in:
        uint32_t size

    struct fuse_getxattr_out:
        uint32_t size

    struct fuse_interrupt_in:
        uint64_t unique

    struct fuse_kstatfs:
        uint64_t blocks
        uint64_t bfree
        uint64_t bavail
        uint64_t files
        uint64_t ffree
        uint32_t bsize
        uint32_t namelen
        uint32_t frsize

    struct fuse_statfs_out:
        fuse_kstatfs st

    struct fuse_dirent:
        uint64_t ino
        uint64_t off
        uint32_t namelen
        uint32_t type

    struct fuse_direntplus:
        fuse_entry_out entry_out
        fuse_dirent dirent


cdef inline bint asks_index(uint32_t opcode) noexcept nogil:
    """An operation that a layer answers."""
    return (
        opcode == FUSE_LOOKUP or opcode == FUSE_GETATTR or opcode == FUSE_READ or opcode == FUSE_READDIRPLUS
        or opcode == FUSE_READLINK or opcode == FUSE_GETXATTR or opcode == FUSE_LISTXATTR or opcode == FUSE_READDIR
    )


cdef inline bint would_change(uint32_t opcode) noexcept nogil:
    """An operation that changes something, which a layer refuses."""
    return (
        opcode == FUSE_SETATTR or opcode == FUSE_SYMLINK or opcode == FUSE_MKNOD or opcode == FUSE_MKDIR
        or opcode == FUSE_UNLINK or opcode == FUSE_RMDIR or opcode == FUSE_RENAME or opcode == FUSE_RENAME2
        or opcode == FUSE_LINK or opcode == FUSE_WRITE or opcode == FUSE_SETXATTR or opcode == FUSE_REMOVEXATTR
        or opcode == FUSE_CREATE or opcode == FUSE_FALLOCATE
    )
