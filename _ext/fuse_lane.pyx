"""The lane between the kernel and pyfuse3: requests from /dev/fuse into a socket pair, replies back.

One thread without the GIL. A request may vanish between poll and read (its process was killed), which a reader
of the device must bear and libfuse's own loop does not; in a socket pair nothing vanishes.
"""

from libc.errno cimport EAGAIN, EINTR, ENODEV, ENOENT, errno
from libc.stdlib cimport free, malloc

cdef extern from "<poll.h>" nogil:
    cdef struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd *fds, unsigned long count, int timeout)
    const short POLLIN, POLLOUT, POLLERR, POLLHUP

cdef extern from "<unistd.h>" nogil:
    ssize_t read(int fd, void *buffer, size_t size)
    ssize_t write(int fd, const void *buffer, size_t size)

cdef extern from "<sys/socket.h>" nogil:
    ssize_t send(int fd, const void *buffer, size_t size, int flags)
    ssize_t recv(int fd, void *buffer, size_t size, int flags)
    const int MSG_DONTWAIT, MSG_NOSIGNAL, MSG_TRUNC

cdef enum Ending:
    UNMOUNTED
    STOPPED
    CLOSED
    FAILED

cdef struct Lane:
    int device
    int socket
    int stop
    char *request          # one request that the socket had no room for yet
    size_t request_size    # bytes of it; 0: none
    char *reply
    size_t capacity        # bytes of each buffer


cdef Ending carry_requests(Lane *lane) noexcept nogil:
    """Everything that the kernel has, as far as the socket takes it. STOPPED here means: go on."""
    cdef ssize_t got
    while True:
        if not lane.request_size:
            got = read(lane.device, lane.request, lane.capacity)
            if got < 0:
                if errno == EAGAIN:
                    return STOPPED
                if errno == EINTR or errno == ENOENT:  # ENOENT: the request was interrupted
                    continue
                return UNMOUNTED if errno == ENODEV else FAILED
            if got == 0:
                return UNMOUNTED
            lane.request_size = <size_t>got
        if send(lane.socket, lane.request, lane.request_size, MSG_DONTWAIT | MSG_NOSIGNAL) < 0:
            if errno == EINTR:
                continue
            return STOPPED if errno == EAGAIN else CLOSED
        lane.request_size = 0


cdef Ending carry_replies(Lane *lane) noexcept nogil:
    """Every reply that waits. What the kernel refuses is a reply to a request that is gone."""
    cdef ssize_t got
    while True:
        got = recv(lane.socket, lane.reply, lane.capacity, MSG_DONTWAIT | MSG_TRUNC)
        if got < 0:
            if errno == EAGAIN:
                return STOPPED
            if errno == EINTR:
                continue
            return CLOSED
        if got == 0:
            return CLOSED
        if <size_t>got > lane.capacity:
            return FAILED
        write(lane.device, lane.reply, <size_t>got)


cdef Ending serve(Lane *lane) noexcept nogil:
    cdef pollfd fds[3]
    cdef Ending ending
    fds[0].fd, fds[1].fd, fds[2].fd = lane.device, lane.socket, lane.stop
    fds[2].events = POLLIN
    while True:
        fds[0].events = 0 if lane.request_size else POLLIN
        fds[1].events = POLLIN | POLLOUT if lane.request_size else POLLIN
        fds[0].revents = fds[1].revents = fds[2].revents = 0
        if poll(fds, 3, -1) < 0:
            if errno == EINTR:
                continue
            return FAILED
        if fds[2].revents:
            return STOPPED
        if fds[1].revents & (POLLIN | POLLHUP | POLLERR):
            ending = carry_replies(lane)
            if ending != STOPPED:
                return ending
        if fds[0].revents & POLLERR:
            return UNMOUNTED
        if fds[0].revents or fds[1].revents & POLLOUT:
            ending = carry_requests(lane)
            if ending != STOPPED:
                return ending


def run(int device, int socket, int stop, size_t capacity):
    """Carry requests and replies until something ends it; call it in a thread of its own.

    `device`: a descriptor of /dev/fuse, non-blocking, after INIT. `socket`: our end of an AF_UNIX
    SOCK_SEQPACKET pair. `stop`: a descriptor that becomes readable when it shall end. `capacity`: bytes of the
    largest request or reply.

    Returns "unmounted", "stopped", "closed" (the other end is gone) or "failed: <errno>"; raises MemoryError.
    """
    cdef Lane lane
    cdef Ending ending
    lane.device, lane.socket, lane.stop = device, socket, stop
    lane.request_size, lane.capacity = 0, capacity
    lane.request = <char *>malloc(capacity)
    lane.reply = <char *>malloc(capacity)
    try:
        if lane.request == NULL or lane.reply == NULL:
            raise MemoryError()
        with nogil:
            ending = serve(&lane)
        if ending == FAILED:
            return f"failed: {errno}"
        return {UNMOUNTED: "unmounted", STOPPED: "stopped", CLOSED: "closed"}[ending]
    finally:
        free(lane.request)
        free(lane.reply)
