"""Gives every TOC entry its place: a name, an inode, chunks, or what its special name asks for."""

from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t
from libc.string cimport memcmp, memcpy, memset

from json_text cimport JSON_OK, JsonText
from toc_build cimport (
    ENTRY_CHAR, ENTRY_CHUNK, ENTRY_DIRECTORY, ENTRY_FIFO, ENTRY_HARD_LINK, ENTRY_NONE, ENTRY_REGULAR,
    ENTRY_SYMLINK, FIELD_CHUNK_DIGEST, FIELD_CHUNK_OFFSET, FIELD_CHUNK_SIZE, FIELD_DEV_MAJOR,
    FIELD_DEV_MINOR, FIELD_END_OFFSET, FIELD_GID, FIELD_INNER_OFFSET, FIELD_LINK_NAME, FIELD_MODE,
    FIELD_NAME, FIELD_OFFSET, FIELD_SIZE, FIELD_TYPE, FIELD_UID, HOLE, MAX_CHUNK_BYTES, MAX_CONTENT_BYTES,
    MAX_DEVICE_MAJOR, MAX_DEVICE_MINOR, MAX_ID, MAX_SYMLINK_BYTES, NOTHING, OPAQUE_BIT, STATUS_BOUNDS,
    STATUS_CHUNK_SIZE, STATUS_CONTENT, STATUS_LINK_DIRECTORY, STATUS_LONG, STATUS_MISSING,
    STATUS_NOT_CONTIGUOUS, STATUS_NUL, STATUS_OTHER_FILE, STATUS_OUTSIDE, STATUS_PAST_END, STATUS_PATH,
    STATUS_ROOT, STATUS_SECTION, STATUS_SHORT, STATUS_STRAY_CHUNK, STATUS_VALUE, Build, Entry, OpenFile,
    PendingLink, Whiteout, fail, fail_number, reserve, store_string,
)
from toc_fields cimport (
    NAME_BAD_WHITEOUT, NAME_LANDMARK, NAME_NO_PREFETCH, NAME_OPAQUE, NAME_PLAIN, NAME_WHITEOUT, PATH_OK,
    clean_path, name_kind,
)
from toc_layout cimport (
    TYPE_BLOCK, TYPE_CHAR, TYPE_DIRECTORY, TYPE_FIFO, TYPE_MASK, TYPE_REGULAR, TYPE_SYMLINK, Chunk, Inode,
)
from toc_names cimport add_directory, add_inode, find_child, find_path, open_parent, set_child

cdef inline int add_record(Build *build, uint64_t file_offset, uint32_t size, uint64_t inner) noexcept nogil:
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


cdef inline int add_chunk(Build *build) noexcept nogil:
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


cdef inline int open_file(Build *build, uint32_t inode) noexcept nogil:
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


cdef inline int close_file(Build *build) noexcept nogil:
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


cdef inline int check_path(Build *build, int field) noexcept nogil:
    cdef JsonText *text = &build.entry.name if field == FIELD_NAME else &build.entry.link
    cdef int status = clean_path(text.data, text.size, &build.path if field == FIELD_NAME else &build.link)
    return JSON_OK if status == PATH_OK else fail(build, STATUS_PATH + status, field)


cdef inline int describe(Build *build, Inode *inode) noexcept nogil:
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


cdef inline int add_chunk_entry(Build *build) noexcept nogil:
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


cdef inline int add_hard_link(Build *build, uint32_t *inode) noexcept nogil:
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


cdef inline int add_whiteout(Build *build, uint32_t directory) noexcept nogil:
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


cdef inline int add_special(Build *build, int kind) noexcept nogil:
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


cdef inline int add_plain(Build *build) noexcept nogil:
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


cdef inline int commit(Build *build) noexcept nogil:
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
