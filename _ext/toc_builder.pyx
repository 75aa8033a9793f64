"""TOC JSON to a packed index, in one pass over the text and without a Python object per entry.

The scan keeps flat arrays (inodes, names, chunks) and one hash table of (directory, name); finishing gives whiteouts,
hard links, link counts and piece ends their final values; emitting writes the buffer that toc_layout.pxd describes.
"""

import hashlib
import os

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, qsort, realloc
from libc.string cimport memcmp, memcpy, memmove, memset

from json_text cimport (
    JSON_OK, JSON_RANGE, JSON_SYNTAX, JSON_TRUNCATED, JSON_TYPE, JSON_WIDE,
    JsonCursor, JsonString, json_decode, json_expect, json_key, json_literal, json_number, json_peek, json_skip,
    json_string,
)
from toc_fields cimport (
    MAX_PATH_BYTES, NAME_BAD_WHITEOUT, NAME_HIDDEN, NAME_LANDMARK, NAME_NO_PREFETCH, NAME_OPAQUE, NAME_PLAIN,
    NAME_WHITEOUT, PATH_OK, Path, clean_path, name_kind, parse_base64, parse_digest, parse_time, text_is,
)
from toc_layout cimport (
    CONTENT_PAGE, CONTENT_WORD, FLAG_INNER_OFFSETS, FLAG_NO_PREFETCH, HEADER_SIZE, INDEX_MAGIC, LAYOUT_VERSION,
    NO_DIRENT, NO_XATTRS, SEALED_SIZE, TYPE_BLOCK, TYPE_CHAR, TYPE_DIRECTORY, TYPE_FIFO, TYPE_MASK, TYPE_REGULAR,
    TYPE_SYMLINK, Chunk, Dirent, Header, Inode,
)

cdef extern from *:
    """
    #include <stdint.h>
    static inline uint64_t toc_fold(uint64_t a, uint64_t b) {
        unsigned __int128 product = (unsigned __int128) a * b;
        return (uint64_t) product ^ (uint64_t) (product >> 64);
    }
    #define HOLE UINT64_MAX
    #define NOTHING UINT32_MAX
    #define OPAQUE_BIT (1ull << 63)
    """
    uint64_t toc_fold(uint64_t a, uint64_t b) noexcept nogil
    const uint64_t HOLE        # in `inner`: the chunk is a hole
    const uint32_t NOTHING
    const uint64_t OPAQUE_BIT  # in a directory's `data`, until the index is written

cdef enum:
    MAX_TOC_BYTES = 1 << 30
    MAX_CHUNK_BYTES = 1 << 30
    MAX_SYMLINK_BYTES = 4095
    MAX_XATTR_NAME_BYTES = 255
    MAX_XATTR_VALUE_BYTES = 65536
    MAX_XATTRS = 1024            # of one entry
    MAX_DEVICE_MAJOR = (1 << 12) - 1
    MAX_DEVICE_MINOR = (1 << 20) - 1
    BASE64_BYTES = 87384         # of the largest value
    INSERTION_RUN = 8

cdef extern from *:
    """
    #define MAX_CONTENT_BYTES (1ull << 43)
    #define MAX_ID 0xfffffffeu
    """
    const uint64_t MAX_CONTENT_BYTES  # of the sparse content file: within what ext4 holds
    const uint32_t MAX_ID             # the id above it means "none" to the kernel

# What can be wrong; words for each stand in registry_storage.toc.index. JsonStatus comes first, PathStatus is added
# to STATUS_PATH.
cdef enum:  # Status
    STATUS_MEMORY = 10
    STATUS_TRAILING = 11           # something after the document
    STATUS_NO_ENTRIES = 12
    STATUS_TWICE = 13              # the document has two `entries`
    STATUS_VERSION = 14
    STATUS_ENTRIES = 15            # more entries, or inodes, than allowed
    STATUS_VALUE = 16              # a string that is not of the field's form
    STATUS_BOUNDS = 17             # a number that is not in the field's range
    STATUS_OUTSIDE = 18            # an offset that is not in the blob
    STATUS_MISSING = 19
    STATUS_ROOT = 20               # the root is not a directory
    STATUS_NOT_DIRECTORY = 21      # below something that is no directory
    STATUS_LINK_TARGET = 22        # a hard link to nothing
    STATUS_LINK_DIRECTORY = 23
    STATUS_LINK_CYCLE = 24
    STATUS_STRAY_CHUNK = 25        # not after a regular file
    STATUS_OTHER_FILE = 26         # the chunk names another file
    STATUS_NOT_CONTIGUOUS = 27     # a chunk does not start where the one before it ended
    STATUS_PAST_END = 28           # a chunk ends behind the file
    STATUS_SHORT = 29              # the chunks end before the file does
    STATUS_CHUNK_SIZE = 30
    STATUS_LONG = 31
    STATUS_NUL = 32
    STATUS_CONTENT = 33            # all files together are too large
    STATUS_TOO_MANY_XATTRS = 34
    STATUS_SECTION = 35            # a section would pass 4 GiB
    STATUS_PATH = 40

cdef enum:
    # Numbers first: they share one array.
    FIELD_SIZE = 0
    FIELD_MODE = 1
    FIELD_UID = 2
    FIELD_GID = 3
    FIELD_DEV_MAJOR = 4
    FIELD_DEV_MINOR = 5
    FIELD_OFFSET = 6
    FIELD_END_OFFSET = 7
    FIELD_INNER_OFFSET = 8
    FIELD_CHUNK_OFFSET = 9
    FIELD_CHUNK_SIZE = 10
    NUMBERS = 11
    FIELD_NAME = 11
    FIELD_TYPE = 12
    FIELD_MODTIME = 13
    FIELD_LINK_NAME = 14
    FIELD_XATTRS = 15
    FIELD_DIGEST = 16
    FIELD_CHUNK_DIGEST = 17
    FIELD_CHUNK_TYPE = 18
    FIELD_NONE = 19
    FIELD_ENTRIES = 20
    FIELD_VERSION = 21

_FIELD_NAMES = (
    "size", "mode", "uid", "gid", "devMajor", "devMinor", "offset", "endOffset", "innerOffset", "chunkOffset",
    "chunkSize", "name", "type", "modtime", "linkName", "xattrs", "digest", "chunkDigest", "chunkType", None,
    "entries", "version",
)

cdef enum:  # EntryType
    ENTRY_NONE = 0
    ENTRY_DIRECTORY = 1
    ENTRY_REGULAR = 2
    ENTRY_SYMLINK = 3
    ENTRY_HARD_LINK = 4
    ENTRY_CHAR = 5
    ENTRY_BLOCK = 6
    ENTRY_FIFO = 7
    ENTRY_CHUNK = 8

cdef struct Text:
    const uint8_t *data
    size_t size

cdef struct Entry:
    int type
    bint has_digest
    bint has_chunk_digest
    bint hole
    uint64_t number[NUMBERS]
    Text name
    Text link
    int64_t mtime_seconds
    uint32_t mtime_nanoseconds
    uint32_t xattrs
    uint8_t digest[32]
    uint8_t chunk_digest[32]

cdef struct Name:            # a dirent while building
    uint32_t directory
    uint32_t name_at
    uint32_t inode
    uint16_t name_size

cdef struct Key:             # a dirent while sorting: the first eight bytes of its name decide most comparisons
    uint64_t prefix
    uint32_t name_at
    uint32_t inode
    uint16_t name_size

cdef struct PendingLink:     # a hard link whose target had not been seen
    uint32_t inode           # its placeholder; mode 0
    uint32_t target_at       # cleaned path in strings
    uint32_t target_size
    uint32_t entry
    uint32_t resolved        # inode, at first perhaps another placeholder
    uint32_t mark

cdef struct Whiteout:
    uint32_t directory
    uint32_t name_at
    uint16_t name_size
    uint32_t uid
    uint32_t gid
    int64_t mtime_seconds
    uint32_t mtime_nanoseconds

cdef struct OpenFile:        # the regular file whose chunks are being read
    bint is_open
    uint32_t inode           # NOTHING: hidden, only checked
    uint32_t entry
    uint64_t size
    uint64_t next            # file offset of the next chunk
    uint64_t end_offset
    uint32_t first
    uint32_t last_data       # chunk; NOTHING: only holes so far
    bint has_digest
    uint8_t digest[32]
    size_t path_size
    uint8_t path[MAX_PATH_BYTES]

