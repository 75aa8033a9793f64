"""From a request of the kernel to its reply: which of a layer's answers it wants, if it is whole."""

from libc.errno cimport EIO, ESTALE
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from fuse_wire cimport *
from lane_content cimport MISSING, read_content
from lane_layer cimport *
from lane_state cimport *

cdef extern from "<sys/statvfs.h>" nogil:
    struct statvfs_t "statvfs":
        unsigned long f_bsize, f_frsize
        uint64_t f_blocks, f_bfree, f_bavail, f_files, f_ffree
    int fstatvfs(int fd, statvfs_t *found)

cdef extern from *:
    """
    #define STORE_BIT 0x80000000u
    static const char STATE_DIRECTORY[18] = ".registry-storage";
    """
    const uint32_t STORE_BIT     # in the upper half of a node: a chain, which is the store's
    const char STATE_DIRECTORY[18]


cdef inline bint is_for_store(const fuse_in_header *header, const char *body, size_t length) noexcept nogil:
    """A request for what Python serves: the store's own nodes, and the name of the state at a layer's root."""
    cdef uint32_t above = <uint32_t>(header.nodeid >> 32)
    if above == 0 or above & STORE_BIT:
        return True
    return (
        header.opcode == FUSE_LOOKUP and <uint32_t>header.nodeid == 1 and length == sizeof(STATE_DIRECTORY)
        and memcmp(body, STATE_DIRECTORY, sizeof(STATE_DIRECTORY)) == 0
    )


cdef inline bint is_whole(uint32_t opcode, const char *body, size_t length) noexcept nogil:
    """Whether a request for a layer has all that its operation needs; names end with their NUL."""
    cdef size_t fixed = 0
    if opcode == FUSE_READ or opcode == FUSE_READDIR or opcode == FUSE_READDIRPLUS:
        fixed = sizeof(fuse_read_in)
    elif opcode == FUSE_GETXATTR or opcode == FUSE_LISTXATTR:
        fixed = sizeof(fuse_getxattr_in)
    if length < fixed:
        return False
    if opcode == FUSE_LOOKUP or opcode == FUSE_GETXATTR:
        return length > fixed and body[length - 1] == 0
    return True


cdef inline int64_t answer(State *state, Layer *layer, const char *request, size_t size, bint first) noexcept nogil:
    """The answer to a whole request for a layer: bytes in `state.reply` behind the header, MISSING, BLOCKS or an errno."""
    cdef const fuse_in_header *header = <const fuse_in_header *>request
    cdef const char *body = request + sizeof(fuse_in_header)
    cdef size_t length = size - sizeof(fuse_in_header)
    cdef const fuse_read_in *read_in = <const fuse_read_in *>body
    cdef const Inode *inode = inode_of(layer, header.nodeid)
    cdef char *out = state.reply + HEADER
    cdef size_t room = state.capacity - HEADER
    cdef uint32_t opcode = header.opcode
    cdef size_t fixed = sizeof(fuse_getxattr_in)
    if inode == NULL:
        return -ESTALE
    if opcode == FUSE_READ or opcode == FUSE_READDIR or opcode == FUSE_READDIRPLUS:
        room = min(room, <size_t>read_in.size)
        if opcode != FUSE_READ:
            return answer_readdir(
                layer, inode, header.nodeid, read_in.offset, opcode == FUSE_READDIRPLUS, out, room)
        if first and (state.every_read or is_first_read(layer, inode)):
            return MISSING
        return read_content(layer, inode, read_in.offset, <uint32_t>room, False, out)
    if opcode == FUSE_LOOKUP:
        return answer_lookup(layer, inode, body, length, out)
    if opcode == FUSE_GETATTR:
        return answer_getattr(inode, header.nodeid, out)
    if opcode == FUSE_READLINK:
        return answer_readlink(layer, inode, out, room)
    # GETXATTR and LISTXATTR begin alike.
    if opcode == FUSE_LISTXATTR:
        return answer_listxattr(layer, inode, (<const fuse_getxattr_in *>body).size, out, room)
    return answer_getxattr(
        layer, inode, body + fixed, length - fixed, (<const fuse_getxattr_in *>body).size, out, room)


cdef inline int64_t answer_statfs(int root, char *out) noexcept nogil:
    """The file system that holds the cache."""
    cdef statvfs_t found
    cdef fuse_statfs_out reply
    if fstatvfs(root, &found) != 0:
        return -EIO
    memset(&reply, 0, sizeof(reply))
    reply.st.blocks, reply.st.bfree, reply.st.bavail = found.f_blocks, found.f_bfree, found.f_bavail
    reply.st.files, reply.st.ffree = found.f_files, found.f_ffree
    reply.st.bsize, reply.st.frsize, reply.st.namelen = <uint32_t>found.f_bsize, <uint32_t>found.f_frsize, 255
    memcpy(out, &reply, sizeof(reply))
    return sizeof(reply)
