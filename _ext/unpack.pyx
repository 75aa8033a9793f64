"""Decompress a whole stream of gzip members or zstd frames as it comes."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from _ext.codecs cimport *

cdef enum:
    CODEC_GZIP = 2
    CODEC_ZSTD = 4
    WINDOW_LOG_MAX = 27

ctypedef enum State:
    BETWEEN      # members or frames
    INSIDE


cdef class Unpacker:
    """One stream. After an error it is of no use any more."""

    cdef int codec
    cdef z_stream gzip
    cdef bint started
    cdef ZSTD_DCtx *zstd
    cdef State state
    cdef bint padding           # of gzip: zeros after the last member
    cdef object rest            # input that is not consumed yet

    def __cinit__(self, int codec):
        memset(&self.gzip, 0, sizeof(z_stream))
        self.codec = codec
        self.rest = b""
        if codec == CODEC_GZIP:
            if inflateInit2(&self.gzip, 31) != Z_OK:
                raise MemoryError
            self.started = True
        elif codec == CODEC_ZSTD:
            self.zstd = ZSTD_createDCtx()
            if self.zstd == NULL or ZSTD_isError(ZSTD_DCtx_setParameter(self.zstd, ZSTD_d_windowLogMax, WINDOW_LOG_MAX)):
                raise MemoryError
        else:
            raise ValueError(f"codec: wanted 2 (gzip) or 4 (zstd), got {codec}")

    def __dealloc__(self):
        if self.started:
            inflateEnd(&self.gzip)
        if self.zstd != NULL:
            ZSTD_freeDCtx(self.zstd)

    @property
    def complete(self):
        return self.state == BETWEEN and not self.rest

    @property
    def hungry(self):
        return not self.rest

    def feed(self, data, size_t size):
        cdef Py_buffer view
        cdef size_t taken = 0, given = 0
        cdef bint good
        cdef unsigned char *out
        if self.rest:
            raise ValueError("there is input left")
        if size == 0:
            raise ValueError("size: wanted at least 1, got 0")
        out = <unsigned char *> malloc(size)
        if out == NULL:
            raise MemoryError
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            with nogil:
                good = self.run(<const unsigned char *> view.buf, view.len, out, size, &taken, &given)
            if not good:
                raise ValueError("the compressed stream is corrupt")
            # A full buffer may hide more output that needs no more input.
            if given == size or taken < <size_t> view.len:
                self.rest = memoryview(data)[taken:] if taken < <size_t> view.len else b""
            return PyBytes_FromStringAndSize(<char *> out, given)
        finally:
            PyBuffer_Release(&view)
            free(out)

    def more(self, size_t size):
        data = self.rest
        self.rest = b""
        return self.feed(data, size)

    cdef bint run(
        self, const unsigned char *data, size_t size, unsigned char *out, size_t capacity, size_t *taken, size_t *given,
    ) noexcept nogil:
        if self.codec == CODEC_GZIP:
            return self.run_gzip(data, size, out, capacity, taken, given)
        return self.run_zstd(data, size, out, capacity, taken, given)

    cdef bint run_gzip(
        self, const unsigned char *data, size_t size, unsigned char *out, size_t capacity, size_t *taken, size_t *given,
    ) noexcept nogil:
        cdef int status
        cdef size_t step, room
        while given[0] < capacity:
            if self.state == BETWEEN:
                while taken[0] < size and data[taken[0]] == 0 and self.padding:
                    taken[0] += 1
                if taken[0] == size:
                    return True
                if inflateReset(&self.gzip) != Z_OK:
                    return False
                self.state = INSIDE
            step = min(size - taken[0], <size_t> 1 << 30)
            room = min(capacity - given[0], <size_t> 1 << 30)
            self.gzip.next_in = <unsigned char *> data + taken[0]
            self.gzip.avail_in = <unsigned int> step
            self.gzip.next_out = out + given[0]
            self.gzip.avail_out = <unsigned int> room
            status = inflate(&self.gzip, Z_NO_FLUSH)
            taken[0] += step - self.gzip.avail_in
            given[0] += room - self.gzip.avail_out
            if status == Z_STREAM_END:
                self.state = BETWEEN
                self.padding = True
            elif status == Z_BUF_ERROR or (status == Z_OK and self.gzip.avail_out and not self.gzip.avail_in):
                return True
            elif status != Z_OK:
                return False
        return True

    cdef bint run_zstd(
        self, const unsigned char *data, size_t size, unsigned char *out, size_t capacity, size_t *taken, size_t *given,
    ) noexcept nogil:
        cdef ZSTD_inBuffer source
        cdef ZSTD_outBuffer target
        cdef size_t hint, before_in, before_out
        source.src = data
        source.size = size
        source.pos = 0
        target.dst = out
        target.size = capacity
        target.pos = 0
        while target.pos < target.size:
            before_in = source.pos
            before_out = target.pos
            hint = ZSTD_decompressStream(self.zstd, &target, &source)
            if ZSTD_isError(hint):
                return False
            if source.pos != before_in or target.pos != before_out:
                self.state = BETWEEN if hint == 0 else INSIDE
            if source.pos == source.size and (target.pos < target.size):
                break
        taken[0] = source.pos
        given[0] = target.pos
        return True
