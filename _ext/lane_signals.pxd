"""Whether the process that waits for a request was killed.

The kernel sends INTERRUPT for any signal, and only once. A page that could not be read because of one that the
program handles would be a bus error in it, so a request ends early only for a thread that cannot go on anyway.
"""

from libc.stdint cimport uint32_t
from libc.stdio cimport snprintf
from libc.stdlib cimport strtoull
from libc.string cimport strstr

cdef extern from "<fcntl.h>" nogil:
    int open(const char *path, int flags)
    const int O_RDONLY, O_CLOEXEC

cdef extern from "<unistd.h>" nogil:
    ssize_t read(int fd, void *buffer, size_t size)
    int close(int fd)

cdef enum:
    SIGKILL_BIT = 1 << 8


cdef inline bint was_killed(uint32_t thread) noexcept nogil:
    """SIGKILL is pending for the thread (proc(5), SigPnd), or it is gone; False for 0, one that we cannot see."""
    cdef char path[32]
    cdef char status[4096]
    cdef const char *found
    cdef ssize_t size
    cdef int file
    if thread == 0:
        return False
    snprintf(path, sizeof(path), b"/proc/%u/status", thread)
    file = open(path, O_RDONLY | O_CLOEXEC)
    if file < 0:
        return True
    size = read(file, status, sizeof(status) - 1)
    close(file)
    if size <= 0:
        return True
    status[size] = 0
    found = strstr(status, b"\nSigPnd:")
    return found != NULL and strtoull(found + 8, NULL, 16) & SIGKILL_BIT != 0
