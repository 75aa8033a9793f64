"""Requests that wait for Python: copies in numbered slots, told to it over a socket and given back over the same."""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from fuse_wire cimport FUSE_READ, fuse_in_header, fuse_read_in

cdef extern from "<sys/socket.h>" nogil:
    ssize_t send(int fd, const void *buffer, size_t size, int flags)
    ssize_t recv(int fd, void *buffer, size_t size, int flags)
    const int MSG_DONTWAIT, MSG_NOSIGNAL, MSG_TRUNC

cdef extern from *:
    """
    #define NO_SLOT 0xffffffffu
    """
    const uint32_t NO_SLOT

cdef enum:
    SLOTS = 8192                 # requests that wait at the same time; the rest waits in the kernel

cdef struct Asked:               # what Python is told: store/lane.py unpacks it
    uint32_t slot
    uint32_t opcode
    uint64_t unique
    uint64_t node
    uint64_t offset
    uint32_t size
    uint32_t pid
    uint32_t tries
    uint32_t spare

cdef struct Answered:            # what Python says: store/lane.py packs it
    uint32_t slot
    int32_t error                # 0: try again; an errno; -1: it replied itself
    uint64_t unique

cdef enum SlotState:
    SLOT_FREE
    SLOT_WAITING                 # Python was not told yet
    SLOT_ASKED
    SLOT_INTERRUPTED             # the kernel has its reply; Python has not come back yet

cdef struct Slot:
    char *request
    size_t size
    uint64_t unique
    uint32_t tries
    uint32_t next                # free list, or queue of those that wait to be told
    SlotState state
    bint signalled               # whoever waits got a signal; perhaps one that kills

cdef struct Parking:
    Slot *slots
    uint32_t free_slot
    uint32_t first_waiting
    uint32_t last_waiting
    uint32_t signalled           # slots that are


cdef inline bint make_parking(Parking *parking) noexcept:
    cdef uint32_t i
    parking.slots = <Slot *>calloc(SLOTS, sizeof(Slot))
    if parking.slots == NULL:
        return False
    for i in range(<uint32_t>SLOTS):
        parking.slots[i].next = i + 1 if i + 1 < SLOTS else NO_SLOT
    parking.free_slot = 0
    parking.first_waiting = parking.last_waiting = NO_SLOT
    return True


cdef inline void free_parking(Parking *parking) noexcept:
    cdef uint32_t i
    if parking.slots != NULL:
        for i in range(<uint32_t>SLOTS):
            free(parking.slots[i].request)
        free(parking.slots)


cdef inline void queue_slot(Parking *parking, uint32_t number) noexcept nogil:
    cdef Slot *slot = &parking.slots[number]
    slot.state, slot.next = SLOT_WAITING, NO_SLOT
    if parking.last_waiting == NO_SLOT:
        parking.first_waiting = number
    else:
        parking.slots[parking.last_waiting].next = number
    parking.last_waiting = number


cdef inline bint park(Parking *parking, const char *request, size_t size) noexcept nogil:
    """Keep a request for Python; False: no slot or no memory."""
    cdef uint32_t number = parking.free_slot
    cdef Slot *slot
    if number == NO_SLOT:
        return False
    slot = &parking.slots[number]
    slot.request = <char *>malloc(size)
    if slot.request == NULL:
        return False
    memcpy(slot.request, request, size)
    parking.free_slot = slot.next
    slot.size, slot.tries, slot.signalled = size, 0, False
    slot.unique = (<const fuse_in_header *>request).unique
    queue_slot(parking, number)
    return True


cdef inline void free_slot(Parking *parking, uint32_t number) noexcept nogil:
    cdef Slot *slot = &parking.slots[number]
    free(slot.request)
    slot.request = NULL
    parking.signalled -= slot.signalled
    slot.signalled = False
    slot.state, slot.next = SLOT_FREE, parking.free_slot
    parking.free_slot = number


cdef inline bint tell(Parking *parking, int socket) noexcept nogil:
    """Tell Python of all that wait, as far as the socket takes it; False: nobody listens any more."""
    cdef Asked asked
    cdef Slot *slot
    cdef const fuse_in_header *header
    cdef const fuse_read_in *read_in
    while parking.first_waiting != NO_SLOT:
        slot = &parking.slots[parking.first_waiting]
        header = <const fuse_in_header *>slot.request
        asked.slot, asked.opcode, asked.unique = parking.first_waiting, header.opcode, header.unique
        asked.node, asked.pid, asked.tries = header.nodeid, header.pid, slot.tries
        asked.offset = asked.size = asked.spare = 0
        if header.opcode == FUSE_READ:
            read_in = <const fuse_read_in *>(slot.request + sizeof(fuse_in_header))
            asked.offset, asked.size = read_in.offset, read_in.size
        if send(socket, &asked, sizeof(asked), MSG_DONTWAIT | MSG_NOSIGNAL) < 0:
            if errno == EINTR:
                continue
            return errno == EAGAIN
        parking.first_waiting = slot.next
        if parking.first_waiting == NO_SLOT:
            parking.last_waiting = NO_SLOT
        slot.state = SLOT_ASKED
    return True


cdef inline uint32_t find_parked(Parking *parking, uint64_t unique) noexcept nogil:
    """The slot of a request that still waits for its reply, or NO_SLOT."""
    cdef uint32_t i
    for i in range(<uint32_t>SLOTS):
        if (parking.slots[i].unique == unique
                and (parking.slots[i].state == SLOT_ASKED or parking.slots[i].state == SLOT_WAITING)):
            return i
    return NO_SLOT
