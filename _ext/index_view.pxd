"""A packed index in memory, as kernels ask it without the GIL: every number in it is checked before it is a position."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from toc_layout cimport (
    FLAG_INNER_OFFSETS, HEADER_SIZE, INDEX_MAGIC, LAYOUT_VERSION, NO_XATTRS, TYPE_DIRECTORY, TYPE_MASK, TYPE_REGULAR,
    Chunk, Dirent, Header, Inode,
)

cdef enum:
    FEW_CHUNKS = 8               # that are looked through without a guess
    GUESSES = 8                  # at most: chunks of very different sizes are better halved

cdef struct IndexView:
    Header header                # a copy: what was checked stays as it was
    const Inode *inodes
    const Dirent *dirents
    const Chunk *chunks
    const uint64_t *inner        # NULL: no chunk has an inner offset
    const uint8_t *strings
    const uint8_t *xattr_lists

cdef struct Xattr:
    const uint8_t *name
    const uint8_t *value
    uint32_t name_size
    uint32_t value_size

cdef struct XattrCursor:
    uint64_t at
    uint32_t left


cdef inline bint section_fits(const Header *header, uint64_t at, uint64_t count, uint64_t item) noexcept nogil:
    """Whether `count` items at `at` are aligned and inside the buffer."""
    if at & 7 or at < HEADER_SIZE or at > header.total_size:
        return False
    return count <= (header.total_size - at) // item


cdef inline const char *header_problem(const uint8_t *data, uint64_t size) noexcept nogil:
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


cdef inline const char *open_view(IndexView *view, const uint8_t *data, uint64_t size) noexcept nogil:
    """Make `view` of a buffer that outlives it; what is wrong with the buffer, or NULL."""
    cdef const char *problem
    if <size_t>data & 7:
        return b"not at a multiple of 8 in memory"
    problem = header_problem(data, size)
    if problem != NULL:
        return problem
    memcpy(&view.header, data, sizeof(Header))
    view.inodes = <const Inode *>(data + view.header.inodes_at)
    view.dirents = <const Dirent *>(data + view.header.dirents_at)
    view.chunks = <const Chunk *>(data + view.header.chunks_at)
    view.inner = NULL
    if view.header.flags & FLAG_INNER_OFFSETS:
        view.inner = <const uint64_t *>(data + view.header.inner_at)
    view.strings = data + view.header.strings_at
    view.xattr_lists = data + view.header.xattrs_at
    if view.inodes[0].mode & TYPE_MASK != TYPE_DIRECTORY:
        return b"without a root directory"
    return NULL


cdef inline bint is_type(const Inode *inode, uint32_t wanted) noexcept nogil:
    return inode.mode & TYPE_MASK == wanted


cdef inline bint names_fit(const IndexView *view, const Inode *directory) noexcept nogil:
    """Whether a directory's names are inside the index."""
    return <uint64_t>directory.first + directory.count <= view.header.dirent_count


cdef inline bint chunks_fit(const IndexView *view, const Inode *regular) noexcept nogil:
    """Whether a file's chunks are inside the index."""
    return <uint64_t>regular.first + regular.count <= view.header.chunk_count


cdef inline bint string_fits(const IndexView *view, uint64_t at, uint64_t size) noexcept nogil:
    return at <= view.header.strings_size and size <= view.header.strings_size - at


cdef inline int find_child(
    const IndexView *view, const Inode *directory, const uint8_t *name, size_t size, uint32_t *found
) noexcept nogil:
    """1: `found` is the inode of `name`; 0: there is none; -1: a name outside the index. The names fit."""
    cdef uint64_t low = directory.first
    cdef uint64_t high = low + directory.count
    cdef uint64_t middle
    cdef const Dirent *dirent
    cdef int order
    while low < high:
        middle = (low + high) // 2
        dirent = &view.dirents[middle]
        if not string_fits(view, dirent.name_at, dirent.name_size):
            return -1
        order = memcmp(view.strings + dirent.name_at, name, min(<size_t>dirent.name_size, size))
        if order == 0:
            order = (dirent.name_size > size) - (dirent.name_size < size)
        if order == 0:
            found[0] = dirent.inode
            return 1
        if order < 0:
            low = middle + 1
        else:
            high = middle
    return 0


cdef inline bint has_chunks(const Inode *inode) noexcept nogil:
    """Of those that do, each one's chunks stand behind those of the one before."""
    return is_type(inode, TYPE_REGULAR) and inode.count > 0


cdef inline uint64_t chunk_at(const IndexView *view, const Inode *regular, uint64_t file_offset) noexcept nogil:
    """The file's last chunk that starts at or before `file_offset`; the file has chunks, and they fit.

    Of a large file's many records those in the middle are in no cache of the processor: at first the place is
    guessed by proportion, which of chunks of similar sizes is right to a few records.
    """
    cdef uint64_t low = regular.first
    cdef uint64_t high = low + regular.count
    cdef uint64_t low_at = 0, high_at = regular.size, middle, at
    cdef int guesses = GUESSES
    while high - low > 1:
        middle = (low + high) // 2
        if high - low > FEW_CHUNKS and guesses and low_at <= file_offset < high_at:
            guesses -= 1
            middle = low + <uint64_t>(<double>(high - low) * (<double>(file_offset - low_at) / <double>(high_at - low_at)))
            middle = min(max(middle, low + 1), high - 1)
        at = view.chunks[middle].content_offset - regular.data
        if at <= file_offset:
            low, low_at = middle, at
        else:
            high, high_at = middle, at
    return low


cdef inline bint start_xattrs(const IndexView *view, const Inode *inode, XattrCursor *cursor) noexcept nogil:
    """Before the first attribute; False: they are outside the index."""
    cdef uint16_t count
    cursor.at, cursor.left = inode.xattrs, 0
    if inode.xattrs == NO_XATTRS:
        return True
    if cursor.at > view.header.xattrs_size or view.header.xattrs_size - cursor.at < 2:
        return False
    memcpy(&count, view.xattr_lists + cursor.at, 2)
    cursor.at += 2
    cursor.left = count
    return True


cdef inline int next_xattr(const IndexView *view, XattrCursor *cursor, Xattr *found) noexcept nogil:
    """1: `found` is the next attribute; 0: there is none left; -1: it is outside the index."""
    cdef uint64_t end = view.header.xattrs_size
    cdef uint16_t name_size
    if cursor.left == 0:
        return 0
    if end - cursor.at < 6:
        return -1
    memcpy(&name_size, view.xattr_lists + cursor.at, 2)
    memcpy(&found.value_size, view.xattr_lists + cursor.at + 2, 4)
    found.name_size = name_size
    cursor.at += 6
    if end - cursor.at < <uint64_t>found.name_size + found.value_size:
        return -1
    found.name = view.xattr_lists + cursor.at
    found.value = found.name + found.name_size
    cursor.at += <uint64_t>found.name_size + found.value_size
    cursor.left -= 1
    return 1
