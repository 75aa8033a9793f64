"""TOC JSON to a packed index, in one pass over the text and without a Python object per entry.

The scan (toc_scan.pxd) reads entries into flat arrays (toc_build.pxd) by way of toc_entries.pxd; finishing
(toc_finish.pxd) settles what only the end of the TOC can tell; emitting writes the buffer of toc_layout.pxd.
"""

import hashlib
import os

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from json_text cimport JSON_OK
from toc_build cimport (
    BASE64_BYTES, HOLE, INSERTION_RUN, MAX_TOC_BYTES, NOTHING, STATUS_LONG, STATUS_MEMORY, Build, Key, Name,
)
from toc_fields cimport MAX_PATH_BYTES
from toc_finish cimport finish
from toc_layout cimport (
    FLAG_INNER_OFFSETS, FLAG_NO_PREFETCH, HEADER_SIZE, INDEX_MAGIC, LAYOUT_VERSION, NO_DIRENT, SEALED_SIZE,
    TYPE_DIRECTORY, TYPE_MASK, TYPE_REGULAR, Chunk, Dirent, Header, Inode,
)
from toc_scan cimport read_document
from toc_xattrs cimport order_names

_FIELD_NAMES = (
    "size", "mode", "uid", "gid", "devMajor", "devMinor", "offset", "endOffset", "innerOffset", "chunkOffset",
    "chunkSize", "name", "type", "modtime", "linkName", "xattrs", "digest", "chunkDigest", "chunkType", None,
    "entries", "version",
)


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
    header.flags = FLAG_INNER_OFFSETS if build.any_inner else 0
    header.flags |= FLAG_NO_PREFETCH if build.no_prefetch else 0
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


cdef void clear(uint8_t *out, uint64_t begin, uint64_t end) noexcept nogil:
    memset(out + begin, 0, end - begin)


cdef int emit(Build *build, const Header *header, uint8_t *out) noexcept nogil:
    """Write the whole index; what has been copied is freed at once, so that both are never there in full."""
    cdef int status
    memcpy(out, header, sizeof(Header))
    # The gaps between sections are written too: nothing of what the memory held before gets out.
    clear(out, header.inodes_at + header.inode_count * sizeof(Inode), header.dirents_at)
    clear(out, header.dirents_at + header.dirent_count * sizeof(Dirent), header.chunks_at)
    clear(out, header.chunks_at + header.chunk_count * sizeof(Chunk), header.inner_at)
    clear(out, header.strings_at + header.strings_size, header.xattrs_at)
    clear(out, header.xattrs_at + header.xattrs_size, header.total_size)
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
        build,
        <Inode *>(out + header.inodes_at),
        <Chunk *>(out + header.chunks_at),
        <uint64_t *>(out + header.inner_at),
    )
    return JSON_OK


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
