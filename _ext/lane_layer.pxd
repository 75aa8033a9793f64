"""One layer as the lane sees it, and its answers to requests for what is in the index.

Answers are written to `out`, which has room for `size` bytes; their size is returned, or an errno below zero.
A node is `layer number << 32 | index of the entry + 1`; a directory is listed as ".", "..", then its names.
"""

from libc.errno cimport EINVAL, EIO, ENODATA, ENOENT, ENOTDIR, ERANGE, ESTALE
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy, memset

from fuse_wire cimport *
from index_view cimport *
from toc_layout cimport (
    NO_DIRENT, TYPE_BLOCK, TYPE_CHAR, TYPE_DIRECTORY, TYPE_MASK, TYPE_SYMLINK, Dirent, Inode,
)

cdef enum:
    VALID_SECONDS = 86400        # layers never change
    DIRECTORY_BYTES = 4096
    LINK_KIND = 4 << 28          # the store's own node above a layer's root: inodes.Kind.LINK

cdef struct Layer:
    IndexView index
    uint32_t number
    int content                  # descriptor of the content file
    uint8_t *state               # memory shared with the cache: see cache/content.py
    const uint8_t *verified      # in it: a bit per chunk
    uint8_t *touched             # in it: a byte per eight chunks, set when one of them was served
    uint8_t *seen                # a bit per entry whose first read Python has seen; NULL: it need not see any


cdef inline uint64_t node_of(const Layer *layer, uint64_t inode) noexcept nogil:
    return <uint64_t>layer.number << 32 | (inode + 1)


cdef inline bint is_first_read(const Layer *layer, const Inode *inode) noexcept nogil:
    """Python wants to see this read, and none of this file afterwards. Called by the lane's thread only."""
    cdef size_t number
    cdef uint8_t bit
    if layer.seen == NULL:
        return False
    number = <size_t>(inode - layer.index.inodes)
    bit = <uint8_t>(1 << (number & 7))
    if layer.seen[number >> 3] & bit:
        return False
    layer.seen[number >> 3] |= bit
    return True


cdef inline const Inode *inode_of(const Layer *layer, uint64_t node) noexcept nogil:
    """The entry that a node names, or NULL."""
    cdef uint64_t low = <uint32_t>node
    if low == 0 or low > layer.index.header.inode_count:
        return NULL
    return &layer.index.inodes[low - 1]


cdef inline void fill_attributes(const Inode *inode, uint64_t node, fuse_attr *attr) noexcept nogil:
    memset(attr, 0, sizeof(fuse_attr))
    attr.ino = node
    attr.size = DIRECTORY_BYTES if is_type(inode, TYPE_DIRECTORY) else inode.size
    attr.blocks = (attr.size + 511) // 512
    attr.atime = attr.mtime = attr.ctime = <uint64_t>inode.mtime_seconds
    attr.atimensec = attr.mtimensec = attr.ctimensec = inode.mtime_nanoseconds
    attr.mode = inode.mode
    attr.nlink = inode.nlink
    attr.uid = inode.uid
    attr.gid = inode.gid
    if is_type(inode, TYPE_CHAR) or is_type(inode, TYPE_BLOCK):
        attr.rdev = <uint32_t>inode.data
    attr.blksize = 4096


cdef inline void fill_entry(const Inode *inode, uint64_t node, fuse_entry_out *entry) noexcept nogil:
    memset(entry, 0, sizeof(fuse_entry_out))
    entry.nodeid = node
    entry.entry_valid = entry.attr_valid = VALID_SECONDS
    fill_attributes(inode, node, &entry.attr)


cdef inline int64_t answer_lookup(
    const Layer *layer, const Inode *directory, const char *name, size_t length, char *out
) noexcept nogil:
    """LOOKUP of a name with its NUL; that there is no such name is an answer too, which the kernel keeps."""
    cdef fuse_entry_out entry
    cdef uint32_t child = 0
    cdef int found
    if not is_type(directory, TYPE_DIRECTORY):
        return -ENOTDIR
    if not names_fit(&layer.index, directory):
        return -EIO
    found = find_child(&layer.index, directory, <const uint8_t *>name, length - 1, &child)
    if found < 0 or child >= layer.index.header.inode_count:
        return -EIO
    if found == 0:
        memset(&entry, 0, sizeof(entry))
        entry.entry_valid = VALID_SECONDS
    else:
        fill_entry(&layer.index.inodes[child], node_of(layer, child), &entry)
    memcpy(out, &entry, sizeof(entry))
    return sizeof(entry)


cdef inline int64_t answer_getattr(const Inode *inode, uint64_t node, char *out) noexcept nogil:
    cdef fuse_attr_out reply
    memset(&reply, 0, sizeof(reply))
    reply.attr_valid = VALID_SECONDS
    fill_attributes(inode, node, &reply.attr)
    memcpy(out, &reply, sizeof(reply))
    return sizeof(reply)


cdef inline int64_t answer_readlink(const Layer *layer, const Inode *inode, char *out, size_t size) noexcept nogil:
    if not is_type(inode, TYPE_SYMLINK):
        return -EINVAL
    if inode.size > size or not string_fits(&layer.index, inode.data, inode.size):
        return -EIO
    memcpy(out, layer.index.strings + inode.data, inode.size)
    return <int64_t>inode.size


