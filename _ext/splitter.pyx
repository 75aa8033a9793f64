"""Where podman cuts the content of a file: at a rolling sum, at runs of zeros (containers/storage, pkg/chunked).

The sum is bup's: a window of 64 bytes, `s1` the sum of its bytes, `s2` the sum of all s1 (both offset by 31 per
byte). A chunk ends behind a byte after which the low 16 bits of s2 are all ones, so chunks have 64 KiB on average.
A run of at least 1024 zeros is a chunk of its own. CRC-64 (ECMA-182 calls it ISO 3309) is tar-split's checksum.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memset

cdef enum:
    WINDOW = 64
    CHAR_OFFSET = 31
    SPLIT_MASK = 0xFFFF
    HOLE = 1024
    # Fewer bytes than this are done before another thread would have got the GIL.
    RELEASE = 1 << 14


ctypedef struct Cut:
    uint64_t size
    bint is_hole


cdef class Splitter:
    """The state within one file. `limit`: chunks, holes too, have no more bytes."""

    cdef unsigned char window[WINDOW]
    cdef uint32_t s1
    cdef uint32_t s2
    cdef uint32_t at
    cdef uint64_t size         # bytes of the unfinished chunk, without `zeros`
    cdef uint64_t zeros        # zeros at the end of what came
    cdef uint64_t limit
    cdef bint in_hole          # `size` counts a hole
    cdef Cut *cuts             # found by this call
    cdef size_t count
    cdef size_t capacity

    def __cinit__(self, uint64_t limit):
        if limit < HOLE:
            raise ValueError(f"limit: wanted at least {HOLE}, got {limit}")
        self.limit = limit
        self.capacity = 64
        self.cuts = <Cut *> malloc(self.capacity * sizeof(Cut))
        if self.cuts == NULL:
            raise MemoryError
        self.restart()

    def __dealloc__(self):
        free(self.cuts)

    cdef void restart(self) noexcept nogil:
        self.reset_sum()
        self.size = 0
        self.zeros = 0
        self.in_hole = False

    cdef void reset_sum(self) noexcept nogil:
        memset(self.window, 0, WINDOW)
        self.s1 = WINDOW * CHAR_OFFSET
        self.s2 = WINDOW * (WINDOW - 1) * CHAR_OFFSET
        self.at = 0

    cdef inline bint roll(self, uint32_t new) noexcept nogil:
        """One byte into the sum; whether a chunk ends behind it."""
        cdef uint32_t old = self.window[self.at]
        self.s1 += new - old
        self.s2 += self.s1 - WINDOW * (old + CHAR_OFFSET)
        self.window[self.at] = <unsigned char> new
        self.at = (self.at + 1) & (WINDOW - 1)
        return (self.s2 & SPLIT_MASK) == SPLIT_MASK

    cdef bint cut(self, uint64_t size, bint is_hole) noexcept nogil:
        """A chunk is complete. False: no memory."""
        cdef Cut *grown
        if self.count == self.capacity:
            grown = <Cut *> realloc(self.cuts, 2 * self.capacity * sizeof(Cut))
            if grown == NULL:
                return False
            self.cuts = grown
            self.capacity *= 2
        self.cuts[self.count].size = size
        self.cuts[self.count].is_hole = is_hole
        self.count += 1
        return True

    cdef bint flush_zeros(self) noexcept nogil:
        """Too few zeros for a hole are data. False: no memory."""
        cdef bint ended
        while self.zeros:
            self.zeros -= 1
            self.size += 1
            ended = self.roll(0)
            if ended or self.size == self.limit:
                if not self.cut(self.size, False):
                    return False
                self.size = 0
        return True

    cdef bint take(self, const unsigned char *here, const unsigned char *end) noexcept nogil:
        """More of the file. False: no memory."""
        cdef const unsigned char *mark
        cdef uint64_t room
        cdef bint ended
        while here < end:
            mark = here
            if self.in_hole:
                while here < end and here[0] == 0:
                    here += 1
                self.size += here - mark
                while self.size >= self.limit:
                    if not self.cut(self.limit, True):
                        return False
                    self.size -= self.limit
                if here < end:
                    if self.size and not self.cut(self.size, True):
                        return False
                    self.size = 0
                    self.in_hole = False
            elif here[0] == 0:
                while here < end and here[0] == 0 and self.zeros < HOLE:
                    self.zeros += 1
                    here += 1
                if self.zeros == HOLE:
                    if self.size and not self.cut(self.size, False):
                        return False
                    # So many zeros leave the sum as it is at the start of a file.
                    self.reset_sum()
                    self.size = HOLE
                    self.zeros = 0
                    self.in_hole = True
                elif here < end and not self.flush_zeros():
                    return False
            else:
                room = self.limit - self.size
                if <uint64_t> (end - here) < room:
                    room = end - here
                ended = False
                while not ended and here < mark + room and here[0] != 0:
                    ended = self.roll(here[0])
                    here += 1
                self.size += here - mark
                if ended or self.size == self.limit:
                    if not self.cut(self.size, False):
                        return False
                    self.size = 0
        return True

    cdef list found(self, bint good):
        cdef size_t i, count = self.count
        self.count = 0
        if not good:
            raise MemoryError
        return [(self.cuts[i].size, bool(self.cuts[i].is_hole)) for i in range(count)]

    def feed(self, data):
        cdef Py_buffer view
        cdef const unsigned char *start
        cdef bint good
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            start = <const unsigned char *> view.buf
            if view.len < RELEASE:
                good = self.take(start, start + view.len)
            else:
                with nogil:
                    good = self.take(start, start + view.len)
            return self.found(good)
        finally:
            PyBuffer_Release(&view)

    def finish(self):
        cdef bint good = True
        if not self.in_hole:
            good = self.flush_zeros()
        if good and self.size:
            good = self.cut(self.size, self.in_hole)
        self.restart()
        return self.found(good)


cdef uint64_t _TABLE[8][256]


cdef void _fill_table() noexcept:
    cdef uint64_t value
    cdef int i, k
    for i in range(256):
        value = i
        for k in range(8):
            value = value >> 1 ^ (<uint64_t> 0xD800000000000000 if value & 1 else 0)
        _TABLE[0][i] = value
    for i in range(256):
        for k in range(1, 8):
            _TABLE[k][i] = _TABLE[k - 1][i] >> 8 ^ _TABLE[0][_TABLE[k - 1][i] & 0xFF]


_fill_table()


cdef uint64_t _crc64(const unsigned char *data, size_t size, uint64_t crc) noexcept nogil:
    crc = ~crc
    while size >= 8:
        crc ^= (<uint64_t> data[0] | <uint64_t> data[1] << 8 | <uint64_t> data[2] << 16 | <uint64_t> data[3] << 24
                | <uint64_t> data[4] << 32 | <uint64_t> data[5] << 40 | <uint64_t> data[6] << 48
                | <uint64_t> data[7] << 56)
        crc = (_TABLE[7][crc & 0xFF] ^ _TABLE[6][crc >> 8 & 0xFF] ^ _TABLE[5][crc >> 16 & 0xFF]
               ^ _TABLE[4][crc >> 24 & 0xFF] ^ _TABLE[3][crc >> 32 & 0xFF] ^ _TABLE[2][crc >> 40 & 0xFF]
               ^ _TABLE[1][crc >> 48 & 0xFF] ^ _TABLE[0][crc >> 56])
        data += 8
        size -= 8
    while size:
        crc = _TABLE[0][(crc ^ data[0]) & 0xFF] ^ crc >> 8
        data += 1
        size -= 1
    return ~crc


def crc64(data, uint64_t crc=0):
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if view.len < RELEASE:
            return _crc64(<const unsigned char *> view.buf, view.len, crc)
        with nogil:
            crc = _crc64(<const unsigned char *> view.buf, view.len, crc)
        return crc
    finally:
        PyBuffer_Release(&view)
