"""What the lane's parts share, and how a reply goes to the kernel."""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fuse_wire cimport fuse_out_header
from lane_parking cimport Parking
from lane_table cimport Table

cdef extern from "<unistd.h>" nogil:
    ssize_t read(int fd, void *buffer, size_t size)
    ssize_t write(int fd, const void *buffer, size_t size)

cdef enum:
    HEADER = 16                  # sizeof(fuse_out_header)

cdef struct Counts:
    uint64_t answered
    uint64_t read_bytes
    uint64_t forwarded
    uint64_t parked
    uint64_t blocked

cdef struct State:
    int device, libfuse, python, stop, root
    int to_disk, from_disk       # ends of pipes: jobs out, and those that Python must see back
    bint every_read              # Python wants to see every read first
    Table table
    Parking parking
    char *request
    size_t request_size          # a request that libfuse's socket had no room for yet; 0: none
    char *reply
    size_t capacity              # bytes of a reply
    uint64_t first               # the number of the first request that was taken; 0: none yet
    Counts counts


cdef inline void send_reply(int device, uint64_t unique, int64_t result, char *reply) noexcept nogil:
    """`reply` has the payload after room for the header. What the kernel refuses is a reply to what is gone."""
    cdef fuse_out_header header
    header.unique = unique
    header.error = <int32_t>result if result < 0 else 0
    header.len = HEADER + (<uint32_t>result if result > 0 else 0)
    memcpy(reply, &header, HEADER)
    write(device, reply, header.len)