cdef struct Build:
    uint64_t toc_offset
    uint64_t blob_size
    uint64_t max_entries
    uint64_t seed[2]
    JsonCursor cursor
    # What failed
    int field
    uint32_t entry_number
    uint64_t bad_number
    # Growing arrays
    Inode *inodes
    uint64_t inode_count
    uint64_t inode_capacity
    Name *names
    uint64_t name_count
    uint64_t name_capacity
    Chunk *chunks
    uint64_t chunk_count
    uint64_t chunk_capacity
    uint64_t *inner
    uint64_t inner_capacity
    uint8_t *strings
    uint64_t strings_size
    uint64_t strings_capacity
    uint8_t *xattrs
    uint64_t xattrs_size
    uint64_t xattrs_capacity
    PendingLink *pending
    uint64_t pending_count
    uint64_t pending_capacity
    Whiteout *whiteouts
    uint64_t whiteout_count
    uint64_t whiteout_capacity
    uint64_t *slots          # hash << 32 | name + 1; 0: free
    uint64_t slot_mask
    # The entry at hand
    Entry entry
    Path path
    Path link
    OpenFile file
    uint32_t parent          # of the entry before: most entries share their directory with it
    size_t parent_size
    bint parent_known
    uint8_t parent_path[MAX_PATH_BYTES]
    uint8_t name_text[MAX_PATH_BYTES + 4]
    uint8_t link_text[MAX_PATH_BYTES + 4]
    uint8_t *base64_text
    uint64_t declared_bytes  # of all regular files so far, hidden and replaced ones too
    # The result
    uint64_t prefetch_end
    bint no_prefetch
    bint any_inner
    uint64_t content_size
    uint64_t total_file_bytes
    uint32_t *numbers        # inode while building -> inode in the index, or NOTHING
    uint32_t live_inodes
    uint64_t live_names
    uint64_t live_chunks
    uint32_t opaque_alone    # the record of opaque directories without attributes of their own
    uint64_t *offsets        # of all pieces, sorted; NULL when the chunk table is in this order


# Memory ------------------------------------------------------------------------------------------------------------

cdef int reserve(void **array, uint64_t *capacity, uint64_t wanted, size_t item) noexcept nogil:
    """Room for `wanted` items; doubling keeps the copies few, and pages that are never touched cost nothing."""
    cdef uint64_t larger = capacity[0]
    cdef void *moved
    if wanted <= larger:
        return JSON_OK
    if larger < 64:
        larger = 64
    while larger < wanted:
        larger *= 2
    moved = realloc(array[0], larger * item)
    if moved == NULL:
        return STATUS_MEMORY
    array[0] = moved
    capacity[0] = larger
    return JSON_OK


cdef int fail(Build *build, int status, int field) noexcept nogil:
    build.field = field
    return status


cdef int fail_number(Build *build, int status, int field) noexcept nogil:
    build.bad_number = build.entry.number[field]
    return fail(build, status, field)


cdef int store_string(Build *build, const uint8_t *data, size_t size, uint32_t *at) noexcept nogil:
    cdef int status
    if build.strings_size + size > <uint64_t>0xFFFFFFFE:
        return fail(build, STATUS_SECTION, FIELD_NAME)
    status = reserve(<void **>&build.strings, &build.strings_capacity, build.strings_size + size, 1)
    if status != JSON_OK:
        return status
    memcpy(build.strings + build.strings_size, data, size)
    at[0] = <uint32_t>build.strings_size
    build.strings_size += size
    return JSON_OK


# Names -------------------------------------------------------------------------------------------------------------

cdef uint64_t hash_name(const Build *build, uint32_t directory, const uint8_t *name, size_t size) noexcept nogil:
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


