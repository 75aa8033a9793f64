"""A bounded cursor over JSON text (RFC 8259): no recursion, no allocation, no Python objects.

Every function starts at ``cursor.at`` and leaves it after what was read, or on the offending byte when its
status is not JSON_OK. Nothing behind ``cursor.end`` is ever looked at.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from libc.string cimport memcpy, memset

cdef extern from * nogil:
    """
    #include <stdint.h>
    #if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
    #error "the packed index and the word-wise scanner are little-endian"
    #endif
    /* Of eight bytes, the number of leading ones that need no attention inside a string (8: none does):
       a quote, a backslash or a control character stops. Borrows only disturb bytes after the first hit. */
    static inline unsigned json_plain_bytes(uint64_t word) {
        const uint64_t ones = 0x0101010101010101ull, highs = 0x8080808080808080ull;
        uint64_t quote = word ^ (ones * 0x22), slash = word ^ (ones * 0x5c);
        uint64_t hits = (((quote - ones) & ~quote) | ((slash - ones) & ~slash)
                         | ((word - ones * 0x20) & ~word)) & highs;
        return hits ? (unsigned) __builtin_ctzll(hits) >> 3 : 8;
    }
    """
    unsigned json_plain_bytes(uint64_t word)

cdef enum:  # JsonStatus
    JSON_OK = 0
    JSON_TRUNCATED = 1   # the text ends inside a value
    JSON_SYNTAX = 2      # a byte that the grammar does not allow here
    JSON_ESCAPE = 3      # a backslash with something that is no escape behind it
    JSON_DEEP = 4        # nested deeper than JSON_MAX_DEPTH
    JSON_WIDE = 5        # a decoded string does not fit the caller's buffer
    JSON_TYPE = 6        # well-formed, but of another type than wanted
    JSON_RANGE = 7       # an integer beyond 64 bits

cdef enum:
    JSON_MAX_DEPTH = 512
    JSON_DEPTH_BYTES = 64    # a bit each

cdef struct JsonCursor:
    const uint8_t *start
    const uint8_t *at
    const uint8_t *end

cdef struct JsonText:    # a string's bytes, decoded where that was needed
    const uint8_t *data
    size_t size

cdef struct JsonString:
    const uint8_t *data  # between the quotes
    size_t size          # bytes in the text, escapes included
    bint escaped         # has escapes: json_decode before use


cdef inline void json_skip_space(JsonCursor *cursor) noexcept nogil:
    cdef uint8_t byte
    while cursor.at < cursor.end:
        byte = cursor.at[0]
        if byte != 0x20 and byte != 0x0A and byte != 0x0D and byte != 0x09:
            return
        cursor.at += 1


cdef inline int json_peek(JsonCursor *cursor) noexcept nogil:
    """The next byte that is not white space; -1 at the end."""
    json_skip_space(cursor)
    return cursor.at[0] if cursor.at < cursor.end else -1


cdef inline int json_expect(JsonCursor *cursor, uint8_t wanted) noexcept nogil:
    cdef int byte = json_peek(cursor)
    if byte < 0:
        return JSON_TRUNCATED
    if byte != wanted:
        return JSON_SYNTAX
    cursor.at += 1
    return JSON_OK


cdef inline int json_hex(uint8_t byte) noexcept nogil:
    if 0x30 <= byte <= 0x39:
        return byte - 0x30
    byte |= 0x20
    if 0x61 <= byte <= 0x66:
        return byte - 0x61 + 10
    return -1


cdef inline int json_hex4(const uint8_t *digits, uint32_t *value) noexcept nogil:
    """Four hexadecimal digits; the caller has checked that four bytes are there."""
    cdef int i, digit
    value[0] = 0
    for i in range(4):
        digit = json_hex(digits[i])
        if digit < 0:
            return JSON_ESCAPE
        value[0] = value[0] << 4 | <uint32_t>digit
    return JSON_OK


cdef inline int json_string(JsonCursor *cursor, JsonString *string) noexcept nogil:
    """A string, at its opening quote. Bytes need not be UTF-8; escapes are checked, not decoded."""
    cdef const uint8_t *at = cursor.at + 1
    cdef uint64_t word
    cdef unsigned plain
    cdef uint32_t unit
    cdef uint8_t byte
    string.data = at
    string.escaped = False
    while True:
        while cursor.end - at >= 8:
            memcpy(&word, at, 8)
            plain = json_plain_bytes(word)
            at += plain
            if plain < 8:
                break
        cursor.at = at
        if at >= cursor.end:
            return JSON_TRUNCATED
        byte = at[0]
        if byte == 0x22:
            string.size = <size_t>(at - string.data)
            cursor.at = at + 1
            return JSON_OK
        if byte < 0x20:
            return JSON_SYNTAX
        if byte != 0x5C:
            at += 1
            continue
        string.escaped = True
        if cursor.end - at < 2:
            return JSON_TRUNCATED
        byte = at[1]
        if byte == 0x75:  # u
            if cursor.end - at < 6:
                return JSON_TRUNCATED
            if json_hex4(at + 2, &unit) != JSON_OK:
                return JSON_ESCAPE
            at += 6
        elif (byte == 0x22 or byte == 0x5C or byte == 0x2F or byte == 0x62 or byte == 0x66 or byte == 0x6E
              or byte == 0x72 or byte == 0x74):
            at += 2
        else:
            return JSON_ESCAPE


cdef inline int json_decode(
    const JsonString *string, uint8_t *out, size_t capacity, size_t *size
) noexcept nogil:
    """The bytes of a string that json_string has accepted: escapes become UTF-8, the rest stays as it is.

    A surrogate without its partner becomes U+FFFD, as in Go's encoding/json. JSON_WIDE: no room.
    """
    cdef const uint8_t *at = string.data
    cdef const uint8_t *end = at + string.size
    cdef size_t used = 0
    cdef uint32_t unit, low
    cdef uint8_t byte
    while at < end:
        byte = at[0]
        if byte != 0x5C:
            if used >= capacity:
                return JSON_WIDE
            out[used] = byte
            used += 1
            at += 1
            continue
        byte = at[1]
        at += 2
        if byte != 0x75:
            unit = byte
            if byte == 0x62:
                unit = 0x08
            elif byte == 0x66:
                unit = 0x0C
            elif byte == 0x6E:
                unit = 0x0A
            elif byte == 0x72:
                unit = 0x0D
            elif byte == 0x74:
                unit = 0x09
        else:
            json_hex4(at, &unit)
            at += 4
            if 0xD800 <= unit <= 0xDFFF:
                low = 0
                if unit < 0xDC00 and end - at >= 6 and at[0] == 0x5C and at[1] == 0x75:
                    json_hex4(at + 2, &low)
                if 0xDC00 <= low <= 0xDFFF:
                    unit = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00)
                    at += 6
                else:
                    unit = 0xFFFD
        if capacity - used < 4 and capacity - used < <size_t>(
            1 if unit < 0x80 else 2 if unit < 0x800 else 3 if unit < 0x10000 else 4
        ):
            return JSON_WIDE
        if unit < 0x80:
            out[used] = <uint8_t>unit
            used += 1
        elif unit < 0x800:
            out[used] = <uint8_t>(0xC0 | unit >> 6)
            out[used + 1] = <uint8_t>(0x80 | unit & 0x3F)
            used += 2
        elif unit < 0x10000:
            out[used] = <uint8_t>(0xE0 | unit >> 12)
            out[used + 1] = <uint8_t>(0x80 | unit >> 6 & 0x3F)
            out[used + 2] = <uint8_t>(0x80 | unit & 0x3F)
            used += 3
        else:
            out[used] = <uint8_t>(0xF0 | unit >> 18)
            out[used + 1] = <uint8_t>(0x80 | unit >> 12 & 0x3F)
            out[used + 2] = <uint8_t>(0x80 | unit >> 6 & 0x3F)
            out[used + 3] = <uint8_t>(0x80 | unit & 0x3F)
            used += 4
    size[0] = used
    return JSON_OK


cdef inline int json_bytes(
    JsonCursor *cursor, uint8_t *room, size_t capacity, JsonText *text
) noexcept nogil:
    """A string's bytes: in the document itself when nothing is escaped, else decoded into `room`."""
    cdef JsonString string
    cdef int status
    if cursor.at[0] != 0x22:
        return JSON_TYPE
    status = json_string(cursor, &string)
    if status != JSON_OK:
        return status
    text.data = string.data
    text.size = string.size
    if string.escaped:
        status = json_decode(&string, room, capacity, &text.size)
        text.data = room
    return status


