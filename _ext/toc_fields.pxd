"""The values inside a TOC entry's strings: times, digests, base64, paths."""

from libc.stdint cimport int64_t, uint32_t, uint8_t
from libc.string cimport memchr, memcmp, memcpy

cdef extern from * nogil:
    """
    #include <stdint.h>
    /* 64 lower-case digits to 32 bytes. Digests are most of a TOC, and as they are random a branch per digit
       costs more than all the rest of the scan; this form has none and becomes vector instructions. */
    static inline int hex_to_bytes(const uint8_t *text, uint8_t *out) {
        uint8_t values[64], bad = 0;
        for (int i = 0; i < 64; i++) {
            uint8_t digit = (uint8_t) (text[i] - '0'), letter = (uint8_t) (text[i] - 'a');
            bad |= (uint8_t) ((digit > 9) & (letter > 5));
            values[i] = digit <= 9 ? digit : (uint8_t) (letter + 10);
        }
        for (int i = 0; i < 32; i++)
            out[i] = (uint8_t) (values[2 * i] << 4 | (values[2 * i + 1] & 15));
        return bad == 0;
    }
    """
    bint hex_to_bytes(const uint8_t *text, uint8_t *out)

cdef enum:  # PathStatus
    PATH_OK = 0
    PATH_LONG = 1
    PATH_COMPONENT_LONG = 2
    PATH_PARENT = 4          # holds a ".." component
    PATH_NUL = 5

cdef enum:
    MAX_PATH_BYTES = 4096
    MAX_COMPONENT_BYTES = 255

cdef enum:  # NameKind
    NAME_PLAIN = 0
    NAME_HIDDEN = 1          # never visible, and nothing below it
    NAME_LANDMARK = 2        # hidden; says where the prioritized prefix ends
    NAME_NO_PREFETCH = 3     # hidden; says that nothing is prioritized
    NAME_WHITEOUT = 4
    NAME_OPAQUE = 5
    NAME_BAD_WHITEOUT = 6    # would name "." or ".."

cdef struct Path:
    size_t size              # 0: the root
    size_t base              # where the last component starts
    size_t first             # length of the first component
    bint below_whiteout      # a component before the last begins with ".wh."
    uint8_t bytes[MAX_PATH_BYTES]


cdef inline int clean_path(const uint8_t *raw, size_t size, Path *path) noexcept nogil:
    """Drops ``.`` and empty components, a leading slash too (some tools write it); refuses what could leave the tree (PathStatus)."""
    cdef size_t at = 0
    cdef size_t start, length
    cdef bint marked = False
    path.size = path.base = path.first = 0
    path.below_whiteout = False
    if size > MAX_PATH_BYTES:
        return PATH_LONG
    if size == 0:
        return PATH_OK
    if memchr(raw, 0, size) != NULL:
        return PATH_NUL
    while at < size:
        start = at
        while at < size and raw[at] != 0x2F:
            at += 1
        length = at - start
        at += 1
        if length == 0 or (length == 1 and raw[start] == 0x2E):
            continue
        if length == 2 and raw[start] == 0x2E and raw[start + 1] == 0x2E:
            return PATH_PARENT
        if length > MAX_COMPONENT_BYTES:
            return PATH_COMPONENT_LONG
        if marked:
            path.below_whiteout = True
        if path.size:
            path.bytes[path.size] = 0x2F
            path.size += 1
        else:
            path.first = length
        path.base = path.size
        memcpy(path.bytes + path.size, raw + start, length)
        path.size += length
        marked = length >= 4 and memcmp(raw + start, b".wh.", 4) == 0
    return PATH_OK


cdef inline bint text_is(const uint8_t *data, size_t size, const char *text, size_t text_size) noexcept nogil:
    return size == text_size and memcmp(data, text, size) == 0


cdef inline int name_kind(const Path *path) noexcept nogil:
    """What the name alone says about an entry (not for the root itself)."""
    cdef const uint8_t *name = path.bytes + path.base
    cdef size_t size = path.size - path.base
    if text_is(path.bytes, path.first, b".prefetch.landmark", 18):
        return NAME_LANDMARK if path.base == 0 else NAME_HIDDEN
    if text_is(path.bytes, path.first, b".no.prefetch.landmark", 21):
        return NAME_NO_PREFETCH if path.base == 0 else NAME_HIDDEN
    if text_is(path.bytes, path.first, b"stargz.index.json", 17) or path.below_whiteout:
        return NAME_HIDDEN
    if size < 4 or memcmp(name, b".wh.", 4) != 0:
        return NAME_PLAIN
    if text_is(name, size, b".wh..wh..opq", 12):
        return NAME_OPAQUE
    if size == 4 or (size >= 8 and memcmp(name + 4, b".wh.", 4) == 0):
        return NAME_HIDDEN
    if text_is(name, size, b".wh..", 5) or text_is(name, size, b".wh...", 6):
        return NAME_BAD_WHITEOUT
    return NAME_WHITEOUT


