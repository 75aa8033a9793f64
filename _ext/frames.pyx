# distutils: libraries = crypto
"""Decode pieces of a layer blob (gzip members, zstd frames) into buffers of known size, and hash what came out.

A piece is the bytes of a blob from one chunk's offset to the next. It decompresses to at least
``inner_offset + size`` bytes, of which the last ``size`` are the chunk; what follows (tar padding, the next
tar header, other payloads) is of no interest. Two ways lead there:

- at once: the whole piece in one library call, where its decompressed size can be told beforehand
  (gzip: ISIZE, RFC 1952 section 2.3.1; zstd: Frame_Content_Size, RFC 8878 section 3.1.1.1.4) and is near the wanted one;
- as a stream that stops when the chunk is complete.

A failure of the first is never reported: the stream then decides, so that results and errors do not depend on
which way was taken. Nothing is written beyond the announced sizes, whatever the piece says.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free, malloc, qsort
from libc.string cimport memcmp, memcpy, memmove

from _ext.codecs cimport *
from _ext.evp cimport *
from _ext.piece_stream cimport *

cdef extern from "Python.h":
    PyObject *_new_bytes "PyBytes_FromStringAndSize"(const char *, Py_ssize_t) except NULL
    int _PyBytes_Resize(PyObject **, Py_ssize_t) except -1
    void Py_DECREF(PyObject *)
    char *_bytes_data "PyBytes_AS_STRING"(PyObject *)

cdef enum:
    # How much more than the wanted bytes a piece may hold and still be decoded at once.
    SLACK = 1 << 20
    # The same for zstd frames that do not tell their size: padding and a few tar headers.
    SLACK_UNTOLD = 1 << 17
    # Above this a piece with other content around the chunk goes the way of the stream, in constant memory.
    SCRATCH_LIMIT = 1 << 26
    # What a workspace keeps between calls, and how many of them are kept per codec.
    SCRATCH_KEPT = 1 << 20
    WORKSPACES_KEPT = 4

ctypedef struct Job:
    size_t piece_offset       # in the span
    size_t piece_size
    uint64_t inner_offset     # in the decompressed piece
    size_t size
    unsigned char *out        # `size` bytes
    unsigned char wanted[32]
    unsigned char got[32]
    size_t number             # place in the caller's list
    Status status

# Fetched once: an implicit fetch per digest takes a lock in OpenSSL 3.
cdef EVP_MD *_SHA256 = EVP_MD_fetch(NULL, b"SHA256", NULL)
if _SHA256 == NULL:
    raise ImportError("libcrypto has no SHA256")


cdef class _Workspace:
    """The libraries' contexts and the scratch buffer of one call."""

    cdef int codec
    cdef PieceStream stream
    cdef libdeflate_decompressor *deflate
    cdef EVP_MD_CTX *digest
    cdef unsigned char *scratch
    cdef size_t scratch_size

    def __cinit__(self, int codec):
        if codec not in (CODEC_GZIP, CODEC_ZSTD):
            raise ValueError(f"codec: wanted 2 (gzip) or 4 (zstd), got {codec}")
        self.codec = codec
        if codec == CODEC_GZIP:
            self.deflate = libdeflate_alloc_decompressor()
            if self.deflate == NULL:
                raise MemoryError
        if not start_codec(&self.stream, codec):
            raise MemoryError
        self.digest = EVP_MD_CTX_new()
        if self.digest == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.deflate != NULL:
            libdeflate_free_decompressor(self.deflate)
        end_codec(&self.stream)
        if self.digest != NULL:
            EVP_MD_CTX_free(self.digest)
        free(self.scratch)

    cdef void trim(self) noexcept:
        """Give back a scratch buffer that is too large to be kept for the next call."""
        if self.scratch_size > SCRATCH_KEPT:
            free(self.scratch)
            self.scratch = NULL
            self.scratch_size = 0

    cdef bint reserve(self, size_t size) noexcept nogil:
        """Make the scratch buffer at least `size` bytes; its content is lost. False: no memory."""
        if self.scratch_size >= size:
            return True
        free(self.scratch)
        self.scratch = NULL
        self.scratch_size = 0
        # Pages that nothing is decoded into are never touched, so an announced size costs no memory by itself.
        self.scratch = <unsigned char *> malloc(size)
        if self.scratch == NULL:
            return False
        self.scratch_size = size
        return True

    cdef bint sha256(self, const unsigned char *data, size_t size, unsigned char *out) noexcept nogil:
        return (
            EVP_DigestInit_ex(self.digest, _SHA256, NULL) == 1
            and EVP_DigestUpdate(self.digest, data, size) == 1
            and EVP_DigestFinal_ex(self.digest, out, NULL) == 1
        )

    # At once -----------------------------------------------------------------------------------------------

    cdef size_t told_size(self, const unsigned char *piece, size_t piece_size) noexcept nogil:
        """What the piece says of its decompressed size: a hint, 0 where it says nothing."""
        cdef unsigned long long content
        if self.codec == CODEC_GZIP:
            if piece_size < 18:
                return 0
            piece += piece_size - 4
            return piece[0] | <size_t> piece[1] << 8 | <size_t> piece[2] << 16 | <size_t> piece[3] << 24
        content = ZSTD_getFrameContentSize(piece, piece_size)
        if content == ZSTD_CONTENTSIZE_UNKNOWN or content == ZSTD_CONTENTSIZE_ERROR:
            return 0
        return <size_t> content

    cdef bint decode_at_once(
        self, const unsigned char *piece, size_t piece_size, size_t needed, bint exact,
        unsigned char *out, size_t capacity,
    ) noexcept nogil:
        """Whole members or frames until `needed` bytes are there (`exact`: exactly these and no more input)."""
        cdef size_t position = 0, produced = 0, taken = 0, given = 0
        while position < piece_size and (exact or produced < needed):
            if self.codec == CODEC_GZIP:
                # libdeflate does not look at a checksum of the header (FHCRC), zlib does.
                if piece_size - position < 18 or piece[position + 3] & 2:
                    return False
                if libdeflate_gzip_decompress_ex(
                    self.deflate, piece + position, piece_size - position,
                    out + produced, capacity - produced, &taken, &given,
                ) != LIBDEFLATE_SUCCESS:
                    return False
            else:
                if not is_frame(piece + position, piece_size - position):
                    return False
                taken = ZSTD_findFrameCompressedSize(piece + position, piece_size - position)
                if ZSTD_isError(taken):
                    return False
                given = ZSTD_decompressDCtx(
                    self.stream.zstd, out + produced, capacity - produced, piece + position, taken)
                if ZSTD_isError(given):
                    return False
            position += taken
            produced += given
        return produced == needed if exact else produced >= needed

    # Chunks of one piece -----------------------------------------------------------------------------------

    cdef void decode_piece(
        self, const unsigned char *piece, size_t piece_size, Job *jobs, size_t count,
    ) noexcept nogil:
        """All chunks of one piece, ascending by inner offset."""
        cdef uint64_t needed = 0
        cdef size_t told = self.told_size(piece, piece_size)
        cdef size_t capacity = 0
        cdef size_t i
        for i in range(count):
            needed = max(needed, jobs[i].inner_offset + jobs[i].size)
        if count == 1 and told == needed and jobs[0].inner_offset == 0:
            # Usual for podman's frames: one chunk, nothing around it.
            if self.decode_at_once(piece, piece_size, told, False, jobs[0].out, told):
                jobs[0].status = STATUS_OK
                return
        elif needed <= told <= needed + SLACK:
            capacity = told
        elif self.codec == CODEC_ZSTD and (told == 0 or told < needed):
            capacity = needed + SLACK_UNTOLD
        if 0 < capacity <= SCRATCH_LIMIT and self.reserve(capacity):
            if self.decode_at_once(piece, piece_size, needed, False, self.scratch, capacity):
                for i in range(count):
                    memcpy(jobs[i].out, self.scratch + jobs[i].inner_offset, jobs[i].size)
                    jobs[i].status = STATUS_OK
                return
        self.decode_stream(piece, piece_size, jobs, count)

    cdef void decode_stream(
        self, const unsigned char *piece, size_t piece_size, Job *jobs, size_t count,
    ) noexcept nogil:
        cdef size_t i
        open_stream(&self.stream, piece, piece_size)
        for i in range(count):
            if not self.reserve(DISCARD):
                jobs[i].status = STATUS_NO_MEMORY
                continue
            if (jobs[i].inner_offset < self.stream.produced
                    or jobs[i].inner_offset + jobs[i].size <= self.stream.produced):
                # Overlaps the chunk before it: only a hostile TOC does that.
                open_stream(&self.stream, piece, piece_size)
            jobs[i].status = skip_to(&self.stream, jobs[i].inner_offset, self.scratch)
            if jobs[i].status == STATUS_OK:
                jobs[i].status = read_stream(&self.stream, jobs[i].out, jobs[i].size)

    cdef void decode_jobs(self, const unsigned char *span, Job *jobs, size_t count) noexcept nogil:
        """Decode and verify jobs that are sorted by piece and inner offset."""
        cdef size_t first = 0, end, i
        while first < count:
            end = first + 1
            while (end < count and jobs[end].piece_offset == jobs[first].piece_offset
                   and jobs[end].piece_size == jobs[first].piece_size):
                end += 1
            self.decode_piece(span + jobs[first].piece_offset, jobs[first].piece_size, jobs + first, end - first)
            for i in range(first, end):
                if jobs[i].status == STATUS_OK:
                    if not self.sha256(jobs[i].out, jobs[i].size, jobs[i].got):
                        jobs[i].status = STATUS_NO_MEMORY
                    elif memcmp(jobs[i].got, jobs[i].wanted, 32) != 0:
                        jobs[i].status = STATUS_MISMATCH
            first = end


