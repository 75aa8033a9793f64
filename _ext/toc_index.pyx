"""Reads a packed index in place: nothing is copied or unpacked before somebody asks for it.

The buffer may come from a file, so every number in it is checked before it is used as a position.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint32_t, uint64_t, uint8_t

from index_view cimport *
from toc_layout cimport (
    FLAG_NO_PREFETCH, TYPE_BLOCK, TYPE_CHAR, TYPE_DIRECTORY, TYPE_MASK, TYPE_REGULAR, TYPE_SYMLINK, Chunk, Dirent, Inode,
)

cdef enum:
    DIRECTORY_SIZE = 4096        # what stat shows; the record keeps something else there
    MAX_PARENTS = 4096           # no path of an accepted TOC is deeper


cdef class Reader:
    """Answers from one buffer, which it keeps; see the stub."""

    cdef Py_buffer buffer
    cdef bint held
    cdef IndexView view

    def __cinit__(self, buffer):
        cdef const char *problem
        PyObject_GetBuffer(buffer, &self.buffer, PyBUF_SIMPLE)
        self.held = True
        problem = open_view(&self.view, <const uint8_t *>self.buffer.buf, <uint64_t>self.buffer.len)
        if problem != NULL:
            raise ValueError((<bytes>problem).decode())

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.buffer)

    # Checked access

    cdef const Inode *inode(self, uint64_t number) except NULL:
        if number >= self.view.header.inode_count:
            raise IndexError(f"inode {number} of {self.view.header.inode_count}")
        return &self.view.inodes[number]

    cdef const Inode *typed(self, uint64_t number, uint32_t wanted) except NULL:
        cdef const Inode *inode = self.inode(number)
        if inode.mode & TYPE_MASK != wanted:
            raise ValueError(f"inode {number}: wanted type {wanted:o}, got {inode.mode & TYPE_MASK:o}")
        return inode

    cdef const Inode *directory(self, uint64_t number) except NULL:
        cdef const Inode *inode = self.typed(number, TYPE_DIRECTORY)
        if not names_fit(&self.view, inode):
            raise ValueError(f"inode {number}: its names are outside the index")
        return inode

    cdef const Inode *regular(self, uint64_t number) except NULL:
        cdef const Inode *inode = self.typed(number, TYPE_REGULAR)
        if not chunks_fit(&self.view, inode):
            raise ValueError(f"inode {number}: its chunks are outside the index")
        return inode

    cdef bytes string(self, uint64_t at, uint64_t size):
        if not string_fits(&self.view, at, size):
            raise ValueError("a string outside the index")
        return PyBytes_FromStringAndSize(<const char *>self.view.strings + at, <Py_ssize_t>size)

    cdef tuple name_and_inode(self, uint64_t position):
        cdef const Dirent *dirent = &self.view.dirents[position]
        return self.string(dirent.name_at, dirent.name_size), dirent.inode

    # The whole

    @property
    def inode_count(self):
        return self.view.header.inode_count

    @property
    def chunk_count(self):
        return self.view.header.chunk_count

    @property
    def content_size(self):
        return self.view.header.content_size

    @property
    def blob_size(self):
        return self.view.header.blob_size

    @property
    def toc_offset(self):
        return self.view.header.toc_offset

    @property
    def prefetch_end(self):
        return self.view.header.prefetch_end

    @property
    def no_prefetch(self):
        return self.view.header.flags & FLAG_NO_PREFETCH != 0

    @property
    def total_file_bytes(self):
        return self.view.header.total_file_bytes

    # Directories

    def lookup(self, uint64_t directory, bytes name not None):
        cdef const Inode *inode = self.directory(directory)
        cdef uint32_t child = 0
        cdef int found = find_child(&self.view, inode, <const uint8_t *><const char *>name, len(name), &child)
        if found < 0:
            raise ValueError("a name outside the index")
        return child if found else None

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
            while position < self.view.header.dirent_count and self.view.dirents[position].inode != number:
                position += 1
            if position == self.view.header.dirent_count:
                raise ValueError(f"inode {number}: has no name")
            names.append(self.string(self.view.dirents[position].name_at, self.view.dirents[position].name_size))
            directory = 0
            while not (self.inode(directory).mode & TYPE_MASK == TYPE_DIRECTORY
                       and self.view.inodes[directory].first <= position
                       and position - self.view.inodes[directory].first < self.view.inodes[directory].count):
                directory += 1
        for depth in range(MAX_PARENTS):
            if directory == 0:
                names.reverse()
                return b"/".join(names)
            inode = self.typed(directory, TYPE_DIRECTORY)
            if inode.size >= self.view.header.dirent_count:
                raise ValueError(f"inode {directory}: its name is outside the index")
            names.append(self.string(self.view.dirents[inode.size].name_at, self.view.dirents[inode.size].name_size))
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
        cdef XattrCursor cursor
        cdef Xattr xattr
        cdef int got = -1
        attributes = []
        if start_xattrs(&self.view, inode, &cursor):
            got = next_xattr(&self.view, &cursor, &xattr)
            while got > 0:
                attributes.append((
                    PyBytes_FromStringAndSize(<const char *>xattr.name, xattr.name_size),
                    PyBytes_FromStringAndSize(<const char *>xattr.value, xattr.value_size),
                ))
                got = next_xattr(&self.view, &cursor, &xattr)
        if got < 0:
            raise ValueError(f"inode {number}: its attributes are outside the index")
        return tuple(attributes)

    # Contents

    def content_offset(self, uint64_t number):
        return self.typed(number, TYPE_REGULAR).data

    def chunk_range(self, uint64_t number, uint64_t file_offset, uint64_t size):
        cdef const Inode *inode = self.regular(number)
        cdef uint64_t end, first, last
        if file_offset >= inode.size or size == 0 or inode.count == 0:
            return inode.first, inode.first
        end = file_offset + min(size, inode.size - file_offset)
        first = chunk_at(&self.view, inode, file_offset)
        last = chunk_at(&self.view, inode, end - 1)
        return first, last + 1

    def chunk(self, uint64_t number):
        cdef const Chunk *chunk
        if number >= self.view.header.chunk_count:
            raise IndexError(f"chunk {number} of {self.view.header.chunk_count}")
        chunk = &self.view.chunks[number]
        return (
            number,
            chunk.blob_offset,
            chunk.blob_size,
            0 if self.view.inner == NULL else self.view.inner[number],
            chunk.size,
            chunk.content_offset,
            PyBytes_FromStringAndSize(<const char *>chunk.digest, 32),
        )

    def owner_of_chunk(self, uint64_t number):
        cdef const Inode *inode
        cdef uint64_t low = 0, high = self.view.header.inode_count, middle, at
        if number >= self.view.header.chunk_count:
            raise IndexError(f"chunk {number} of {self.view.header.chunk_count}")
        while low < high:
            at = middle = (low + high) // 2
            while at < high and not has_chunks(&self.view.inodes[at]):
                at += 1
            inode = &self.view.inodes[at]
            if at == high or number < inode.first:
                high = middle
            elif number - inode.first < inode.count:
                return at
            else:
                low = at + 1
        raise ValueError(f"chunk {number}: belongs to no file")