cdef inline bint parse_digest(const uint8_t *text, size_t size, uint8_t *out) noexcept nogil:
    """``sha256:`` and 64 lower-case hexadecimal digits to 32 bytes; False for anything else."""
    return size == 71 and memcmp(text, b"sha256:", 7) == 0 and hex_to_bytes(text + 7, out)


cdef inline int base64_value(uint8_t byte) noexcept nogil:
    if 0x41 <= byte <= 0x5A:
        return byte - 0x41
    if 0x61 <= byte <= 0x7A:
        return byte - 0x61 + 26
    if 0x30 <= byte <= 0x39:
        return byte - 0x30 + 52
    if byte == 0x2B:
        return 62
    if byte == 0x2F:
        return 63
    return -1


cdef inline bint parse_base64(
    const uint8_t *text, size_t size, uint8_t *out, size_t *out_size
) noexcept nogil:
    """RFC 4648 section 4 with padding and nothing else; `out` has room for ``size // 4 * 3`` bytes."""
    cdef size_t at = 0
    cdef size_t used = 0
    cdef int a, b, c, d
    if size & 3:
        return False
    while at < size:
        a = base64_value(text[at])
        b = base64_value(text[at + 1])
        if a < 0 or b < 0:
            return False
        out[used] = <uint8_t>(a << 2 | b >> 4)
        used += 1
        if text[at + 3] == 0x3D and at + 4 == size:
            if text[at + 2] == 0x3D:
                break
            c = base64_value(text[at + 2])
            if c < 0:
                return False
            out[used] = <uint8_t>((b & 15) << 4 | c >> 2)
            used += 1
            break
        c = base64_value(text[at + 2])
        d = base64_value(text[at + 3])
        if c < 0 or d < 0:
            return False
        out[used] = <uint8_t>((b & 15) << 4 | c >> 2)
        out[used + 1] = <uint8_t>((c & 3) << 6 | d)
        used += 2
        at += 4
    out_size[0] = used
    return True


cdef inline int digits(const uint8_t *text, int count) noexcept nogil:
    """A decimal number of exactly `count` digits, or -1."""
    cdef int value = 0
    cdef int i
    for i in range(count):
        if not 0x30 <= text[i] <= 0x39:
            return -1
        value = value * 10 + (text[i] - 0x30)
    return value


cdef inline int64_t days_since_epoch(int64_t year, int month, int day) noexcept nogil:
    """Proleptic Gregorian calendar; years 0 to 9999."""
    cdef int64_t era_year = year if month > 2 else year - 1
    cdef int64_t shifted = era_year + 400
    cdef int day_of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return shifted * 365 + shifted // 4 - shifted // 100 + shifted // 400 + day_of_year - 719468 - 146097


cdef inline bint parse_time(
    const uint8_t *text, size_t size, int64_t *seconds, uint32_t *nanoseconds
) noexcept nogil:
    """RFC 3339 section 5.6 to seconds since 1970 (negative before) and nanoseconds, the rest cut off."""
    cdef int year, month, day, hour, minute, second, zone_hour, zone_minute, last_day
    cdef int zone = 0
    cdef size_t at = 19
    cdef uint32_t unit = 100000000
    nanoseconds[0] = 0
    if size < 20:
        return False
    if text[4] != 0x2D or text[7] != 0x2D or text[10] | 0x20 != 0x74 or text[13] != 0x3A or text[16] != 0x3A:
        return False
    year = digits(text, 4)
    month = digits(text + 5, 2)
    day = digits(text + 8, 2)
    hour = digits(text + 11, 2)
    minute = digits(text + 14, 2)
    second = digits(text + 17, 2)
    if year < 0 or not 1 <= month <= 12 or day < 1 or not 0 <= hour <= 23 or not 0 <= minute <= 59:
        return False
    if not 0 <= second <= 59:
        return False
    if month == 2:
        last_day = 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    else:
        last_day = 30 if month == 4 or month == 6 or month == 9 or month == 11 else 31
    if day > last_day:
        return False
    if text[at] == 0x2E:
        at += 1
        if at >= size or not 0x30 <= text[at] <= 0x39:
            return False
        while at < size and 0x30 <= text[at] <= 0x39:
            nanoseconds[0] += (text[at] - 0x30) * unit
            unit //= 10
            at += 1
    if at >= size:
        return False
    if text[at] | 0x20 == 0x7A:
        if at + 1 != size:
            return False
    else:
        if (text[at] != 0x2B and text[at] != 0x2D) or at + 6 != size or text[at + 3] != 0x3A:
            return False
        zone_hour = digits(text + at + 1, 2)
        zone_minute = digits(text + at + 4, 2)
        if not 0 <= zone_hour <= 23 or not 0 <= zone_minute <= 59:
            return False
        zone = zone_hour * 3600 + zone_minute * 60
        if text[at] == 0x2D:
            zone = -zone
    seconds[0] = days_since_epoch(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - zone
    return True
