"""The packed index of a layer, version 1: records as they stand in the buffer and in a mapped file.

Little-endian, naturally aligned, every section on a multiple of 8, positions relative to the buffer's start:
header, inodes, dirents, chunks, inner offsets, strings, extended attributes. Node 0 is the root directory.
"""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t, uint8_t

cdef enum:
    HEADER_SIZE = 256
    SEALED_SIZE = 224        # of the header; the 32 bytes after it are the sha256 of everything else
    LAYOUT_VERSION = 1
    FLAG_INNER_OFFSETS = 1
    FLAG_NO_PREFETCH = 2
    CONTENT_PAGE = 4096      # files of at least this size start at a multiple of it in the content file
    CONTENT_WORD = 8         # smaller ones at a multiple of this

cdef enum:
    TYPE_MASK = 0o170000
    TYPE_FIFO = 0o010000
    TYPE_CHAR = 0o020000
    TYPE_DIRECTORY = 0o040000
    TYPE_BLOCK = 0o060000
    TYPE_REGULAR = 0o100000
    TYPE_SYMLINK = 0o120000

cdef struct Header:
    uint8_t magic[8]
    uint32_t header_size
    uint32_t layout_version
    uint32_t inode_count
    uint32_t dirent_count
    uint32_t chunk_count
    uint32_t flags
    uint64_t inodes_at
    uint64_t dirents_at
    uint64_t chunks_at
    uint64_t inner_at
    uint64_t strings_at
    uint64_t strings_size
    uint64_t xattrs_at
    uint64_t xattrs_size
    uint64_t total_size
    uint64_t blob_size
    uint64_t toc_offset
    uint64_t content_size
    uint64_t prefetch_end
    uint64_t total_file_bytes
    uint8_t spare[80]
    uint8_t sha256[32]

cdef struct Inode:
    uint32_t mode            # type bits and 07777
    uint32_t uid
    uint32_t gid
    uint32_t nlink
    uint64_t size            # directory: its own dirent (root: all ones)
    int64_t mtime_seconds
    uint32_t mtime_nanoseconds
    uint32_t xattrs          # position in the section; NO_XATTRS: none
    uint64_t data            # regular: place in the content file; directory: parent;
                             # symlink: target in strings; device: rdev
    uint32_t first           # regular: chunks; directory: dirents
    uint32_t count

cdef struct Dirent:
    uint32_t name_at
    uint16_t name_size
    uint16_t spare
    uint32_t inode

cdef struct Chunk:
    uint64_t blob_offset
    uint32_t blob_size       # 0: a hole, its blob_offset and digest are zero too
    uint32_t size
    uint64_t content_offset
    uint8_t digest[32]

cdef extern from *:
    """
    #define NO_XATTRS 0xffffffffu
    #define NO_DIRENT UINT64_MAX
    static const char INDEX_MAGIC[8] = {'R', 'S', 'T', 'I', 'D', 'X', '0', '1'};
    """
    const uint32_t NO_XATTRS
    const uint64_t NO_DIRENT
    const char INDEX_MAGIC[8]