cdef inline int json_number(JsonCursor *cursor, int64_t *value) noexcept nogil:
    """A number; JSON_TYPE: read, but with a fraction or an exponent; JSON_RANGE: read, but beyond 64 bits."""
    cdef const uint8_t *at = cursor.at
    cdef const uint8_t *end = cursor.end
    cdef bint negative = False
    cdef bint whole = True
    cdef bint wide = False
    cdef uint64_t digits = 0
    cdef uint64_t limit
    if at < end and at[0] == 0x2D:
        negative = True
        at += 1
    cursor.at = at
    if at >= end:
        return JSON_TRUNCATED
    if at[0] == 0x30:
        at += 1
    elif 0x31 <= at[0] <= 0x39:
        while at < end and 0x30 <= at[0] <= 0x39:
            if digits > <uint64_t>0x1999999999999998:  # ten times this and 9 more still fit 64 bits
                wide = True
            else:
                digits = digits * 10 + (at[0] - 0x30)
            at += 1
    else:
        return JSON_SYNTAX
    if at < end and at[0] == 0x2E:
        whole = False
        at += 1
        cursor.at = at
        if at >= end:
            return JSON_TRUNCATED
        if not 0x30 <= at[0] <= 0x39:
            return JSON_SYNTAX
        while at < end and 0x30 <= at[0] <= 0x39:
            at += 1
    if at < end and at[0] | 0x20 == 0x65:
        whole = False
        at += 1
        if at < end and (at[0] == 0x2B or at[0] == 0x2D):
            at += 1
        cursor.at = at
        if at >= end:
            return JSON_TRUNCATED
        if not 0x30 <= at[0] <= 0x39:
            return JSON_SYNTAX
        while at < end and 0x30 <= at[0] <= 0x39:
            at += 1
    cursor.at = at
    if not whole:
        return JSON_TYPE
    limit = <uint64_t>0x7FFFFFFFFFFFFFFF
    if wide or digits > limit:
        return JSON_RANGE
    value[0] = -<int64_t>digits if negative else <int64_t>digits
    return JSON_OK