# Contexts take longer to make than a small chunk to decode. Appending to and popping from a list is atomic.
cdef dict _SPARE = {CODEC_GZIP: [], CODEC_ZSTD: []}


cdef _Workspace _take_workspace(int codec):
    try:
        return (<list> _SPARE[codec]).pop()
    except (KeyError, IndexError):
        return _Workspace(codec)


cdef void _give_back(_Workspace work):
    cdef list spare = _SPARE[work.codec]
    if len(spare) < WORKSPACES_KEPT:
        work.trim()
        spare.append(work)


cdef class _Jobs:
    """Owns the jobs of one call."""

    cdef Job *items

    def __cinit__(self, size_t count):
        self.items = <Job *> calloc(max(count, <size_t> 1), sizeof(Job))
        if self.items == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.items)


cdef int _compare_jobs(const void *left, const void *right) noexcept nogil:
    cdef const Job *a = <const Job *> left
    cdef const Job *b = <const Job *> right
    if a.piece_offset != b.piece_offset:
        return -1 if a.piece_offset < b.piece_offset else 1
    if a.piece_size != b.piece_size:
        return -1 if a.piece_size < b.piece_size else 1
    if a.inner_offset != b.inner_offset:
        return -1 if a.inner_offset < b.inner_offset else 1
    return 0


