"""sha256 of many spans of one buffer, in one call and without the GIL."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdlib cimport free, malloc

from _ext.evp cimport *

cdef enum:
    DIGEST_SIZE = 32

ctypedef struct Span:
    size_t offset
    size_t size

# Fetched once: an implicit fetch per digest takes a lock in OpenSSL 3.
cdef EVP_MD *_SHA256 = EVP_MD_fetch(NULL, b"SHA256", NULL)
if _SHA256 == NULL:
    raise ImportError("libcrypto has no SHA256")


cdef class _Spans:
    """Owns the spans and the digest context of one call."""

    cdef Span *items
    cdef EVP_MD_CTX *context

    def __cinit__(self, size_t count):
        self.items = <Span *> malloc(max(count, <size_t> 1) * sizeof(Span))
        if self.items == NULL:
            raise MemoryError
        self.context = EVP_MD_CTX_new()
        if self.context == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.items)
        if self.context != NULL:
            EVP_MD_CTX_free(self.context)


cdef bint _digest_all(
    EVP_MD_CTX *context, const unsigned char *data, const Span *spans, size_t count, unsigned char *out,
) noexcept nogil:
    cdef size_t i
    for i in range(count):
        if not (
            EVP_DigestInit_ex(context, _SHA256, NULL) == 1
            and EVP_DigestUpdate(context, data + spans[i].offset, spans[i].size) == 1
            and EVP_DigestFinal_ex(context, out + i * DIGEST_SIZE, NULL) == 1
        ):
            return False
    return True


def sha256_spans(data, spans):
    cdef size_t count = len(spans), number = 0
    cdef _Spans table = _Spans(count)
    cdef Py_buffer view
    cdef unsigned char *out
    cdef bint done
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        for offset, size in spans:
            if number == count:
                raise ValueError("spans: grew while they were read")
            table.items[number].offset = offset
            table.items[number].size = size
            if (table.items[number].offset > <size_t> view.len
                    or table.items[number].size > <size_t> view.len - table.items[number].offset):
                raise ValueError(
                    f"span {number}: wanted it inside the buffer of {view.len} bytes, got {offset} + {size}"
                )
            number += 1
        # New and unseen, so it may be filled in place.
        sums = PyBytes_FromStringAndSize(NULL, number * DIGEST_SIZE)
        out = <unsigned char *> PyBytes_AS_STRING(sums)
        with nogil:
            done = _digest_all(table.context, <const unsigned char *> view.buf, table.items, number, out)
        if not done:
            raise MemoryError("sha256: libcrypto failed")
        return sums
    finally:
        PyBuffer_Release(&view)