cdef inline int json_literal(JsonCursor *cursor) noexcept nogil:
    """``true``, ``false`` or ``null``."""
    cdef const char *word
    cdef int i = 0
    if cursor.at[0] == 0x74:
        word = b"true"
    elif cursor.at[0] == 0x66:
        word = b"false"
    else:
        word = b"null"
    while word[i] != 0:
        if cursor.at >= cursor.end:
            return JSON_TRUNCATED
        if cursor.at[0] != <uint8_t>word[i]:
            return JSON_SYNTAX
        cursor.at += 1
        i += 1
    return JSON_OK


cdef inline int json_scalar(JsonCursor *cursor) noexcept nogil:
    """A string, number or literal whose value nobody wants."""
    cdef JsonString string
    cdef int64_t value
    cdef int status
    cdef uint8_t byte = cursor.at[0]
    if byte == 0x22:
        return json_string(cursor, &string)
    if byte == 0x2D or 0x30 <= byte <= 0x39:
        status = json_number(cursor, &value)
        return JSON_OK if status == JSON_TYPE or status == JSON_RANGE else status
    if byte == 0x74 or byte == 0x66 or byte == 0x6E:
        return json_literal(cursor)
    return JSON_SYNTAX


cdef inline int json_key(JsonCursor *cursor, JsonString *key) noexcept nogil:
    """A key and its colon."""
    cdef int byte = json_peek(cursor)
    cdef int status
    if byte < 0:
        return JSON_TRUNCATED
    if byte != 0x22:
        return JSON_SYNTAX
    status = json_string(cursor, key)
    if status != JSON_OK:
        return status
    return json_expect(cursor, 0x3A)


cdef inline int json_skip(JsonCursor *cursor, unsigned outer) noexcept nogil:
    """Any value inside `outer` brackets, checked; a bit per open bracket says which kind closes it."""
    cdef uint8_t objects[JSON_DEPTH_BYTES]
    cdef JsonString key
    cdef unsigned depth = 0
    cdef int byte
    cdef int status
    cdef bint is_object
    memset(objects, 0, sizeof(objects))
    while True:
        byte = json_peek(cursor)
        if byte < 0:
            return JSON_TRUNCATED
        if byte == 0x7B or byte == 0x5B:
            is_object = byte == 0x7B
            if depth + outer >= JSON_MAX_DEPTH:
                return JSON_DEEP
            cursor.at += 1
            if is_object:
                objects[depth >> 3] |= <uint8_t>(1 << (depth & 7))
            else:
                objects[depth >> 3] &= <uint8_t>~(1 << (depth & 7))
            depth += 1
            byte = json_peek(cursor)
            if byte < 0:
                return JSON_TRUNCATED
            if byte != (0x7D if is_object else 0x5D):
                if is_object:
                    status = json_key(cursor, &key)
                    if status != JSON_OK:
                        return status
                continue
            cursor.at += 1
            depth -= 1
        else:
            status = json_scalar(cursor)
            if status != JSON_OK:
                return status
        # After a value: close what ends here, or go on with the next member.
        while True:
            if depth == 0:
                return JSON_OK
            is_object = objects[(depth - 1) >> 3] >> ((depth - 1) & 7) & 1
            byte = json_peek(cursor)
            if byte < 0:
                return JSON_TRUNCATED
            if byte == 0x2C:
                cursor.at += 1
                if is_object:
                    status = json_key(cursor, &key)
                    if status != JSON_OK:
                        return status
                break
            if byte != (0x7D if is_object else 0x5D):
                return JSON_SYNTAX
            cursor.at += 1
            depth -= 1