def decode_into(int codec, piece, uint64_t inner_offset, out):
    cdef _Workspace work = _take_workspace(codec)
    cdef Py_buffer source, target
    cdef Job job
    PyObject_GetBuffer(piece, &source, PyBUF_SIMPLE)
    try:
        PyObject_GetBuffer(out, &target, PyBUF_WRITABLE)
        try:
            if inner_offset > (<uint64_t> 1 << 62):
                raise ValueError(f"inner_offset: wanted at most 2**62, got {inner_offset}")
            job.inner_offset = inner_offset
            job.size = target.len
            job.out = <unsigned char *> target.buf
            with nogil:
                work.decode_piece(<const unsigned char *> source.buf, source.len, &job, 1)
            _give_back(work)
            return <int> job.status
        finally:
            PyBuffer_Release(&target)
    finally:
        PyBuffer_Release(&source)


def decode_many(int codec, span, jobs):
    cdef _Workspace work = _take_workspace(codec)
    cdef size_t count = len(jobs), number = 0
    cdef _Jobs table = _Jobs(count)
    cdef Job *job
    cdef Py_buffer view
    cdef list payloads = [], results
    PyObject_GetBuffer(span, &view, PyBUF_SIMPLE)
    try:
        for piece_offset, piece_size, inner_offset, size, digest in jobs:
            if number == count:
                raise ValueError("jobs: grew while they were read")
            job = &table.items[number]
            job.piece_offset = piece_offset
            job.piece_size = piece_size
            job.inner_offset = inner_offset
            job.size = size
            job.number = number
            if job.piece_offset > <size_t> view.len or job.piece_size > <size_t> view.len - job.piece_offset:
                raise ValueError(
                    f"job {number}: wanted a piece inside the span of {view.len} bytes, "
                    f"got {piece_offset} + {piece_size}"
                )
            if job.inner_offset > (<uint64_t> 1 << 62):
                raise ValueError(f"job {number}: inner_offset: wanted at most 2**62, got {inner_offset}")
            if not isinstance(digest, bytes) or len(digest) != 32:
                raise ValueError(f"job {number}: wanted a digest of 32 bytes")
            memcpy(job.wanted, PyBytes_AS_STRING(digest), 32)
            # Filled below before anyone else can see it, which the C API allows for a new bytes object.
            payload = PyBytes_FromStringAndSize(NULL, size)
            payloads.append(payload)
            job.out = <unsigned char *> PyBytes_AS_STRING(payload)
            number += 1
        count = number
        with nogil:
            qsort(table.items, count, sizeof(Job), _compare_jobs)
            work.decode_jobs(<const unsigned char *> view.buf, table.items, count)
        results = [None] * <Py_ssize_t> count
        for number in range(count):
            job = &table.items[number]
            if job.status == STATUS_OK:
                payload = payloads[job.number]
            elif job.status == STATUS_MISMATCH:
                payload = PyBytes_FromStringAndSize(<char *> job.got, 32)
            else:
                payload = b""
            results[job.number] = (<int> job.status, payload)
        _give_back(work)
        return results
    finally:
        PyBuffer_Release(&view)


