"""Extended attributes: per owner a count, then records of two lengths, name and value."""

from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t
from libc.string cimport memcmp, memcpy, memmove

from json_text cimport (
    JSON_OK, JSON_SYNTAX, JSON_TRUNCATED, JSON_TYPE, JSON_WIDE, JsonCursor, JsonString, JsonText,
    json_bytes, json_decode, json_key, json_peek,
)
from toc_build cimport (
    BASE64_BYTES, FIELD_XATTRS, MAX_XATTRS, MAX_XATTR_NAME_BYTES, MAX_XATTR_VALUE_BYTES, OPAQUE_BIT,
    STATUS_LONG, STATUS_NUL, STATUS_SECTION, STATUS_TOO_MANY_XATTRS, STATUS_VALUE, Build, fail, reserve,
)
from toc_fields cimport parse_base64
from toc_layout cimport NO_XATTRS, TYPE_DIRECTORY, TYPE_MASK, Inode

cdef inline int order_names(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size) noexcept nogil:
    """Negative, zero or positive as `a` sorts before, with or after `b`: by bytes, a prefix first."""
    cdef int order = memcmp(a, b, min(a_size, b_size))
    if order:
        return order
    return (a_size > b_size) - (a_size < b_size)


cdef inline int read_xattr(Build *build, uint32_t *starts, uint32_t *count) noexcept nogil:
    """One member of ``xattrs``, appended to the section; `starts` has the records by name, the last wins."""
    cdef JsonString key
    cdef uint8_t name[MAX_XATTR_NAME_BYTES]
    cdef const uint8_t *record
    cdef size_t name_size
    cdef size_t value_size = 0
    cdef JsonText text
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
    status = json_bytes(&build.cursor, build.base64_text, BASE64_BYTES, &text)
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


cdef inline int gather_xattrs(
    Build *build, uint64_t begin, const uint32_t *starts, uint32_t count
) noexcept nogil:
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


cdef inline int read_xattrs(Build *build, uint64_t begin) noexcept nogil:
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


cdef inline int append_xattr(Build *build, const char *name) noexcept nogil:
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


cdef inline uint64_t xattrs_length(const Build *build, uint32_t at, uint16_t *count) noexcept nogil:
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


cdef inline int mark_opaque(Build *build) noexcept nogil:
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
