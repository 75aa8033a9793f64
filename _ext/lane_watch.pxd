"""Waiting for several descriptors; epoll, because every request waits once."""

from libc.stdint cimport uint32_t

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        uint32_t u32
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int operation, int fd, epoll_event *event)
    int epoll_wait(int epoll, epoll_event *events, int most, int timeout)
    const int EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_MOD
    const uint32_t EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP

cdef struct Watcher:
    int epoll
    uint32_t added               # a bit for each that is waited for
    uint32_t events[5]


cdef inline bint watch(Watcher *watcher, uint32_t number, int fd, uint32_t events) noexcept nogil:
    """Wait for these events of descriptor `fd`, whose `number` (below 5) they will come with, from now on."""
    cdef epoll_event event
    cdef int operation = EPOLL_CTL_MOD
    if watcher.added & (1 << number):
        if watcher.events[number] == events:
            return True
    else:
        operation = EPOLL_CTL_ADD
    event.events, event.data.u32 = events, number
    watcher.events[number] = events
    watcher.added |= 1 << number
    return epoll_ctl(watcher.epoll, operation, fd, &event) == 0