cdef uint64_t *find_slot(
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


cdef int enlarge_slots(Build *build) noexcept nogil:
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


cdef uint32_t find_child(const Build *build, uint32_t directory, const uint8_t *name, size_t size) noexcept nogil:
    """The inode of a name, or NOTHING."""
    cdef uint64_t slot = find_slot(build, directory, name, size, hash_name(build, directory, name, size))[0]
    return build.names[(slot & <uint64_t>0xFFFFFFFF) - 1].inode if slot else NOTHING


cdef int set_child(
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


cdef int add_inode(Build *build, uint32_t mode, uint32_t *number) noexcept nogil:
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


cdef int add_directory(
    Build *build, uint32_t parent, const uint8_t *name, size_t size, uint32_t *number
) noexcept nogil:
    cdef int status = add_inode(build, TYPE_DIRECTORY | 0o755, number)
    if status != JSON_OK:
        return status
    build.inodes[number[0]].data = parent
    return set_child(build, parent, name, size, number[0])


cdef int open_parent(Build *build, uint32_t *parent) noexcept nogil:
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


cdef uint32_t find_path(const Build *build, const uint8_t *path, size_t size) noexcept nogil:
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


# Chunks ------------------------------------------------------------------------------------------------------------

cdef int add_record(Build *build, uint64_t file_offset, uint32_t size, uint64_t inner) noexcept nogil:
    cdef Chunk *chunk
    cdef int status
    if build.chunk_count >= <uint64_t>0xFFFFFFFE:
        return fail(build, STATUS_SECTION, FIELD_CHUNK_SIZE)
    status = reserve(<void **>&build.chunks, &build.chunk_capacity, build.chunk_count + 1, sizeof(Chunk))
    if status != JSON_OK:
        return status
    status = reserve(<void **>&build.inner, &build.inner_capacity, build.chunk_count + 1, sizeof(uint64_t))
    if status != JSON_OK:
        return status
    chunk = &build.chunks[build.chunk_count]
    memset(chunk, 0, sizeof(Chunk))
    chunk.blob_offset = build.entry.number[FIELD_OFFSET]
    chunk.size = size
    chunk.content_offset = file_offset
    build.inner[build.chunk_count] = inner
    if inner != 0 and inner != HOLE:
        build.any_inner = True
    build.chunk_count += 1
    return JSON_OK


cdef int add_chunk(Build *build) noexcept nogil:
    """The chunk that the entry at hand describes, which must continue the open file."""
    cdef Entry *entry = &build.entry
    cdef OpenFile *file = &build.file
    cdef uint64_t size = entry.number[FIELD_CHUNK_SIZE]
    cdef uint64_t inner = entry.number[FIELD_INNER_OFFSET]
    cdef uint64_t end
    cdef uint32_t part
    cdef int status
    if entry.number[FIELD_CHUNK_OFFSET] != file.next:
        return fail_number(build, STATUS_NOT_CONTIGUOUS, FIELD_CHUNK_OFFSET)
    if file.next >= file.size:
        return fail_number(build, STATUS_PAST_END, FIELD_CHUNK_OFFSET)
    if size > file.size - file.next:
        return fail_number(build, STATUS_PAST_END, FIELD_CHUNK_SIZE)
    if size == 0:
        size = file.size - file.next
    if entry.hole:
        # Holes may be longer than a record can say.
        end = file.next + size
        while file.next < end:
            part = <uint32_t>min(end - file.next, <uint64_t>MAX_CHUNK_BYTES)
            status = add_record(build, file.next, part, HOLE)
            if status != JSON_OK:
                return status
            file.next += part
        return JSON_OK
    if size > MAX_CHUNK_BYTES:
        build.bad_number = size
        return fail(build, STATUS_CHUNK_SIZE, FIELD_CHUNK_SIZE)
    if inner > MAX_CHUNK_BYTES or inner + size > MAX_CHUNK_BYTES:
        return fail_number(build, STATUS_CHUNK_SIZE, FIELD_INNER_OFFSET)
    if entry.number[FIELD_OFFSET] >= build.toc_offset:
        return fail_number(build, STATUS_OUTSIDE, FIELD_OFFSET)
    status = add_record(build, file.next, <uint32_t>size, inner)
    if status != JSON_OK:
        return status
    file.last_data = <uint32_t>(build.chunk_count - 1)
    if entry.has_chunk_digest:
        memcpy(build.chunks[file.last_data].digest, entry.chunk_digest, 32)
    elif file.has_digest and size == file.size:
        memcpy(build.chunks[file.last_data].digest, file.digest, 32)
    else:
        return fail(build, STATUS_MISSING, FIELD_CHUNK_DIGEST)
    file.next += size
    return JSON_OK


cdef int open_file(Build *build, uint32_t inode) noexcept nogil:
    """Begin a regular file; `inode` NOTHING: it stays hidden, but its chunks are checked like any other's."""
    cdef Entry *entry = &build.entry
    cdef OpenFile *file = &build.file
    # Checked before the chunks: a hole may need a record for every GiB.
    if entry.number[FIELD_SIZE] > MAX_CONTENT_BYTES - build.declared_bytes:
        return fail_number(build, STATUS_CONTENT, FIELD_SIZE)
    build.declared_bytes += entry.number[FIELD_SIZE]
    file.is_open = True
    file.inode = inode
    file.entry = build.entry_number
    file.size = entry.number[FIELD_SIZE]
    file.next = 0
    file.end_offset = entry.number[FIELD_END_OFFSET]
    file.first = <uint32_t>build.chunk_count
    file.last_data = NOTHING
    file.has_digest = entry.has_digest
    memcpy(file.digest, entry.digest, 32)
    file.path_size = build.path.size
    memcpy(file.path, build.path.bytes, build.path.size)
    return add_chunk(build) if file.size else JSON_OK


cdef int close_file(Build *build) noexcept nogil:
    cdef OpenFile *file = &build.file
    cdef Chunk *last
    if not file.is_open:
        return JSON_OK
    file.is_open = False
    if file.next != file.size:
        build.entry_number = file.entry
        build.bad_number = file.next
        build.entry.name.data = file.path
        build.entry.name.size = file.path_size
        return fail(build, STATUS_SHORT, FIELD_SIZE)
    if file.end_offset and file.last_data != NOTHING:
        last = &build.chunks[file.last_data]
        if file.end_offset <= last.blob_offset:
            build.entry_number = file.entry
            build.bad_number = file.end_offset
            build.entry.name.data = file.path
            build.entry.name.size = file.path_size
            return fail(build, STATUS_OUTSIDE, FIELD_END_OFFSET)
        last.blob_size = <uint32_t>min(file.end_offset - last.blob_offset, <uint64_t>0xFFFFFFFF)
    if file.inode != NOTHING:
        build.inodes[file.inode].first = file.first
        build.inodes[file.inode].count = <uint32_t>(build.chunk_count - file.first)
    return JSON_OK


# Entries -----------------------------------------------------------------------------------------------------------

cdef int check_path(Build *build, int field) noexcept nogil:
    cdef Text *text = &build.entry.name if field == FIELD_NAME else &build.entry.link
    cdef int status = clean_path(text.data, text.size, &build.path if field == FIELD_NAME else &build.link)
    return JSON_OK if status == PATH_OK else fail(build, STATUS_PATH + status, field)


cdef int describe(Build *build, Inode *inode) noexcept nogil:
    """What every type has: mode, owner, time, attributes. The type bits must be set already."""
    cdef Entry *entry = &build.entry
    if entry.number[FIELD_UID] > MAX_ID:
        return fail_number(build, STATUS_BOUNDS, FIELD_UID)
    if entry.number[FIELD_GID] > MAX_ID:
        return fail_number(build, STATUS_BOUNDS, FIELD_GID)
    inode.mode = inode.mode & TYPE_MASK | <uint32_t>(entry.number[FIELD_MODE] & 0o7777)
    inode.uid = <uint32_t>entry.number[FIELD_UID]
    inode.gid = <uint32_t>entry.number[FIELD_GID]
    if entry.mtime_seconds >= 0:
        inode.mtime_seconds = entry.mtime_seconds
        inode.mtime_nanoseconds = entry.mtime_nanoseconds
    else:
        inode.mtime_seconds = 0
        inode.mtime_nanoseconds = 0
    inode.xattrs = entry.xattrs
    return JSON_OK


cdef int add_chunk_entry(Build *build) noexcept nogil:
    cdef OpenFile *file = &build.file
    cdef int status
    if not file.is_open:
        return fail(build, STATUS_STRAY_CHUNK, FIELD_TYPE)
    if build.entry.name.size:
        if not (build.entry.name.size == file.path_size
                and memcmp(build.entry.name.data, file.path, file.path_size) == 0):
            status = check_path(build, FIELD_NAME)
            if status != JSON_OK:
                return status
            if build.path.size != file.path_size or memcmp(build.path.bytes, file.path, file.path_size) != 0:
                return fail(build, STATUS_OTHER_FILE, FIELD_NAME)
    return add_chunk(build)


cdef int add_hard_link(Build *build, uint32_t *inode) noexcept nogil:
    """The inode that the link shares; a placeholder while its target has not been seen."""
    cdef PendingLink *pending
    cdef uint32_t target
    cdef uint32_t at
    cdef int status
    if build.entry.link.size == 0:
        return fail(build, STATUS_MISSING, FIELD_LINK_NAME)
    status = check_path(build, FIELD_LINK_NAME)
    if status != JSON_OK:
        return status
    target = find_path(build, build.link.bytes, build.link.size)
    if target != NOTHING:
        if build.inodes[target].mode & TYPE_MASK == TYPE_DIRECTORY:
            return fail(build, STATUS_LINK_DIRECTORY, FIELD_LINK_NAME)
        inode[0] = target
        return JSON_OK
    status = add_inode(build, 0, inode)
    if status != JSON_OK:
        return status
    status = store_string(build, build.link.bytes, build.link.size, &at)
    if status != JSON_OK:
        return status
    status = reserve(
        <void **>&build.pending, &build.pending_capacity, build.pending_count + 1, sizeof(PendingLink)
    )
    if status != JSON_OK:
        return status
    pending = &build.pending[build.pending_count]
    pending.inode = inode[0]
    pending.target_at = at
    pending.target_size = <uint32_t>build.link.size
    pending.entry = build.entry_number
    pending.resolved = NOTHING
    pending.mark = 0
    build.inodes[inode[0]].first = <uint32_t>build.pending_count
    build.pending_count += 1
    return JSON_OK


cdef int add_whiteout(Build *build, uint32_t directory) noexcept nogil:
    cdef Inode owner
    cdef Whiteout *whiteout
    cdef uint32_t at
    cdef int status
    owner.mode = TYPE_CHAR
    status = describe(build, &owner)
    if status != JSON_OK:
        return status
    status = store_string(
        build, build.path.bytes + build.path.base + 4, build.path.size - build.path.base - 4, &at
    )
    if status != JSON_OK:
        return status
    status = reserve(
        <void **>&build.whiteouts, &build.whiteout_capacity, build.whiteout_count + 1, sizeof(Whiteout)
    )
    if status != JSON_OK:
        return status
    whiteout = &build.whiteouts[build.whiteout_count]
    whiteout.directory = directory
    whiteout.name_at = at
    whiteout.name_size = <uint16_t>(build.path.size - build.path.base - 4)
    whiteout.uid = owner.uid
    whiteout.gid = owner.gid
    whiteout.mtime_seconds = owner.mtime_seconds
    whiteout.mtime_nanoseconds = owner.mtime_nanoseconds
    build.whiteout_count += 1
    return JSON_OK


cdef int add_special(Build *build, int kind) noexcept nogil:
    """An entry that is not shown under its own name: hidden, landmark, whiteout or opaque marker."""
    cdef Entry *entry = &build.entry
    cdef uint32_t directory
    cdef int status
    if kind == NAME_BAD_WHITEOUT:
        return fail(build, STATUS_VALUE, FIELD_NAME)
    if kind == NAME_LANDMARK and entry.type == ENTRY_REGULAR:
        build.prefetch_end = entry.number[FIELD_OFFSET]
    if kind == NAME_NO_PREFETCH:
        build.no_prefetch = True
    if kind == NAME_OPAQUE or kind == NAME_WHITEOUT:
        status = open_parent(build, &directory)
        if status != JSON_OK:
            return status
        if kind == NAME_OPAQUE:
            build.inodes[directory].data |= OPAQUE_BIT
        else:
            status = add_whiteout(build, directory)
            if status != JSON_OK:
                return status
    return open_file(build, NOTHING) if entry.type == ENTRY_REGULAR else JSON_OK


cdef int add_plain(Build *build) noexcept nogil:
    """An entry that is shown under its own name."""
    cdef Entry *entry = &build.entry
    cdef const uint8_t *name = build.path.bytes + build.path.base
    cdef size_t name_size = build.path.size - build.path.base
    cdef uint32_t directory, number
    cdef Inode *inode
    cdef uint64_t major, minor
    cdef uint32_t at
    cdef int status = open_parent(build, &directory)
    if status != JSON_OK:
        return status
    if entry.type == ENTRY_HARD_LINK:
        status = add_hard_link(build, &number)
        return status if status != JSON_OK else set_child(build, directory, name, name_size, number)
    if entry.type == ENTRY_DIRECTORY:
        number = find_child(build, directory, name, name_size)
        if number == NOTHING or build.inodes[number].mode & TYPE_MASK != TYPE_DIRECTORY:
            status = add_directory(build, directory, name, name_size, &number)
            if status != JSON_OK:
                return status
        return describe(build, &build.inodes[number])
    status = add_inode(build, 0, &number)
    if status != JSON_OK:
        return status
    if entry.type == ENTRY_SYMLINK:
        if entry.link.size == 0:
            return fail(build, STATUS_MISSING, FIELD_LINK_NAME)
        if entry.link.size > MAX_SYMLINK_BYTES:
            return fail(build, STATUS_LONG, FIELD_LINK_NAME)
        for at in range(<uint32_t>entry.link.size):
            if entry.link.data[at] == 0:
                return fail(build, STATUS_NUL, FIELD_LINK_NAME)
        status = store_string(build, entry.link.data, entry.link.size, &at)
        if status != JSON_OK:
            return status
    inode = &build.inodes[number]
    if entry.type == ENTRY_REGULAR:
        inode.mode = TYPE_REGULAR
        inode.size = entry.number[FIELD_SIZE]
    elif entry.type == ENTRY_SYMLINK:
        inode.mode = TYPE_SYMLINK
        inode.data = at
        inode.size = entry.link.size
    elif entry.type == ENTRY_FIFO:
        inode.mode = TYPE_FIFO
    else:
        inode.mode = TYPE_CHAR if entry.type == ENTRY_CHAR else TYPE_BLOCK
        major = entry.number[FIELD_DEV_MAJOR]
        minor = entry.number[FIELD_DEV_MINOR]
        if major > MAX_DEVICE_MAJOR:
            return fail_number(build, STATUS_BOUNDS, FIELD_DEV_MAJOR)
        if minor > MAX_DEVICE_MINOR:
            return fail_number(build, STATUS_BOUNDS, FIELD_DEV_MINOR)
        inode.data = minor & 0xFF | major << 8 | (minor & ~<uint64_t>0xFF) << 12
    status = describe(build, inode)
    if status != JSON_OK:
        return status
    status = set_child(build, directory, name, name_size, number)
    if status != JSON_OK:
        return status
    return open_file(build, number) if entry.type == ENTRY_REGULAR else JSON_OK


cdef int commit(Build *build) noexcept nogil:
    """Give the entry at hand its place; its fields have the right types and no negative numbers."""
    cdef Entry *entry = &build.entry
    cdef int kind
    cdef int status
    if entry.type == ENTRY_NONE:
        return fail(build, STATUS_MISSING, FIELD_TYPE)
    if entry.number[FIELD_OFFSET] > build.toc_offset:
        return fail_number(build, STATUS_OUTSIDE, FIELD_OFFSET)
    if entry.number[FIELD_END_OFFSET] > build.toc_offset:
        return fail_number(build, STATUS_OUTSIDE, FIELD_END_OFFSET)
    if entry.type == ENTRY_CHUNK:
        return add_chunk_entry(build)
    status = close_file(build)
    if status != JSON_OK:
        return status
    status = check_path(build, FIELD_NAME)
    if status != JSON_OK:
        return status
    if build.path.size == 0:
        if entry.type != ENTRY_DIRECTORY:
            return fail(build, STATUS_ROOT, FIELD_TYPE)
        return describe(build, &build.inodes[0])
    kind = name_kind(&build.path)
    return add_plain(build) if kind == NAME_PLAIN else add_special(build, kind)


# Scanning ----------------------------------------------------------------------------------------------------------

cdef int key_field(const uint8_t *key, size_t size) noexcept nogil:
    if size == 3:
        if memcmp(key, b"uid", 3) == 0:
            return FIELD_UID
        if memcmp(key, b"gid", 3) == 0:
            return FIELD_GID
    elif size == 4:
        if memcmp(key, b"name", 4) == 0:
            return FIELD_NAME
        if memcmp(key, b"type", 4) == 0:
            return FIELD_TYPE
        if memcmp(key, b"size", 4) == 0:
            return FIELD_SIZE
        if memcmp(key, b"mode", 4) == 0:
            return FIELD_MODE
    elif size == 6:
        if memcmp(key, b"offset", 6) == 0:
            return FIELD_OFFSET
        if memcmp(key, b"digest", 6) == 0:
            return FIELD_DIGEST
        if memcmp(key, b"xattrs", 6) == 0:
            return FIELD_XATTRS
    elif size == 7:
        if memcmp(key, b"modtime", 7) == 0:
            return FIELD_MODTIME
    elif size == 8:
        if memcmp(key, b"linkName", 8) == 0:
            return FIELD_LINK_NAME
        if memcmp(key, b"devMajor", 8) == 0:
            return FIELD_DEV_MAJOR
        if memcmp(key, b"devMinor", 8) == 0:
            return FIELD_DEV_MINOR
    elif size == 9:
        if memcmp(key, b"chunkSize", 9) == 0:
            return FIELD_CHUNK_SIZE
        if memcmp(key, b"chunkType", 9) == 0:
            return FIELD_CHUNK_TYPE
        if memcmp(key, b"endOffset", 9) == 0:
            return FIELD_END_OFFSET
    elif size == 11:
        if memcmp(key, b"chunkOffset", 11) == 0:
            return FIELD_CHUNK_OFFSET
        if memcmp(key, b"chunkDigest", 11) == 0:
            return FIELD_CHUNK_DIGEST
        if memcmp(key, b"innerOffset", 11) == 0:
            return FIELD_INNER_OFFSET
    return FIELD_NONE


cdef int read_text(
    JsonCursor *cursor, uint8_t *room, size_t capacity, Text *text
) noexcept nogil:
    """A string's bytes: in the document itself when nothing is escaped, else decoded into `room`."""
    cdef JsonString string
    cdef int status
    if cursor.at[0] != 0x22:
        return JSON_TYPE
    status = json_string(cursor, &string)
    if status != JSON_OK:
        return status
    text.data = string.data
    text.size = string.size
    if string.escaped:
        status = json_decode(&string, room, capacity, &text.size)
        text.data = room
    return status


cdef int entry_type(const Text *text) noexcept nogil:
    if text_is(text.data, text.size, b"reg", 3):
        return ENTRY_REGULAR
    if text_is(text.data, text.size, b"dir", 3):
        return ENTRY_DIRECTORY
    if text_is(text.data, text.size, b"symlink", 7):
        return ENTRY_SYMLINK
    if text_is(text.data, text.size, b"chunk", 5):
        return ENTRY_CHUNK
    if text_is(text.data, text.size, b"hardlink", 8):
        return ENTRY_HARD_LINK
    if text_is(text.data, text.size, b"char", 4):
        return ENTRY_CHAR
    if text_is(text.data, text.size, b"block", 5):
        return ENTRY_BLOCK
    if text_is(text.data, text.size, b"fifo", 4):
        return ENTRY_FIFO
    return ENTRY_NONE


cdef int read_text_field(Build *build, int field) noexcept nogil:
    cdef Entry *entry = &build.entry
    cdef uint8_t room[256]
    cdef Text text
    cdef int status
    if field == FIELD_NAME:
        return read_text(&build.cursor, build.name_text, sizeof(build.name_text), &entry.name)
    if field == FIELD_LINK_NAME:
        return read_text(&build.cursor, build.link_text, sizeof(build.link_text), &entry.link)
    status = read_text(&build.cursor, room, sizeof(room), &text)
    if status == JSON_WIDE:
        return STATUS_VALUE
    if status != JSON_OK:
        return status
    if field == FIELD_TYPE:
        entry.type = entry_type(&text)
        return JSON_OK if entry.type != ENTRY_NONE else STATUS_VALUE
    if field == FIELD_CHUNK_TYPE:
        entry.hole = text_is(text.data, text.size, b"zeros", 5)
        if entry.hole or text.size == 0 or text_is(text.data, text.size, b"data", 4):
            return JSON_OK
        return STATUS_VALUE
    if field == FIELD_MODTIME:
        entry.mtime_seconds = 0
        entry.mtime_nanoseconds = 0
        if text.size == 0 or parse_time(text.data, text.size, &entry.mtime_seconds, &entry.mtime_nanoseconds):
            return JSON_OK
        return STATUS_VALUE
    if field == FIELD_DIGEST:
        entry.has_digest = text.size != 0
        return JSON_OK if text.size == 0 or parse_digest(text.data, text.size, entry.digest) else STATUS_VALUE
    entry.has_chunk_digest = text.size != 0
    return JSON_OK if text.size == 0 or parse_digest(text.data, text.size, entry.chunk_digest) else STATUS_VALUE


cdef int order_names(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size) noexcept nogil:
    """Negative, zero or positive as `a` sorts before, with or after `b`: by bytes, a prefix first."""
    cdef int order = memcmp(a, b, min(a_size, b_size))
    if order:
        return order
    return (a_size > b_size) - (a_size < b_size)


cdef int read_xattr(Build *build, uint32_t *starts, uint32_t *count) noexcept nogil:
    """One member of ``xattrs``, appended to the section; `starts` keeps the records sorted by name, a later one wins."""
    cdef JsonString key
    cdef uint8_t name[MAX_XATTR_NAME_BYTES]
    cdef const uint8_t *record
    cdef size_t name_size
    cdef size_t value_size = 0
    cdef Text text
    cdef uint16_t name_size_field
    cdef uint32_t value_size_field
    cdef uint32_t low = 0
    cdef uint32_t high, middle
    cdef uint8_t *at
    cdef int order
    cdef int status = json_key(&build.cursor, &key)
    if status != JSON_OK:
        return status
    if key.escaped:
        status = json_decode(&key, name, sizeof(name), &name_size)
        if status == JSON_WIDE:
            return STATUS_LONG
    elif key.size > MAX_XATTR_NAME_BYTES:
        return STATUS_LONG
    else:
        name_size = key.size
        memcpy(name, key.data, name_size)
    if name_size == 0:
        return STATUS_VALUE
    for low in range(<uint32_t>name_size):
        if name[low] == 0:
            return STATUS_NUL
    if json_peek(&build.cursor) < 0:
        return JSON_TRUNCATED
    status = read_text(&build.cursor, build.base64_text, BASE64_BYTES, &text)
    if status == JSON_WIDE or (status == JSON_OK and text.size > BASE64_BYTES):
        return STATUS_LONG
    if status != JSON_OK:
        return status
    if name_size > 16 and memcmp(name, b"trusted.overlay.", 16) == 0:
        name_size = 0
    elif name_size > 13 and memcmp(name, b"user.overlay.", 13) == 0:
        name_size = 0
    if build.xattrs_size + 6 + name_size + text.size > <uint64_t>0xFFFFFFF0:
        return STATUS_SECTION
    status = reserve(
        <void **>&build.xattrs, &build.xattrs_capacity, build.xattrs_size + 6 + name_size + text.size, 1
    )
    if status != JSON_OK:
        return status
    at = build.xattrs + build.xattrs_size
    if not parse_base64(text.data, text.size, at + 6 + name_size, &value_size):
        return STATUS_VALUE
    if value_size > MAX_XATTR_VALUE_BYTES:
        return STATUS_LONG
    if name_size == 0:
        return JSON_OK  # an image must not steer overlayfs
    name_size_field = <uint16_t>name_size
    value_size_field = <uint32_t>value_size
    memcpy(at, &name_size_field, 2)
    memcpy(at + 2, &value_size_field, 4)
    memcpy(at + 6, name, name_size)
    low = 0
    high = count[0]
    order = 1
    while low < high:
        middle = (low + high) // 2
        record = build.xattrs + starts[middle]
        memcpy(&name_size_field, record, 2)
        order = order_names(record + 6, name_size_field, name, name_size)
        if order == 0:
            low = middle
            break
        if order < 0:
            low = middle + 1
        else:
            high = middle
    if order != 0 or count[0] == 0:
        if count[0] == MAX_XATTRS:
            return STATUS_TOO_MANY_XATTRS
        high = count[0]
        while high > low:
            starts[high] = starts[high - 1]
            high -= 1
        count[0] += 1
    starts[low] = <uint32_t>build.xattrs_size
    build.xattrs_size += 6 + name_size + value_size
    return JSON_OK


cdef int gather_xattrs(Build *build, uint64_t begin, const uint32_t *starts, uint32_t count) noexcept nogil:
    """Replace the raw records since `begin` by one owner's list, sorted by name."""
    cdef uint64_t raw_end = build.xattrs_size
    cdef uint64_t size
    cdef uint32_t value_size
    cdef uint16_t name_size
    cdef uint16_t count_field = <uint16_t>count
    cdef uint32_t i
    cdef int status
    build.entry.xattrs = NO_XATTRS
    if count == 0:
        build.xattrs_size = begin
        return JSON_OK
    if raw_end * 2 + 2 - begin > <uint64_t>0xFFFFFFF0:
        return STATUS_SECTION
    status = reserve(<void **>&build.xattrs, &build.xattrs_capacity, raw_end * 2 + 2 - begin, 1)
    if status != JSON_OK:
        return status
    memcpy(build.xattrs + raw_end, &count_field, 2)
    build.xattrs_size = raw_end + 2
    for i in range(count):
        memcpy(&name_size, build.xattrs + starts[i], 2)
        memcpy(&value_size, build.xattrs + starts[i] + 2, 4)
        size = 6 + <uint64_t>name_size + value_size
        memcpy(build.xattrs + build.xattrs_size, build.xattrs + starts[i], size)
        build.xattrs_size += size
    size = build.xattrs_size - raw_end
    memmove(build.xattrs + begin, build.xattrs + raw_end, size)
    build.xattrs_size = begin + size
    build.entry.xattrs = <uint32_t>begin
    return JSON_OK


cdef int read_xattrs(Build *build, uint64_t begin) noexcept nogil:
    """The map of extended attributes; a second one in the same entry replaces the first."""
    cdef JsonCursor *cursor = &build.cursor
    cdef uint32_t starts[MAX_XATTRS]
    cdef uint32_t count = 0
    cdef int byte
    cdef int status
    if cursor.at[0] != 0x7B:
        return JSON_TYPE
    cursor.at += 1
    build.xattrs_size = begin
    byte = json_peek(cursor)
    if byte == 0x7D:
        cursor.at += 1
        return gather_xattrs(build, begin, starts, 0)
    while True:
        status = read_xattr(build, starts, &count)
        if status != JSON_OK:
            return status
        byte = json_peek(cursor)
        if byte < 0:
            return JSON_TRUNCATED
        if byte != 0x2C and byte != 0x7D:
            return JSON_SYNTAX
        cursor.at += 1
        if byte == 0x7D:
            return gather_xattrs(build, begin, starts, count)


cdef int read_member(Build *build, uint64_t xattrs_begin) noexcept nogil:
    """One key of an entry and its value; null leaves the field as it is."""
    cdef JsonCursor *cursor = &build.cursor
    cdef JsonString key
    cdef uint8_t room[12]
    cdef size_t size
    cdef int64_t value
    cdef int field, byte
    cdef int status
    build.field = FIELD_NONE
    status = json_key(cursor, &key)
    if status != JSON_OK:
        return status
    if not key.escaped:
        field = key_field(key.data, key.size)
    elif json_decode(&key, room, sizeof(room), &size) == JSON_OK:
        field = key_field(room, size)
    else:
        field = FIELD_NONE
    build.field = field
    byte = json_peek(cursor)
    if byte < 0:
        return JSON_TRUNCATED
    if field == FIELD_NONE:
        return json_skip(cursor, 3)
    if byte == 0x6E:
        return json_literal(cursor)
    if field < NUMBERS:
        if byte != 0x2D and not 0x30 <= byte <= 0x39:
            return JSON_TYPE
        status = json_number(cursor, &value)
        if status != JSON_OK:
            return status
        if value < 0:
            build.bad_number = <uint64_t>value
            return STATUS_BOUNDS
        build.entry.number[field] = <uint64_t>value
        return JSON_OK
    if field == FIELD_XATTRS:
        return read_xattrs(build, xattrs_begin)
    return read_text_field(build, field)


cdef int read_entry(Build *build) noexcept nogil:
    cdef JsonCursor *cursor = &build.cursor
    cdef uint64_t xattrs_begin = build.xattrs_size
    cdef int byte
    cdef int status
    memset(&build.entry, 0, sizeof(Entry))
    build.entry.xattrs = NO_XATTRS
    build.field = FIELD_NONE
    byte = json_peek(cursor)
    if byte < 0:
        return JSON_TRUNCATED
    if byte != 0x7B:
        return JSON_TYPE
    cursor.at += 1
    if json_peek(cursor) == 0x7D:
        cursor.at += 1
        return commit(build)
    while True:
        status = read_member(build, xattrs_begin)
        if status != JSON_OK:
            return status
        build.field = FIELD_NONE
        byte = json_peek(cursor)
        if byte < 0:
            return JSON_TRUNCATED
        if byte != 0x2C and byte != 0x7D:
            return JSON_SYNTAX
        cursor.at += 1
        if byte == 0x7D:
            return commit(build)


cdef int read_entries(Build *build) noexcept nogil:
    cdef JsonCursor *cursor = &build.cursor
    cdef int byte = cursor.at[0]
    cdef int status
    build.field = FIELD_ENTRIES
    if byte == 0x6E:
        return json_literal(cursor)
    if byte != 0x5B:
        return JSON_TYPE
    cursor.at += 1
    if json_peek(cursor) == 0x5D:
        cursor.at += 1
        return JSON_OK
    build.entry_number = 0
    while True:
        if build.entry_number >= build.max_entries:
            return fail(build, STATUS_ENTRIES, FIELD_ENTRIES)
        status = read_entry(build)
        if status != JSON_OK:
            return status
        byte = json_peek(cursor)
        if byte < 0:
            return JSON_TRUNCATED
        if byte != 0x2C and byte != 0x5D:
            return JSON_SYNTAX
        cursor.at += 1
        if byte == 0x5D:
            return close_file(build)
        build.entry_number += 1


cdef int read_document(Build *build) noexcept nogil:
    cdef JsonCursor *cursor = &build.cursor
    cdef JsonString key
    cdef int64_t version
    cdef bint seen = False
    cdef uint32_t root
    cdef int byte
    cdef int status
    build.entry_number = NOTHING
    build.field = FIELD_NONE
    status = add_inode(build, TYPE_DIRECTORY | 0o755, &root)
    if status != JSON_OK:
        return status
    byte = json_peek(cursor)
    if byte < 0:
        return JSON_TRUNCATED
    if byte != 0x7B:
        return JSON_TYPE
    cursor.at += 1
    byte = json_peek(cursor)
    if byte == 0x7D:
        return fail(build, STATUS_NO_ENTRIES, FIELD_ENTRIES)
    while True:
        build.entry_number = NOTHING
        build.field = FIELD_NONE
        status = json_key(cursor, &key)
        if status != JSON_OK:
            return status
        byte = json_peek(cursor)
        if byte < 0:
            return JSON_TRUNCATED
        if text_is(key.data, key.size, b"entries", 7):
            if seen:
                return fail(build, STATUS_TWICE, FIELD_ENTRIES)
            seen = True
            status = read_entries(build)
            build.entry_number = NOTHING if status == JSON_OK else build.entry_number
        elif text_is(key.data, key.size, b"version", 7):
            build.field = FIELD_VERSION
            if byte != 0x2D and not 0x30 <= byte <= 0x39:
                return JSON_TYPE
            status = json_number(cursor, &version)
            if status == JSON_OK and version != 1:
                build.bad_number = <uint64_t>version
                return STATUS_VERSION
        else:
            status = json_skip(cursor, 1)
        if status != JSON_OK:
            return status
        build.field = FIELD_NONE
        byte = json_peek(cursor)
        if byte < 0:
            return JSON_TRUNCATED
        if byte != 0x2C and byte != 0x7D:
            return JSON_SYNTAX
        cursor.at += 1
        if byte == 0x7D:
            break
    if json_peek(cursor) >= 0:
        return STATUS_TRAILING
    return JSON_OK if seen else fail(build, STATUS_NO_ENTRIES, FIELD_ENTRIES)


# Finishing ---------------------------------------------------------------------------------------------------------

cdef int place_whiteouts(Build *build) noexcept nogil:
    """A whiteout becomes a device 0/0 where the layer has nothing of that name."""
    cdef Whiteout *whiteout
    cdef const uint8_t *name
    cdef uint8_t copy[MAX_PATH_BYTES]
    cdef uint32_t number
    cdef uint64_t i
    cdef int status
    for i in range(build.whiteout_count):
        whiteout = &build.whiteouts[i]
        name = build.strings + whiteout.name_at
        if find_child(build, whiteout.directory, name, whiteout.name_size) != NOTHING:
            continue
        status = add_inode(build, TYPE_CHAR, &number)
        if status != JSON_OK:
            return status
        build.inodes[number].uid = whiteout.uid
        build.inodes[number].gid = whiteout.gid
        build.inodes[number].mtime_seconds = whiteout.mtime_seconds
        build.inodes[number].mtime_nanoseconds = whiteout.mtime_nanoseconds
        memcpy(copy, name, whiteout.name_size)  # the strings may move while the name is added
        status = set_child(build, whiteout.directory, copy, whiteout.name_size, number)
        if status != JSON_OK:
            return status
    return JSON_OK


cdef int resolve_links(Build *build) noexcept nogil:
    """Give every hard link that came before its target the inode at the end of its chain."""
    cdef PendingLink *link
    cdef uint32_t i, at, target
    build.field = FIELD_LINK_NAME
    for i in range(<uint32_t>build.pending_count):
        link = &build.pending[i]
        build.entry_number = link.entry
        build.entry.name.size = 0
        target = find_path(build, build.strings + link.target_at, link.target_size)
        if target == NOTHING:
            return STATUS_LINK_TARGET
        if build.inodes[target].mode & TYPE_MASK == TYPE_DIRECTORY:
            return STATUS_LINK_DIRECTORY
        link.resolved = target
    for i in range(<uint32_t>build.pending_count):
        at = i
        while True:
            link = &build.pending[at]
            if link.mark == i + 1:
                build.entry_number = build.pending[i].entry
                return STATUS_LINK_CYCLE
            link.mark = i + 1
            target = link.resolved
            if build.inodes[target].mode & TYPE_MASK:
                break
            at = build.inodes[target].first
        at = i
        while build.pending[at].resolved != target:
            link = &build.pending[at]
            at = build.inodes[link.resolved].first
            link.resolved = target
    build.field = FIELD_NONE
    build.entry_number = NOTHING
    return JSON_OK


cdef uint32_t final_inode(const Build *build, uint32_t inode) noexcept nogil:
    """Behind a placeholder, the inode that it stands for."""
    if build.inodes[inode].mode & TYPE_MASK:
        return inode
    return build.pending[build.inodes[inode].first].resolved


cdef int number_inodes(Build *build) noexcept nogil:
    """Count links and children of what can be reached from the root; number those inodes in the order of the TOC."""
    cdef Name *name
    cdef Inode *inode
    cdef Inode *directory
    cdef uint64_t i
    cdef uint32_t next_number = 0
    cdef uint32_t next_dirent = 0
    build.numbers = <uint32_t *>malloc(build.inode_count * sizeof(uint32_t))
    if build.numbers == NULL:
        return STATUS_MEMORY
    memset(build.numbers, 0xFF, build.inode_count * sizeof(uint32_t))
    build.numbers[0] = 0
    build.inodes[0].nlink = 2
    # A directory's name stands before the names in it, so one pass reaches everything.
    for i in range(build.name_count):
        name = &build.names[i]
        if build.numbers[name.directory] == NOTHING:
            continue
        name.inode = final_inode(build, name.inode)
        build.numbers[name.inode] = 0
        build.live_names += 1
        inode = &build.inodes[name.inode]
        directory = &build.inodes[name.directory]
        directory.count += 1
        if inode.mode & TYPE_MASK == TYPE_DIRECTORY:
            directory.nlink += 1
            inode.nlink += 2
        else:
            inode.nlink += 1
    for i in range(build.inode_count):
        if build.numbers[i] == NOTHING:
            continue
        build.numbers[i] = next_number
        next_number += 1
        inode = &build.inodes[i]
        if inode.mode & TYPE_MASK == TYPE_DIRECTORY:
            inode.first = next_dirent
            next_dirent += inode.count
        elif inode.mode & TYPE_MASK == TYPE_REGULAR:
            build.live_chunks += inode.count
    build.live_inodes = next_number
    return JSON_OK


cdef int place_content(Build *build) noexcept nogil:
    """Every file's place in the content file: large ones page-aligned, small ones packed."""
    cdef Inode *inode
    cdef uint64_t at = 0
    cdef uint64_t step
    cdef uint64_t i
    for i in range(build.inode_count):
        inode = &build.inodes[i]
        if build.numbers[i] == NOTHING or inode.mode & TYPE_MASK != TYPE_REGULAR or inode.size == 0:
            continue
        step = CONTENT_PAGE if inode.size >= CONTENT_PAGE else CONTENT_WORD
        at = (at + step - 1) & ~(step - 1)
        inode.data = at
        at += inode.size
        build.total_file_bytes += inode.size
        if at > MAX_CONTENT_BYTES:
            build.bad_number = at
            return fail(build, STATUS_CONTENT, FIELD_SIZE)
    build.content_size = at
    return JSON_OK


cdef int compare_offsets(const void *a, const void *b) noexcept nogil:
    cdef uint64_t x = (<const uint64_t *>a)[0]
    cdef uint64_t y = (<const uint64_t *>b)[0]
    return (x > y) - (x < y)


cdef int end_pieces(Build *build) noexcept nogil:
    """Where each compressed piece surely ends: at its endOffset, else at the next larger offset, else at the TOC."""
    cdef uint64_t count = build.chunk_count
    cdef uint64_t i, low, high, middle, end
    cdef Chunk *chunk
    cdef bint ordered = True
    for i in range(1, count):
        if build.chunks[i].blob_offset < build.chunks[i - 1].blob_offset:
            ordered = False
            break
    if not ordered:
        build.offsets = <uint64_t *>malloc(count * sizeof(uint64_t))
        if build.offsets == NULL:
            return STATUS_MEMORY
        for i in range(count):
            build.offsets[i] = build.chunks[i].blob_offset
        qsort(build.offsets, count, sizeof(uint64_t), compare_offsets)
    end = build.toc_offset
    i = count
    while i > 0:
        i -= 1
        chunk = &build.chunks[i]
        if ordered:
            if i + 1 < count and build.chunks[i + 1].blob_offset > chunk.blob_offset:
                end = build.chunks[i + 1].blob_offset
        else:
            low = 0
            high = count
            while low < high:
                middle = (low + high) // 2
                if build.offsets[middle] <= chunk.blob_offset:
                    low = middle + 1
                else:
                    high = middle
            end = build.offsets[low] if low < count else build.toc_offset
        if chunk.blob_size == 0 and build.inner[i] != HOLE:
            chunk.blob_size = <uint32_t>min(end - chunk.blob_offset, <uint64_t>0xFFFFFFFF)
    free(build.offsets)
    build.offsets = NULL
    return JSON_OK


cdef int append_xattr(Build *build, const char *name) noexcept nogil:
    """``name=y``, at the section's end."""
    cdef uint16_t name_size = 0
    cdef uint32_t value_size = 1
    cdef int status
    while name[name_size]:
        name_size += 1
    status = reserve(<void **>&build.xattrs, &build.xattrs_capacity, build.xattrs_size + 7 + name_size, 1)
    if status != JSON_OK:
        return status
    memcpy(build.xattrs + build.xattrs_size, &name_size, 2)
    memcpy(build.xattrs + build.xattrs_size + 2, &value_size, 4)
    memcpy(build.xattrs + build.xattrs_size + 6, name, name_size)
    build.xattrs[build.xattrs_size + 6 + name_size] = 0x79
    build.xattrs_size += 7 + name_size
    return JSON_OK


cdef uint64_t xattrs_length(const Build *build, uint32_t at, uint16_t *count) noexcept nogil:
    """Bytes of one owner's list after its count."""
    cdef uint64_t begin = <uint64_t>at + 2
    cdef uint64_t end = begin
    cdef uint16_t name_size, i
    cdef uint32_t value_size
    memcpy(count, build.xattrs + at, 2)
    for i in range(count[0]):
        memcpy(&name_size, build.xattrs + end, 2)
        memcpy(&value_size, build.xattrs + end + 2, 4)
        end += 6 + <uint64_t>name_size + value_size
    return end - begin


cdef int mark_opaque(Build *build) noexcept nogil:
    """Opaque directories get overlayfs's attribute in both name spaces, behind their own ones."""
    cdef Inode *inode
    cdef uint64_t i, own, begin
    cdef uint16_t count
    cdef int status
    build.opaque_alone = NO_XATTRS
    for i in range(build.inode_count):
        inode = &build.inodes[i]
        if inode.mode & TYPE_MASK != TYPE_DIRECTORY or not inode.data & OPAQUE_BIT:
            continue
        inode.data &= ~OPAQUE_BIT
        if inode.xattrs == NO_XATTRS and build.opaque_alone != NO_XATTRS:
            inode.xattrs = build.opaque_alone
            continue
        count = 0
        own = 0 if inode.xattrs == NO_XATTRS else xattrs_length(build, inode.xattrs, &count)
        begin = build.xattrs_size
        if begin + own + 64 > <uint64_t>0xFFFFFFF0:
            return fail(build, STATUS_SECTION, FIELD_XATTRS)
        status = reserve(<void **>&build.xattrs, &build.xattrs_capacity, begin + own + 2, 1)
        if status != JSON_OK:
            return status
        if own:
            memcpy(build.xattrs + begin + 2, build.xattrs + inode.xattrs + 2, own)
        count += 2
        memcpy(build.xattrs + begin, &count, 2)
        build.xattrs_size = begin + own + 2
        status = append_xattr(build, b"trusted.overlay.opaque")
        if status == JSON_OK:
            status = append_xattr(build, b"user.overlay.opaque")
        if status != JSON_OK:
            return status
        if inode.xattrs == NO_XATTRS:
            build.opaque_alone = <uint32_t>begin
        inode.xattrs = <uint32_t>begin
    return JSON_OK


cdef int finish(Build *build) noexcept nogil:
    cdef int status
    build.entry_number = NOTHING
    build.field = FIELD_NONE
    build.entry.name.size = 0
    status = resolve_links(build)
    if status == JSON_OK:
        status = place_whiteouts(build)
    free(build.slots)
    build.slots = NULL
    if status == JSON_OK:
        status = number_inodes(build)
    if status == JSON_OK:
        status = place_content(build)
    if status == JSON_OK:
        status = end_pieces(build)
    if status == JSON_OK:
        status = mark_opaque(build)
    return status


# Emitting ----------------------------------------------------------------------------------------------------------

cdef uint64_t align8(uint64_t at) noexcept nogil:
    return (at + 7) & ~<uint64_t>7


cdef void lay_out(const Build *build, Header *header) noexcept nogil:
    memset(header, 0, sizeof(Header))
    memcpy(header.magic, INDEX_MAGIC, 8)
    header.header_size = HEADER_SIZE
    header.layout_version = LAYOUT_VERSION
    header.inode_count = build.live_inodes
    header.dirent_count = <uint32_t>build.live_names
    header.chunk_count = <uint32_t>build.live_chunks
    header.flags = (FLAG_INNER_OFFSETS if build.any_inner else 0) | (FLAG_NO_PREFETCH if build.no_prefetch else 0)
    header.inodes_at = HEADER_SIZE
    header.dirents_at = align8(header.inodes_at + <uint64_t>header.inode_count * sizeof(Inode))
    header.chunks_at = align8(header.dirents_at + <uint64_t>header.dirent_count * sizeof(Dirent))
    header.inner_at = align8(header.chunks_at + <uint64_t>header.chunk_count * sizeof(Chunk))
    header.strings_at = header.inner_at + (<uint64_t>header.chunk_count * 8 if build.any_inner else 0)
    header.strings_size = build.strings_size
    header.xattrs_at = align8(header.strings_at + header.strings_size)
    header.xattrs_size = build.xattrs_size
    header.total_size = align8(header.xattrs_at + header.xattrs_size)
    header.blob_size = build.blob_size
    header.toc_offset = build.toc_offset
    header.content_size = build.content_size
    header.prefetch_end = build.prefetch_end
    header.total_file_bytes = build.total_file_bytes


cdef bint key_before(const Build *build, const Key *a, const Key *b) noexcept nogil:
    if a.prefix != b.prefix:
        return a.prefix < b.prefix
    return order_names(build.strings + a.name_at, a.name_size, build.strings + b.name_at, b.name_size) < 0


cdef void sort_keys(const Build *build, Key *keys, Key *spare, uint64_t count) noexcept nogil:
    """Merge sort from the bottom; names of one directory are all different."""
    cdef uint64_t begin, end, middle, i, left, right, out
    cdef uint64_t width = INSERTION_RUN
    cdef Key key
    cdef Key *source = keys
    cdef Key *target = spare
    begin = 1
    while begin < count and key_before(build, &keys[begin - 1], &keys[begin]):
        begin += 1
    if begin >= count:
        return
    begin = 0
    while begin < count:
        end = min(begin + INSERTION_RUN, count)
        for i in range(begin + 1, end):
            key = keys[i]
            out = i
            while out > begin and key_before(build, &key, &keys[out - 1]):
                keys[out] = keys[out - 1]
                out -= 1
            keys[out] = key
        begin = end
    while width < count:
        begin = 0
        while begin < count:
            middle = min(begin + width, count)
            end = min(begin + 2 * width, count)
            left = begin
            right = middle
            for out in range(begin, end):
                if left < middle and (right >= end or not key_before(build, &source[right], &source[left])):
                    target[out] = source[left]
                    left += 1
                else:
                    target[out] = source[right]
                    right += 1
            begin = end
        source, target = target, source
        width *= 2
    if source != keys:
        memcpy(keys, source, count * sizeof(Key))


cdef int emit_dirents(Build *build, Dirent *dirents) noexcept nogil:
    """Names grouped by directory and sorted in it; gives each directory the number of its own dirent."""
    cdef Key *keys
    cdef Key *spare
    cdef Key *key
    cdef Name *name
    cdef Inode *directory
    cdef Inode *inode
    cdef uint64_t i, position
    cdef uint64_t largest = 0
    cdef uint8_t prefix[8]
    cdef int byte
    for i in range(build.inode_count):
        if build.inodes[i].mode & TYPE_MASK == TYPE_DIRECTORY and build.inodes[i].count > largest:
            largest = build.inodes[i].count
    keys = <Key *>malloc((build.live_names + largest + 1) * sizeof(Key))
    if keys == NULL:
        return STATUS_MEMORY
    spare = keys + build.live_names
    for i in range(build.inode_count):
        if build.inodes[i].mode & TYPE_MASK == TYPE_DIRECTORY:
            build.inodes[i].count = 0
    for i in range(build.name_count):
        name = &build.names[i]
        if build.numbers[name.directory] == NOTHING:
            continue
        directory = &build.inodes[name.directory]
        key = &keys[directory.first + directory.count]
        directory.count += 1
        memset(prefix, 0, 8)
        memcpy(prefix, build.strings + name.name_at, min(<size_t>name.name_size, <size_t>8))
        key.prefix = 0
        for byte in range(8):
            key.prefix = key.prefix << 8 | prefix[byte]
        key.name_at = name.name_at
        key.name_size = name.name_size
        key.inode = name.inode
    free(build.names)
    build.names = NULL
    for i in range(build.inode_count):
        if build.numbers[i] == NOTHING or build.inodes[i].mode & TYPE_MASK != TYPE_DIRECTORY:
            continue
        directory = &build.inodes[i]
        sort_keys(build, keys + directory.first, spare, directory.count)
        for position in range(directory.first, <uint64_t>directory.first + directory.count):
            key = &keys[position]
            dirents[position].name_at = key.name_at
            dirents[position].name_size = key.name_size
            dirents[position].spare = 0
            dirents[position].inode = build.numbers[key.inode]
            inode = &build.inodes[key.inode]
            if inode.mode & TYPE_MASK == TYPE_DIRECTORY:
                inode.size = position
    build.inodes[0].size = NO_DIRENT
    free(keys)
    return JSON_OK


cdef void emit_files(Build *build, Inode *inodes, Chunk *chunks, uint64_t *inner) noexcept nogil:
    """Live inodes, each regular file's chunks behind those of the file before it."""
    cdef Inode *inode
    cdef Chunk *chunk
    cdef uint64_t i, at
    cdef uint32_t first
    cdef uint32_t next_chunk = 0
    for i in range(build.inode_count):
        if build.numbers[i] == NOTHING:
            continue
        inode = &inodes[build.numbers[i]]
        inode[0] = build.inodes[i]
        if inode.mode & TYPE_MASK == TYPE_DIRECTORY:
            inode.data = build.numbers[inode.data]
        if inode.mode & TYPE_MASK != TYPE_REGULAR:
            continue
        first = inode.first
        inode.first = next_chunk if inode.count else 0
        for at in range(first, <uint64_t>first + inode.count):
            chunk = &chunks[next_chunk]
            chunk[0] = build.chunks[at]
            chunk.content_offset += inode.data
            if build.inner[at] == HOLE:
                chunk.blob_offset = 0
            if build.any_inner:
                inner[next_chunk] = 0 if build.inner[at] == HOLE else build.inner[at]
            next_chunk += 1


cdef int emit(Build *build, const Header *header, uint8_t *out) noexcept nogil:
    """Write the whole index; what has been copied is freed at once, so that both are never there in full."""
    cdef int status
    memcpy(out, header, sizeof(Header))
    memset(out + header.strings_at + header.strings_size, 0, header.xattrs_at - header.strings_at - header.strings_size)
    memset(out + header.xattrs_at + header.xattrs_size, 0, header.total_size - header.xattrs_at - header.xattrs_size)
    memset(out + header.dirents_at, 0, header.chunks_at - header.dirents_at)
    status = emit_dirents(build, <Dirent *>(out + header.dirents_at))
    if status != JSON_OK:
        return status
    memcpy(out + header.strings_at, build.strings, build.strings_size)
    free(build.strings)
    build.strings = NULL
    memcpy(out + header.xattrs_at, build.xattrs, build.xattrs_size)
    free(build.xattrs)
    build.xattrs = NULL
    emit_files(
        build, <Inode *>(out + header.inodes_at), <Chunk *>(out + header.chunks_at), <uint64_t *>(out + header.inner_at)
    )
    return JSON_OK


# The shell ---------------------------------------------------------------------------------------------------------

class TocError(ValueError):
    """Why a TOC was refused: plain numbers and bytes, which the owner puts into words."""

    def __init__(self, status, field, entry, name, number, position):
        super().__init__(status, field, entry, name, number, position)
        self.status = status
        self.field = field
        self.entry = entry
        self.name = name
        self.number = number
        self.position = position


cdef class _Builder:
    """Owns the arrays of one build."""

    cdef Build build

    def __cinit__(self):
        memset(&self.build, 0, sizeof(Build))

    def __dealloc__(self):
        free(self.build.inodes)
        free(self.build.names)
        free(self.build.chunks)
        free(self.build.inner)
        free(self.build.strings)
        free(self.build.xattrs)
        free(self.build.pending)
        free(self.build.whiteouts)
        free(self.build.slots)
        free(self.build.numbers)
        free(self.build.offsets)
        free(self.build.base64_text)


cdef object _error(const Build *build, int status):
    if status == STATUS_MEMORY:
        return MemoryError("no memory for the index of a TOC")
    name = None
    if build.entry.name.size:
        name = build.entry.name.data[:min(build.entry.name.size, <size_t>MAX_PATH_BYTES)]
    return TocError(
        status,
        _FIELD_NAMES[build.field],
        None if build.entry_number == NOTHING else build.entry_number,
        name,
        <int64_t>build.bad_number,
        build.cursor.at - build.cursor.start,
    )


def build(document, uint64_t blob_size, uint64_t toc_offset, uint64_t max_entries):
    """The packed index of `document`, as bytes; see the stub."""
    cdef _Builder owner = _Builder()
    cdef Build *build = &owner.build
    cdef Py_buffer view
    cdef Header header
    cdef uint8_t *out
    cdef int status = JSON_OK
    seed = os.urandom(16)
    memcpy(build.seed, PyBytes_AS_STRING(seed), 16)
    build.blob_size = blob_size
    build.toc_offset = toc_offset
    build.max_entries = min(max_entries, <uint64_t>0xFFFFFF00)
    build.slots = <uint64_t *>calloc(1024, sizeof(uint64_t))
    build.slot_mask = 1023
    build.base64_text = <uint8_t *>malloc(BASE64_BYTES)
    build.strings = <uint8_t *>malloc(64)
    build.strings_capacity = 64
    build.xattrs = <uint8_t *>malloc(64)
    build.xattrs_capacity = 64
    if build.slots == NULL or build.base64_text == NULL or build.strings == NULL or build.xattrs == NULL:
        raise MemoryError("no memory for the index of a TOC")
    PyObject_GetBuffer(document, &view, PyBUF_SIMPLE)
    try:
        if view.len > MAX_TOC_BYTES:
            raise TocError(STATUS_LONG, None, None, None, view.len, 0)
        build.cursor.start = build.cursor.at = <const uint8_t *>view.buf
        build.cursor.end = build.cursor.start + view.len
        with nogil:
            status = read_document(build)
            if status == JSON_OK:
                status = finish(build)
        if status != JSON_OK:
            raise _error(build, status)
    finally:
        PyBuffer_Release(&view)
    lay_out(build, &header)
    index = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>header.total_size)
    out = <uint8_t *>PyBytes_AS_STRING(index)
    with nogil:
        status = emit(build, &header, out)
    if status != JSON_OK:
        raise _error(build, status)
    # Nobody else has seen the object yet: the digest may still go into it.
    whole = memoryview(index)
    digest = hashlib.sha256(whole[:SEALED_SIZE])
    digest.update(whole[HEADER_SIZE:])
    seal = digest.digest()
    memcpy(out + SEALED_SIZE, PyBytes_AS_STRING(seal), 32)
    return index
