"""The state of one build: what was read so far, in flat arrays that grow."""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport realloc
from libc.string cimport memcpy

from json_text cimport JSON_OK, JsonCursor, JsonText
from toc_fields cimport MAX_PATH_BYTES, Path
from toc_layout cimport Chunk, Inode

cdef extern from *:
    """
    #define HOLE UINT64_MAX
    #define NOTHING UINT32_MAX
    #define OPAQUE_BIT (1ull << 63)
    """
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

# What can be wrong; words for each stand in registry_storage.toc.index. JsonStatus comes first, PathStatus is
# added to STATUS_PATH.
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

cdef struct Entry:
    int type
    bint has_digest
    bint has_chunk_digest
    bint hole
    uint64_t number[NUMBERS]
    JsonText name
    JsonText link
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

cdef struct Key:             # a dirent while sorting
    uint64_t prefix          # the first eight bytes of its name decide most comparisons
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


cdef inline int reserve(void **array, uint64_t *capacity, uint64_t wanted, size_t item) noexcept nogil:
    """Room for `wanted` items; doubling keeps the copies few; pages never touched cost nothing."""
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


cdef inline int fail(Build *build, int status, int field) noexcept nogil:
    build.field = field
    return status


cdef inline int fail_number(Build *build, int status, int field) noexcept nogil:
    build.bad_number = build.entry.number[field]
    return fail(build, status, field)


cdef inline int store_string(Build *build, const uint8_t *data, size_t size, uint32_t *at) noexcept nogil:
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
