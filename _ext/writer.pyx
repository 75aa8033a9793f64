"""Compress pieces of a tar into gzip members and zstd frames.

Each piece becomes a member or frame that decompresses alone, so how pieces are put together into calls changes no
byte of the result.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdlib cimport calloc, free, malloc, realloc

from _ext.codecs_write cimport *

cdef enum:
    CODEC_GZIP = 2
    CODEC_ZSTD = 4
    GZIP_MAX_LEVEL = 12
    ZSTD_MAX_LEVEL = 22


cdef class _Engine:
    """One library context of one level, and the buffer it writes into."""

    cdef int codec
    cdef int level
    cdef libdeflate_compressor *deflate
    cdef ZSTD_CCtx *zstd
    cdef unsigned char *out
    cdef size_t capacity
    cdef size_t used

    def __cinit__(self, int codec, int level):
        if codec == CODEC_GZIP:
            if not 1 <= level <= GZIP_MAX_LEVEL:
                raise ValueError(f"level: wanted 1 to {GZIP_MAX_LEVEL}, got {level}")
            self.deflate = libdeflate_alloc_compressor(level)
            if self.deflate == NULL:
                raise MemoryError
        elif codec == CODEC_ZSTD:
            if not 1 <= level <= ZSTD_MAX_LEVEL:
                raise ValueError(f"level: wanted 1 to {ZSTD_MAX_LEVEL}, got {level}")
            self.zstd = ZSTD_createCCtx()
            if self.zstd == NULL:
                raise MemoryError
            if (ZSTD_isError(ZSTD_CCtx_setParameter(self.zstd, ZSTD_c_compressionLevel, level))
                    or ZSTD_isError(ZSTD_CCtx_setParameter(self.zstd, ZSTD_c_checksumFlag, 1))):
                raise MemoryError
        else:
            raise ValueError(f"codec: wanted 2 (gzip) or 4 (zstd), got {codec}")
        self.codec = codec
        self.level = level

    def __dealloc__(self):
        if self.deflate != NULL:
            libdeflate_free_compressor(self.deflate)
        if self.zstd != NULL:
            ZSTD_freeCCtx(self.zstd)
        free(self.out)

    cdef bint reserve(self, size_t more) noexcept nogil:
        """Room for `more` bytes behind those used. False: no memory."""
        cdef size_t wanted = self.used + more
        cdef unsigned char *grown
        if wanted <= self.capacity:
            return True
        wanted += wanted >> 2
        grown = <unsigned char *> realloc(self.out, wanted)
        if grown == NULL:
            return False
        self.out = grown
        self.capacity = wanted
        return True

    cdef size_t add(self, const unsigned char *data, size_t size) noexcept nogil:
        """Append one member or frame; its bytes, 0: no memory."""
        cdef size_t got
        if self.codec == CODEC_GZIP:
            if not self.reserve(libdeflate_gzip_compress_bound(self.deflate, size)):
                return 0
            got = libdeflate_gzip_compress(self.deflate, data, size, self.out + self.used, self.capacity - self.used)
        else:
            if not self.reserve(ZSTD_compressBound(size)):
                return 0
            got = ZSTD_compress2(self.zstd, self.out + self.used, self.capacity - self.used, data, size)
            if ZSTD_isError(got):
                return 0
        self.used += got
        return got


# A context takes longer to make than a small piece to compress. Appending to and popping from a list is atomic.
cdef dict _SPARE = {}
cdef enum:
    SPARE_KEPT = 16
    OUT_KEPT = 1 << 23


cdef _Engine _take(int codec, int level):
    try:
        return (<list> _SPARE[codec, level]).pop()
    except (KeyError, IndexError):
        return _Engine(codec, level)


cdef _give_back(_Engine engine):
    cdef list spare = _SPARE.setdefault((engine.codec, engine.level), [])
    if engine.capacity > OUT_KEPT:
        free(engine.out)
        engine.out = NULL
        engine.capacity = 0
    engine.used = 0
    if len(spare) < SPARE_KEPT:
        spare.append(engine)


def compress_pieces(int codec, int level, span, list ends):
    cdef _Engine engine = _take(codec, level)
    cdef Py_buffer view
    cdef size_t count = len(ends), i, start = 0
    cdef size_t *places = <size_t *> calloc(max(count, <size_t> 1), sizeof(size_t))
    cdef bint failed = False
    if places == NULL:
        raise MemoryError
    try:
        PyObject_GetBuffer(span, &view, PyBUF_SIMPLE)
        try:
            for i in range(count):
                places[i] = ends[i]
                if not start < places[i] <= <size_t> view.len:
                    raise ValueError(f"piece {i}: wanted an end in {start + 1} to {view.len}, got {places[i]}")
                start = places[i]
            start = 0
            with nogil:
                for i in range(count):
                    # In place: the end of the input piece makes room for the size of the output piece.
                    failed = not _one(engine, <const unsigned char *> view.buf, &start, &places[i])
                    if failed:
                        break
            if failed:
                raise MemoryError
            packed = PyBytes_FromStringAndSize(<char *> engine.out, engine.used)
            return packed, [places[i] for i in range(count)]
        finally:
            PyBuffer_Release(&view)
    finally:
        free(places)
        _give_back(engine)


cdef bint _one(_Engine engine, const unsigned char *data, size_t *start, size_t *place) noexcept nogil:
    cdef size_t end = place[0]
    place[0] = engine.add(data + start[0], end - start[0])
    start[0] = end
    return place[0] != 0


cdef class FrameStream:
    """One zstd frame, compressed as its content comes."""

    cdef ZSTD_CCtx *zstd
    cdef bint ended

    def __cinit__(self, int level):
        if not 1 <= level <= ZSTD_MAX_LEVEL:
            raise ValueError(f"level: wanted 1 to {ZSTD_MAX_LEVEL}, got {level}")
        self.zstd = ZSTD_createCCtx()
        if self.zstd == NULL:
            raise MemoryError
        if (ZSTD_isError(ZSTD_CCtx_setParameter(self.zstd, ZSTD_c_compressionLevel, level))
                or ZSTD_isError(ZSTD_CCtx_setParameter(self.zstd, ZSTD_c_checksumFlag, 1))):
            raise MemoryError

    def __dealloc__(self):
        if self.zstd != NULL:
            ZSTD_freeCCtx(self.zstd)

    def feed(self, data, bint last=False):
        cdef Py_buffer view
        cdef ZSTD_inBuffer source
        cdef ZSTD_outBuffer target
        cdef bint good
        if self.ended:
            raise ValueError("the frame has ended")
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        target.size = ZSTD_compressBound(view.len) + (1 << 18)
        target.pos = 0
        target.dst = malloc(target.size)
        try:
            if target.dst == NULL:
                raise MemoryError
            source.src = view.buf
            source.size = view.len
            source.pos = 0
            self.ended = last
            with nogil:
                good = _stream(self.zstd, &target, &source, ZSTD_e_end if last else ZSTD_e_continue)
            if not good:
                raise MemoryError
            return PyBytes_FromStringAndSize(<char *> target.dst, target.pos)
        finally:
            free(target.dst)
            PyBuffer_Release(&view)


cdef bint _stream(
    ZSTD_CCtx *zstd, ZSTD_outBuffer *target, ZSTD_inBuffer *source, ZSTD_EndDirective how,
) noexcept nogil:
    """False: no memory, or more output than the buffer was made for."""
    cdef size_t left = 1
    while source.pos < source.size or (how == ZSTD_e_end and left):
        left = ZSTD_compressStream2(zstd, target, source, how)
        if ZSTD_isError(left) or (target.pos == target.size and (left or source.pos < source.size)):
            return False
    return True
