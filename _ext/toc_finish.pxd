"""Gives whiteouts, hard links, link counts, places and piece ends their final values."""

from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.stdlib cimport free, malloc, qsort
from libc.string cimport memcpy, memset

from json_text cimport JSON_OK
from toc_build cimport (
    FIELD_LINK_NAME, FIELD_NONE, FIELD_SIZE, HOLE, MAX_CONTENT_BYTES, NOTHING, STATUS_CONTENT,
    STATUS_LINK_CYCLE, STATUS_LINK_DIRECTORY, STATUS_LINK_TARGET, STATUS_MEMORY, Build, Name, PendingLink,
    Whiteout, fail,
)
from toc_fields cimport MAX_PATH_BYTES
from toc_layout cimport (
    CONTENT_PAGE, CONTENT_WORD, TYPE_CHAR, TYPE_DIRECTORY, TYPE_MASK, TYPE_REGULAR, Chunk, Inode,
)
from toc_names cimport add_inode, find_child, find_path, set_child
from toc_xattrs cimport mark_opaque

cdef inline int place_whiteouts(Build *build) noexcept nogil:
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


cdef inline int resolve_links(Build *build) noexcept nogil:
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


cdef inline uint32_t final_inode(const Build *build, uint32_t inode) noexcept nogil:
    """Behind a placeholder, the inode that it stands for."""
    if build.inodes[inode].mode & TYPE_MASK:
        return inode
    return build.pending[build.inodes[inode].first].resolved


cdef inline int number_inodes(Build *build) noexcept nogil:
    """Count links and children of what can be reached from the root; number it in the order of the TOC."""
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


cdef inline int place_content(Build *build) noexcept nogil:
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


cdef inline int compare_offsets(const void *a, const void *b) noexcept nogil:
    cdef uint64_t x = (<const uint64_t *>a)[0]
    cdef uint64_t y = (<const uint64_t *>b)[0]
    return (x > y) - (x < y)


cdef inline int end_pieces(Build *build) noexcept nogil:
    """Where each piece surely ends: at its endOffset, else at the next larger offset, else at the TOC."""
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


cdef inline int finish(Build *build) noexcept nogil:
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