def decode_document(int codec, data, size_t skip, size_t size, bint exact):
    cdef _Workspace work = _take_workspace(codec)
    cdef Py_buffer view
    cdef Status status = STATUS_OK
    cdef size_t needed = skip + size, capacity, told
    cdef PyObject *out = NULL
    cdef unsigned char *target
    cdef const unsigned char *source
    cdef bint done
    if needed < size or needed > <size_t> 1 << 62:
        raise ValueError(f"document: wanted at most 2**62 bytes, got {skip} + {size}")
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        source = <const unsigned char *> view.buf
        told = work.told_size(source, view.len)
        # Room for the prefix and what follows as well, so that a large document is moved, not copied.
        capacity = told if not exact and needed <= told <= needed + SLACK else needed
        out = _new_bytes(NULL, capacity)
        target = <unsigned char *> _bytes_data(out)
        with nogil:
            done = work.decode_at_once(source, view.len, needed, exact, target, capacity)
            if done:
                if skip:
                    memmove(target, target + skip, size)
            elif not work.reserve(DISCARD):
                status = STATUS_NO_MEMORY
            else:
                open_stream(&work.stream, source, view.len)
                status = skip_to(&work.stream, skip, work.scratch)
                if status == STATUS_OK:
                    status = read_stream(&work.stream, target, size)
                if status == STATUS_OK and exact:
                    status = STATUS_TRAILING
        _give_back(work)
        if status != STATUS_OK:
            return <int> status, b""
        if capacity != size:
            _PyBytes_Resize(&out, size)
        result = <object> out
        return 0, result
    finally:
        if out != NULL:
            Py_DECREF(out)
        PyBuffer_Release(&view)
