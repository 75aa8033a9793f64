"""Reads a TOC document entry by entry (RFC 8259; the fields of estargz.md and of zstd:chunked)."""

from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from libc.string cimport memcmp, memset

from json_text cimport (
    JSON_OK, JSON_SYNTAX, JSON_TRUNCATED, JSON_TYPE, JSON_WIDE, JsonCursor, JsonString, JsonText,
    json_bytes, json_decode, json_key, json_literal, json_number, json_peek, json_skip,
)
from toc_build cimport (
    ENTRY_BLOCK, ENTRY_CHAR, ENTRY_CHUNK, ENTRY_DIRECTORY, ENTRY_FIFO, ENTRY_HARD_LINK, ENTRY_NONE,
    ENTRY_REGULAR, ENTRY_SYMLINK, FIELD_CHUNK_DIGEST, FIELD_CHUNK_OFFSET, FIELD_CHUNK_SIZE,
    FIELD_CHUNK_TYPE, FIELD_DEV_MAJOR, FIELD_DEV_MINOR, FIELD_DIGEST, FIELD_END_OFFSET, FIELD_ENTRIES,
    FIELD_GID, FIELD_INNER_OFFSET, FIELD_LINK_NAME, FIELD_MODE, FIELD_MODTIME, FIELD_NAME, FIELD_NONE,
    FIELD_OFFSET, FIELD_SIZE, FIELD_TYPE, FIELD_UID, FIELD_VERSION, FIELD_XATTRS, NOTHING, NUMBERS,
    STATUS_BOUNDS, STATUS_ENTRIES, STATUS_NO_ENTRIES, STATUS_TRAILING, STATUS_TWICE, STATUS_VALUE,
    STATUS_VERSION, Build, Entry, fail,
)
from toc_entries cimport close_file, commit
from toc_fields cimport parse_digest, parse_time, text_is
from toc_layout cimport NO_XATTRS, TYPE_DIRECTORY
from toc_names cimport add_inode
from toc_xattrs cimport read_xattrs

cdef inline int key_field(const uint8_t *key, size_t size) noexcept nogil:
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


cdef inline int entry_type(const JsonText *text) noexcept nogil:
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


cdef inline int read_text_field(Build *build, int field) noexcept nogil:
    cdef Entry *entry = &build.entry
    cdef uint8_t room[256]
    cdef JsonText text
    cdef int status
    if field == FIELD_NAME:
        return json_bytes(&build.cursor, build.name_text, sizeof(build.name_text), &entry.name)
    if field == FIELD_LINK_NAME:
        return json_bytes(&build.cursor, build.link_text, sizeof(build.link_text), &entry.link)
    status = json_bytes(&build.cursor, room, sizeof(room), &text)
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
        if text.size == 0 or parse_digest(text.data, text.size, entry.digest):
            return JSON_OK
        return STATUS_VALUE
    entry.has_chunk_digest = text.size != 0
    if text.size == 0 or parse_digest(text.data, text.size, entry.chunk_digest):
        return JSON_OK
    return STATUS_VALUE


cdef inline int read_member(Build *build, uint64_t xattrs_begin) noexcept nogil:
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


cdef inline int read_entry(Build *build) noexcept nogil:
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


cdef inline int read_entries(Build *build) noexcept nogil:
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


cdef inline int read_document(Build *build) noexcept nogil:
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
