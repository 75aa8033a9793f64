"""Where podman cuts the content of a file: at a rolling sum, at runs of zeros (containers/storage, pkg/chunked).

The sum is bup's: a window of 64 bytes, `s1` the sum of its bytes, `s2` the sum of all s1 (both offset by 31 per
byte). A chunk ends behind a byte after which the low 16 bits of s2 are all ones, so chunks have 64 KiB on average.
A run of at least 1024 zeros is a chunk of its own. CRC-64 (ECMA-182 calls it ISO 3309) is tar-split's checksum.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

cdef enum:
    WINDOW = 64
    CHAR_OFFSET = 31
    SPLIT_MASK = 0xFFFF
    HOLE = 1024


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

    def __cinit__(self, uint64_t limit):
        if limit < HOLE:
            raise ValueError(f"limit: wanted at least {HOLE}, got {limit}")
        self.limit = limit
        self.restart()

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

    cdef int data_byte(self, uint32_t byte, list found) except -1:
        self.size += 1
        if self.roll(byte) or self.size == self.limit:
            found.append((self.size, False))
            self.size = 0
        return 0

    cdef int flush_zeros(self, list found) except -1:
        """Too few zeros for a hole are data."""
        while self.zeros:
            self.zeros -= 1
            self.data_byte(0, found)
        return 0

    def feed(self, data):
        cdef Py_buffer view
        cdef const unsigned char *here
        cdef const unsigned char *end
        cdef const unsigned char *mark
        cdef list found = []
        cdef uint64_t room
        cdef bint cut
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            here = <const unsigned char *> view.buf
            end = here + view.len
            while here < end:
                if self.in_hole:
                    mark = here
                    with nogil:
                        while here < end and here[0] == 0:
                            here += 1
                    self.size += here - mark
                    while self.size >= self.limit:
                        found.append((self.limit, True))
                        self.size -= self.limit
                    if here < end:
                        if self.size:
                            found.append((self.size, True))
                        self.size = 0
                        self.in_hole = False
                elif here[0] == 0:
                    mark = here
                    while here < end and here[0] == 0 and self.zeros < HOLE:
                        self.zeros += 1
                        here += 1
                    if self.zeros == HOLE:
                        if self.size:
                            found.append((self.size, False))
                        # So many zeros leave the sum as it is at the start of a file.
                        self.reset_sum()
                        self.size = HOLE
                        self.zeros = 0
                        self.in_hole = True
                    elif here < end:
                        self.flush_zeros(found)
                else:
                    mark = here
                    room = self.limit - self.size
                    if <uint64_t> (end - here) < room:
                        room = end - here
                    cut = False
                    with nogil:
                        while not cut and here < mark + room and here[0] != 0:
                            cut = self.roll(here[0])
                            here += 1
                    self.size += here - mark
                    if cut or self.size == self.limit:
                        found.append((self.size, False))
                        self.size = 0
            return found
        finally:
            PyBuffer_Release(&view)

    def finish(self):
        cdef list found = []
        if self.in_hole:
            if self.size:
                found.append((self.size, True))
        else:
            self.flush_zeros(found)
            if self.size:
                found.append((self.size, False))
        self.restart()
        return found


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
        with nogil:
            crc = _crc64(<const unsigned char *> view.buf, view.len, crc)
        return crc
    finally:
        PyBuffer_Release(&view)
