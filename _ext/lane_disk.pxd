"""Reads that must wait for the disk: jobs for threads that may."""

from libc.errno cimport EINTR, errno
from libc.stdint cimport int64_t, uint32_t, uint64_t

from fuse_wire cimport fuse_in_header, fuse_read_in
from lane_content cimport MISSING, read_content
from lane_layer cimport Layer, inode_of
from lane_state cimport *

cdef struct Job:                 # a read that must wait for the disk
    Layer *layer
    uint64_t unique
    uint64_t node
    uint64_t offset
    uint32_t size
    uint32_t pid

cdef inline bint send_to_disk(State *state, Layer *layer, const char *request) noexcept nogil:
    """Leave a read to a thread that may wait; False: they have enough to do."""
    cdef const fuse_in_header *header = <const fuse_in_header *>request
    cdef const fuse_read_in *read_in = <const fuse_read_in *>(request + sizeof(fuse_in_header))
    cdef Job job
    job.layer, job.unique, job.node, job.pid = layer, header.unique, header.nodeid, header.pid
    job.offset, job.size = read_in.offset, read_in.size
    return write(state.to_disk, &job, sizeof(job)) == sizeof(job)


cdef inline void wait_for_disk(State *state, int jobs, int back, char *reply) noexcept nogil:
    """Reads that must wait for the disk, until the pipe of jobs is closed."""
    cdef Job job
    cdef int64_t result
    cdef ssize_t got
    while True:
        got = read(jobs, &job, sizeof(job))
        if got < 0 and errno == EINTR:
            continue
        if got != sizeof(job):
            return
        result = read_content(
            job.layer, inode_of(job.layer, job.node), job.offset,
            min(job.size, <uint32_t>(state.capacity - HEADER)), True, reply + HEADER,
        )
        if result == MISSING:
            while write(back, &job, sizeof(job)) < 0 and errno == EINTR:
                pass
        else:
            send_reply(state.device, job.unique, result, reply)
