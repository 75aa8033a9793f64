"""Reads a packed index in place: nothing is copied or unpacked before somebody asks for it.

The buffer may come from a file, so every number in it is checked before it is used as a position.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t
from libc.string cimport memcmp, memcpy

from toc_layout cimport (
    FLAG_INNER_OFFSETS, FLAG_NO_PREFETCH, HEADER_SIZE, INDEX_MAGIC, LAYOUT_VERSION, NO_XATTRS, TYPE_BLOCK,
    TYPE_CHAR, TYPE_DIRECTORY, TYPE_MASK, TYPE_REGULAR, TYPE_SYMLINK, Chunk, Dirent, Header, Inode,
)

cdef enum:
    DIRECTORY_SIZE = 4096        # what stat shows; the record keeps something else there
    MAX_PARENTS = 4096           # no path of an accepted TOC is deeper


cdef bint section_fits(const Header *header, uint64_t at, uint64_t count, uint64_t item) noexcept nogil:
    """Whether `count` items at `at` are aligned and inside the buffer."""
    if at & 7 or at < HEADER_SIZE or at > header.total_size:
        return False
    return count <= (header.total_size - at) // item


cdef const char *check_header(const uint8_t *data, uint64_t size) noexcept nogil:
    """What is wrong with the header, or NULL."""
    cdef const Header *header = <const Header *>data
    if size < HEADER_SIZE:
        return b"shorter than its header"
    if memcmp(header.magic, INDEX_MAGIC, 8) != 0:
        return b"no packed index"
    if header.layout_version != LAYOUT_VERSION or header.header_size != HEADER_SIZE:
        return b"another layout version"
    if header.total_size != size:
        return b"another length than its header says"
    if header.inode_count == 0:
        return b"without a root directory"
    if not (section_fits(header, header.inodes_at, header.inode_count, sizeof(Inode))
            and section_fits(header, header.dirents_at, header.dirent_count, sizeof(Dirent))
            and section_fits(header, header.chunks_at, header.chunk_count, sizeof(Chunk))
            and section_fits(
                header, header.inner_at, header.chunk_count if header.flags & FLAG_INNER_OFFSETS else 0, 8
            )
            and section_fits(header, header.strings_at, header.strings_size, 1)
            and section_fits(header, header.xattrs_at, header.xattrs_size, 1)):
        return b"sections outside the buffer"
    return NULL


cdef class Reader:
    """Answers from one buffer, which it keeps; see the stub."""

    cdef Py_buffer view
    cdef bint held
    cdef Header header           # a copy: what was checked stays as it was
    cdef const Inode *inodes
    cdef const Dirent *dirents
    cdef const Chunk *chunks
    cdef const uint64_t *inner
    cdef const uint8_t *strings
    cdef const uint8_t *xattr_lists

    def __cinit__(self, buffer):
        cdef const uint8_t *data
        cdef const char *problem
        PyObject_GetBuffer(buffer, &self.view, PyBUF_SIMPLE)
        self.held = True
        data = <const uint8_t *>self.view.buf
        if <size_t>data & 7:
            raise ValueError("not at a multiple of 8 in memory")
        problem = check_header(data, <uint64_t>self.view.len)
        if problem != NULL:
            raise ValueError((<bytes>problem).decode())
        memcpy(&self.header, data, sizeof(Header))
        self.inodes = <const Inode *>(data + self.header.inodes_at)
        self.dirents = <const Dirent *>(data + self.header.dirents_at)
        self.chunks = <const Chunk *>(data + self.header.chunks_at)
        self.inner = NULL
        if self.header.flags & FLAG_INNER_OFFSETS:
            self.inner = <const uint64_t *>(data + self.header.inner_at)
        self.strings = data + self.header.strings_at
        self.xattr_lists = data + self.header.xattrs_at
        if self.inode(0).mode & TYPE_MASK != TYPE_DIRECTORY:
            raise ValueError("without a root directory")

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.view)

    # Checked access

    cdef const Inode *inode(self, uint64_t number) except NULL:
        if number >= self.header.inode_count:
            raise IndexError(f"inode {number} of {self.header.inode_count}")
        return &self.inodes[number]

    cdef const Inode *typed(self, uint64_t number, uint32_t wanted) except NULL:
        cdef const Inode *inode = self.inode(number)
        if inode.mode & TYPE_MASK != wanted:
            raise ValueError(f"inode {number}: wanted type {wanted:o}, got {inode.mode & TYPE_MASK:o}")
        return inode

    cdef const Inode *directory(self, uint64_t number) except NULL:
        cdef const Inode *inode = self.typed(number, TYPE_DIRECTORY)
        if <uint64_t>inode.first + inode.count > self.header.dirent_count:
            raise ValueError(f"inode {number}: its names are outside the index")
        return inode

    cdef const Inode *regular(self, uint64_t number) except NULL:
        cdef const Inode *inode = self.typed(number, TYPE_REGULAR)
        if <uint64_t>inode.first + inode.count > self.header.chunk_count:
            raise ValueError(f"inode {number}: its chunks are outside the index")
        return inode

    cdef bytes string(self, uint64_t at, uint64_t size):
        if at > self.header.strings_size or size > self.header.strings_size - at:
            raise ValueError("a string outside the index")
        return PyBytes_FromStringAndSize(<const char *>self.strings + at, <Py_ssize_t>size)

    cdef int compare(self, uint64_t position, const uint8_t *name, size_t size, int *order) except -1:
        cdef const Dirent *dirent = &self.dirents[position]
        if <uint64_t>dirent.name_at + dirent.name_size > self.header.strings_size:
            raise ValueError("a name outside the index")
        order[0] = memcmp(self.strings + dirent.name_at, name, min(<size_t>dirent.name_size, size))
        if order[0] == 0:
            order[0] = (dirent.name_size > size) - (dirent.name_size < size)
        return 0

    cdef tuple name_and_inode(self, uint64_t position):
        cdef const Dirent *dirent = &self.dirents[position]
        return self.string(dirent.name_at, dirent.name_size), dirent.inode

    # The whole

    @property
    def inode_count(self):
        return self.header.inode_count

    @property
    def chunk_count(self):
        return self.header.chunk_count

    @property
    def content_size(self):
        return self.header.content_size

    @property
    def blob_size(self):
        return self.header.blob_size

    @property
    def toc_offset(self):
        return self.header.toc_offset

    @property
    def prefetch_end(self):
        return self.header.prefetch_end

    @property
    def no_prefetch(self):
        return self.header.flags & FLAG_NO_PREFETCH != 0

    @property
    def total_file_bytes(self):
        return self.header.total_file_bytes

    # Directories

    def lookup(self, uint64_t directory, bytes name not None):
        cdef const Inode *inode = self.directory(directory)
        cdef const uint8_t *wanted = <const uint8_t *><const char *>name
        cdef size_t size = len(name)
        cdef uint64_t low = inode.first
        cdef uint64_t high = low + inode.count
        cdef uint64_t middle
        cdef int order = 0
        while low < high:
            middle = (low + high) // 2
            self.compare(middle, wanted, size, &order)
            if order == 0:
                return self.dirents[middle].inode
            if order < 0:
                low = middle + 1
            else:
                high = middle
        return None

    def child_count(self, uint64_t directory):
        return self.directory(directory).count

    def child(self, uint64_t directory, uint64_t position):
        cdef const Inode *inode = self.directory(directory)
        if position >= inode.count:
            raise IndexError(f"inode {directory}: child {position} of {inode.count}")
        return self.name_and_inode(inode.first + position)

    def children(self, uint64_t directory, uint64_t start, uint64_t limit):
        cdef const Inode *inode = self.directory(directory)
        cdef uint64_t position
        if start >= inode.count:
            return []
        found = []
        for position in range(start, start + min(limit, inode.count - start)):
            found.append(self.name_and_inode(inode.first + position))
        return found

    def parent(self, uint64_t directory):
        return self.typed(directory, TYPE_DIRECTORY).data

    def path(self, uint64_t number):
        """Directories know their dirent; anything else is searched for."""
        cdef const Inode *inode = self.inode(number)
        cdef uint64_t directory = number
        cdef uint64_t position
        cdef int depth
        names = []
        if inode.mode & TYPE_MASK != TYPE_DIRECTORY:
            position = 0
            while position < self.header.dirent_count and self.dirents[position].inode != number:
                position += 1
            if position == self.header.dirent_count:
                raise ValueError(f"inode {number}: has no name")
            names.append(self.string(self.dirents[position].name_at, self.dirents[position].name_size))
            directory = 0
            while not (self.inode(directory).mode & TYPE_MASK == TYPE_DIRECTORY
                       and self.inodes[directory].first <= position
                       and position - self.inodes[directory].first < self.inodes[directory].count):
                directory += 1
        for depth in range(MAX_PARENTS):
            if directory == 0:
                names.reverse()
                return b"/".join(names)
            inode = self.typed(directory, TYPE_DIRECTORY)
            if inode.size >= self.header.dirent_count:
                raise ValueError(f"inode {directory}: its name is outside the index")
            names.append(self.string(self.dirents[inode.size].name_at, self.dirents[inode.size].name_size))
            directory = inode.data
        raise ValueError(f"inode {number}: its directories form a circle")

    # Attributes

    def attributes(self, uint64_t number):
        cdef const Inode *inode = self.inode(number)
        cdef uint32_t type_bits = inode.mode & TYPE_MASK
        return (
            inode.mode,
            inode.uid,
            inode.gid,
            inode.nlink,
            DIRECTORY_SIZE if type_bits == TYPE_DIRECTORY else inode.size,
            <object>inode.mtime_seconds * 1000000000 + inode.mtime_nanoseconds,
            inode.data if type_bits == TYPE_CHAR or type_bits == TYPE_BLOCK else 0,
        )

    def mode(self, uint64_t number):
        return self.inode(number).mode

    def read_link(self, uint64_t number):
        cdef const Inode *inode = self.typed(number, TYPE_SYMLINK)
        return self.string(inode.data, inode.size)

    def xattrs(self, uint64_t number):
        cdef const Inode *inode = self.inode(number)
        cdef uint64_t at = inode.xattrs
        cdef uint64_t end = self.header.xattrs_size
        cdef uint16_t count, name_size
        cdef uint32_t value_size
        cdef int i
        if inode.xattrs == NO_XATTRS:
            return ()
        if at > end or end - at < 2:
            raise ValueError(f"inode {number}: its attributes are outside the index")
        memcpy(&count, self.xattr_lists + at, 2)
        at += 2
        found = []
        for i in range(count):
            if end - at < 6:
                raise ValueError(f"inode {number}: its attributes are outside the index")
            memcpy(&name_size, self.xattr_lists + at, 2)
            memcpy(&value_size, self.xattr_lists + at + 2, 4)
            at += 6
            if end - at < <uint64_t>name_size + value_size:
                raise ValueError(f"inode {number}: its attributes are outside the index")
            found.append((
                PyBytes_FromStringAndSize(<const char *>self.xattr_lists + at, name_size),
                PyBytes_FromStringAndSize(<const char *>self.xattr_lists + at + name_size, value_size),
            ))
            at += <uint64_t>name_size + value_size
        return tuple(found)

    # Contents

    def content_offset(self, uint64_t number):
        return self.typed(number, TYPE_REGULAR).data

    def chunk_range(self, uint64_t number, uint64_t file_offset, uint64_t size):
        cdef const Inode *inode = self.regular(number)
        cdef uint64_t end, first, last
        if file_offset >= inode.size or size == 0 or inode.count == 0:
            return inode.first, inode.first
        end = file_offset + min(size, inode.size - file_offset)
        first = self.chunk_at(inode, file_offset)
        last = self.chunk_at(inode, end - 1)
        return first, last + 1

    cdef uint64_t chunk_at(self, const Inode *inode, uint64_t file_offset) noexcept nogil:
        """The file's last chunk that starts at or before `file_offset`; the file has chunks."""
        cdef uint64_t low = inode.first
        cdef uint64_t high = low + inode.count
        cdef uint64_t middle
        while high - low > 1:
            middle = (low + high) // 2
            if self.chunks[middle].content_offset - inode.data <= file_offset:
                low = middle
            else:
                high = middle
        return low

    def chunk(self, uint64_t number):
        cdef const Chunk *chunk
        if number >= self.header.chunk_count:
            raise IndexError(f"chunk {number} of {self.header.chunk_count}")
        chunk = &self.chunks[number]
        return (
            number,
            chunk.blob_offset,
            chunk.blob_size,
            0 if self.inner == NULL else self.inner[number],
            chunk.size,
            chunk.content_offset,
            PyBytes_FromStringAndSize(<const char *>chunk.digest, 32),
        )

    def owner_of_chunk(self, uint64_t number):
        cdef const Inode *inode
        cdef uint64_t i
        if number >= self.header.chunk_count:
            raise IndexError(f"chunk {number} of {self.header.chunk_count}")
        for i in range(self.header.inode_count):
            inode = &self.inodes[i]
            if inode.mode & TYPE_MASK != TYPE_REGULAR:
                continue
            if inode.first <= number and number - inode.first < inode.count:
                return i
        raise ValueError(f"chunk {number}: belongs to no file")