cdef inline int64_t sized(uint32_t asked, uint64_t length, char *out) noexcept nogil:
    """What GETXATTR and LISTXATTR answer for `length` bytes before these are copied; 0 means: copy them."""
    cdef fuse_getxattr_out reply
    if asked == 0:
        memset(&reply, 0, sizeof(reply))
        reply.size = <uint32_t>length
        memcpy(out, &reply, sizeof(reply))
        return sizeof(reply)
    return -ERANGE if length > asked else 0


cdef inline int64_t answer_getxattr(
    const Layer *layer, const Inode *inode, const char *name, size_t length, uint32_t asked, char *out, size_t size
) noexcept nogil:
    """GETXATTR of a name with its NUL."""
    cdef XattrCursor cursor
    cdef Xattr xattr
    cdef int got
    cdef int64_t reply
    if not start_xattrs(&layer.index, inode, &cursor):
        return -EIO
    while True:
        got = next_xattr(&layer.index, &cursor, &xattr)
        if got <= 0:
            return -EIO if got < 0 else -ENODATA
        if xattr.name_size == length - 1 and memcmp(xattr.name, name, xattr.name_size) == 0:
            break
    if xattr.value_size > size:
        return -EIO
    reply = sized(asked, xattr.value_size, out)
    if reply:
        return reply
    memcpy(out, xattr.value, xattr.value_size)
    return xattr.value_size


cdef inline int64_t answer_listxattr(
    const Layer *layer, const Inode *inode, uint32_t asked, char *out, size_t size
) noexcept nogil:
    """The names, each with a NUL behind it."""
    cdef XattrCursor cursor
    cdef Xattr xattr
    cdef uint64_t length = 0
    cdef int got
    cdef int64_t reply
    if not start_xattrs(&layer.index, inode, &cursor):
        return -EIO
    while True:
        got = next_xattr(&layer.index, &cursor, &xattr)
        if got < 0:
            return -EIO
        if got == 0:
            break
        length += xattr.name_size + 1
    if length > size:
        return -EIO
    reply = sized(asked, length, out)
    if reply:
        return reply
    length = 0
    start_xattrs(&layer.index, inode, &cursor)
    while next_xattr(&layer.index, &cursor, &xattr) > 0:
        memcpy(out + length, xattr.name, xattr.name_size)
        out[length + xattr.name_size] = 0
        length += xattr.name_size + 1
    return <int64_t>length


cdef inline size_t put_name(
    char *out, size_t room, bint plus, const fuse_entry_out *entry, uint64_t node, uint32_t mode, uint64_t position,
    const uint8_t *name, uint32_t length,
) noexcept nogil:
    """One directory entry; 0 where there is no room for it."""
    cdef size_t head = sizeof(fuse_direntplus) if plus else sizeof(fuse_dirent)
    cdef size_t whole = (head + length + 7) & ~<size_t>7
    cdef fuse_dirent dirent
    if whole > room:
        return 0
    dirent.ino, dirent.off, dirent.namelen = node, position + 1, length
    dirent.type = (mode & TYPE_MASK) >> 12
    if plus:
        memcpy(out, entry, sizeof(fuse_entry_out))
        out += sizeof(fuse_entry_out)
    memcpy(out, &dirent, sizeof(fuse_dirent))
    memcpy(out + sizeof(fuse_dirent), name, length)
    memset(out + sizeof(fuse_dirent) + length, 0, whole - head - length)
    return whole


cdef inline int64_t answer_readdir(
    const Layer *layer, const Inode *directory, uint64_t node, uint64_t position, bint plus, char *out, size_t room
) noexcept nogil:
    """READDIR and READDIRPLUS from `position` on, as many names as there is room for."""
    cdef fuse_entry_out entry
    cdef const Dirent *dirent
    cdef const Inode *inode
    cdef size_t filled = 0, added
    cdef uint64_t parent
    if not is_type(directory, TYPE_DIRECTORY):
        return -ENOTDIR
    if not names_fit(&layer.index, directory):
        return -EIO
    while position < <uint64_t>directory.count + 2:
        if position < 2:
            # The kernel takes no attributes for these two: their entry stays empty.
            memset(&entry, 0, sizeof(entry))
            parent = node
            if position == 1:
                parent = node_of(layer, directory.data)
                if directory.size == NO_DIRENT:
                    parent = LINK_KIND | layer.number
            added = put_name(
                out + filled, room - filled, plus, &entry, parent, TYPE_DIRECTORY, position, b"..",
                <uint32_t>position + 1,
            )
        else:
            dirent = &layer.index.dirents[directory.first + position - 2]
            if (dirent.inode >= layer.index.header.inode_count
                    or not string_fits(&layer.index, dirent.name_at, dirent.name_size)):
                return -EIO
            inode = &layer.index.inodes[dirent.inode]
            if plus:
                fill_entry(inode, node_of(layer, dirent.inode), &entry)
            added = put_name(
                out + filled, room - filled, plus, &entry, node_of(layer, dirent.inode), inode.mode, position,
                layer.index.strings + dirent.name_at, dirent.name_size,
            )
        if added == 0:
            break
        filled += added
        position += 1
    return <int64_t>filled
