"""Inodes and their names while an index is built: one hash table of (directory, name)."""

from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from json_text cimport JSON_OK
from toc_build cimport (
    FIELD_NAME, NOTHING, STATUS_ENTRIES, STATUS_MEMORY, STATUS_NOT_DIRECTORY, Build, Name, fail, reserve,
    store_string,
)
from toc_fields cimport Path
from toc_layout cimport NO_XATTRS, TYPE_DIRECTORY, TYPE_MASK, Inode

cdef extern from * nogil:
    """
    #include <stdint.h>
    static inline uint64_t toc_fold(uint64_t a, uint64_t b) {
        unsigned __int128 product = (unsigned __int128) a * b;
        return (uint64_t) product ^ (uint64_t) (product >> 64);
    }
    """
    uint64_t toc_fold(uint64_t a, uint64_t b)

cdef inline uint64_t hash_name(
    const Build *build, uint32_t directory, const uint8_t *name, size_t size
) noexcept nogil:
    """Keyed with a secret of this build: nobody can write names that collide."""
    cdef uint64_t hashed = toc_fold(build.seed[0] ^ directory, build.seed[1] ^ size)
    cdef uint64_t word
    while size >= 8:
        memcpy(&word, name, 8)
        hashed = toc_fold(hashed ^ word, build.seed[1])
        name += 8
        size -= 8
    if size:
        word = 0
        memcpy(&word, name, size)
        hashed = toc_fold(hashed ^ word, build.seed[1])
    return toc_fold(hashed, build.seed[0])


cdef inline uint64_t *find_slot(
    const Build *build, uint32_t directory, const uint8_t *name, size_t size, uint64_t hashed
) noexcept nogil:
    """The slot of this name, or the free one where it belongs."""
    cdef uint64_t at = hashed & build.slot_mask
    cdef uint64_t slot
    cdef Name *known
    while True:
        slot = build.slots[at]
        if slot == 0:
            return &build.slots[at]
        if slot >> 32 == hashed & <uint64_t>0xFFFFFFFF:
            known = &build.names[(slot & <uint64_t>0xFFFFFFFF) - 1]
            if (known.directory == directory and known.name_size == size
                    and memcmp(build.strings + known.name_at, name, size) == 0):
                return &build.slots[at]
        at = (at + 1) & build.slot_mask


cdef inline int enlarge_slots(Build *build) noexcept nogil:
    """Keep at least half of the slots free."""
    cdef uint64_t size = (build.slot_mask + 1) * 2
    cdef uint64_t *slots
    cdef uint64_t i, at, slot
    if (build.name_count + 1) * 2 <= build.slot_mask + 1:
        return JSON_OK
    slots = <uint64_t *>calloc(size, sizeof(uint64_t))
    if slots == NULL:
        return STATUS_MEMORY
    for i in range(build.slot_mask + 1):
        slot = build.slots[i]
        if slot == 0:
            continue
        at = (slot >> 32) & (size - 1)
        while slots[at] != 0:
            at = (at + 1) & (size - 1)
        slots[at] = slot
    free(build.slots)
    build.slots = slots
    build.slot_mask = size - 1
    return JSON_OK


cdef inline uint32_t find_child(
    const Build *build, uint32_t directory, const uint8_t *name, size_t size
) noexcept nogil:
    """The inode of a name, or NOTHING."""
    cdef uint64_t slot = find_slot(build, directory, name, size, hash_name(build, directory, name, size))[0]
    return build.names[(slot & <uint64_t>0xFFFFFFFF) - 1].inode if slot else NOTHING


cdef inline int set_child(
    Build *build, uint32_t directory, const uint8_t *name, size_t size, uint32_t inode
) noexcept nogil:
    """Give `name` to `inode`, whatever had it before."""
    cdef uint64_t hashed = hash_name(build, directory, name, size)
    cdef uint64_t *slot
    cdef Name *entry
    cdef int status = enlarge_slots(build)
    if status != JSON_OK:
        return status
    slot = find_slot(build, directory, name, size, hashed)
    if slot[0]:
        entry = &build.names[(slot[0] & <uint64_t>0xFFFFFFFF) - 1]
        if build.inodes[entry.inode].mode & TYPE_MASK == TYPE_DIRECTORY:
            build.parent_known = False
        entry.inode = inode
        return JSON_OK
    status = reserve(<void **>&build.names, &build.name_capacity, build.name_count + 1, sizeof(Name))
    if status != JSON_OK:
        return status
    entry = &build.names[build.name_count]
    status = store_string(build, name, size, &entry.name_at)
    if status != JSON_OK:
        return status
    entry.directory = directory
    entry.name_size = <uint16_t>size
    entry.inode = inode
    build.name_count += 1
    slot[0] = hashed << 32 | build.name_count
    return JSON_OK


cdef inline int add_inode(Build *build, uint32_t mode, uint32_t *number) noexcept nogil:
    cdef Inode *inode
    cdef int status
    if build.inode_count > build.max_entries:
        return fail(build, STATUS_ENTRIES, FIELD_NAME)
    status = reserve(<void **>&build.inodes, &build.inode_capacity, build.inode_count + 1, sizeof(Inode))
    if status != JSON_OK:
        return status
    inode = &build.inodes[build.inode_count]
    memset(inode, 0, sizeof(Inode))
    inode.mode = mode
    inode.xattrs = NO_XATTRS
    number[0] = <uint32_t>build.inode_count
    build.inode_count += 1
    return JSON_OK


cdef inline int add_directory(
    Build *build, uint32_t parent, const uint8_t *name, size_t size, uint32_t *number
) noexcept nogil:
    cdef int status = add_inode(build, TYPE_DIRECTORY | 0o755, number)
    if status != JSON_OK:
        return status
    build.inodes[number[0]].data = parent
    return set_child(build, parent, name, size, number[0])


cdef inline int open_parent(Build *build, uint32_t *parent) noexcept nogil:
    """The directory that holds ``build.path``; what is missing on the way is made, 0755 root."""
    cdef const Path *path = &build.path
    cdef size_t size = path.base - 1 if path.base else 0
    cdef size_t start = 0
    cdef size_t end
    cdef uint32_t at = 0
    cdef uint32_t child
    cdef int status
    if build.parent_known and build.parent_size == size and memcmp(build.parent_path, path.bytes, size) == 0:
        parent[0] = build.parent
        return JSON_OK
    while start < size:
        end = start
        while end < size and path.bytes[end] != 0x2F:
            end += 1
        child = find_child(build, at, path.bytes + start, end - start)
        if child == NOTHING:
            status = add_directory(build, at, path.bytes + start, end - start, &child)
            if status != JSON_OK:
                return status
        elif build.inodes[child].mode & TYPE_MASK != TYPE_DIRECTORY:
            return fail(build, STATUS_NOT_DIRECTORY, FIELD_NAME)
        at = child
        start = end + 1
    build.parent_known = True
    build.parent = at
    build.parent_size = size
    memcpy(build.parent_path, path.bytes, size)
    parent[0] = at
    return JSON_OK


cdef inline uint32_t find_path(const Build *build, const uint8_t *path, size_t size) noexcept nogil:
    """The inode at a cleaned path, or NOTHING."""
    cdef size_t start = 0
    cdef size_t end
    cdef uint32_t at = 0
    while start < size:
        end = start
        while end < size and path[end] != 0x2F:
            end += 1
        if build.inodes[at].mode & TYPE_MASK != TYPE_DIRECTORY:
            return NOTHING
        at = find_child(build, at, path + start, end - start)
        if at == NOTHING:
            return NOTHING
        start = end + 1
    return at
