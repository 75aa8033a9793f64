"""READ from a layer's content file, where every chunk that it touches was verified."""

from libc.errno cimport EAGAIN, EINTR, EINVAL, EIO, EOPNOTSUPP, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from index_view cimport chunk_at, chunks_fit, is_type
from lane_layer cimport Layer
from toc_layout cimport TYPE_REGULAR, Inode

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len
    ssize_t preadv2(int fd, const iovec *parts, int count, int64_t offset, int flags)
    const int RWF_NOWAIT

cdef extern from * nogil:
    """
    #define load_generation(state) __atomic_load_n((const uint64_t *)(state), __ATOMIC_ACQUIRE)
    #define load_byte(place) __atomic_load_n((place), __ATOMIC_ACQUIRE)
    #define touch_byte(place) __atomic_store_n((place), 1, __ATOMIC_RELAXED)
    """
    uint64_t load_generation(const uint8_t *state)
    uint8_t load_byte(const uint8_t *place)
    void touch_byte(uint8_t *place)

cdef enum:
    # Below every errno.
    MISSING = -100001            # a chunk is not here, or was taken away meanwhile: Python must bring it
    BLOCKS = -100002             # the disk would have to be waited for


cdef inline bint all_verified(const Layer *layer, const Inode *inode, uint64_t offset, uint64_t end) noexcept nogil:
    """Of the chunks that bytes `offset` to `end` (exclusive) of the file lie in."""
    cdef uint64_t number = chunk_at(&layer.index, inode, offset)
    cdef uint64_t behind = <uint64_t>inode.first + inode.count
    while True:
        if not load_byte(layer.verified + (number >> 3)) & (1 << (number & 7)):
            return False
        touch_byte(layer.touched + (number >> 3))
        number += 1
        if number >= behind or layer.index.chunks[number].content_offset - inode.data >= end:
            return True


cdef inline int64_t read_content(
    const Layer *layer, const Inode *inode, uint64_t offset, uint32_t size, bint wait, char *out
) noexcept nogil:
    """Bytes read, MISSING, BLOCKS (never with `wait`) or an errno below zero; `out` has room for `size` bytes.

    Whoever evicts a chunk clears its bit, then raises the generation, then gives the space back: what was read
    while the generation stayed the same was there.
    """
    cdef uint64_t generation, place
    cdef size_t length, got = 0
    cdef ssize_t step
    cdef iovec part
    if not is_type(inode, TYPE_REGULAR):
        return -EINVAL
    if offset >= inode.size or size == 0:
        return 0
    length = <size_t>min(<uint64_t>size, inode.size - offset)
    if inode.count == 0 or not chunks_fit(&layer.index, inode):
        return -EIO
    generation = load_generation(layer.state)
    if not all_verified(layer, inode, offset, offset + length):
        return MISSING
    place = inode.data + offset
    while got < length:
        part.iov_base, part.iov_len = out + got, length - got
        step = preadv2(layer.content, &part, 1, <int64_t>(place + got), 0 if wait else RWF_NOWAIT)
        if step < 0:
            if errno == EINTR:
                continue
            if not wait and (errno == EAGAIN or errno == EOPNOTSUPP):
                return BLOCKS
            return MISSING       # Python finds the damage and fetches the chunk again
        if step == 0:
            return MISSING       # the file was cut off
        got += <size_t>step
        if got < length and not wait:
            return BLOCKS
    return <int64_t>length if load_generation(layer.state) == generation else MISSING
