"""The lane: answers the kernel's requests for layers from their indexes and content files, without the GIL.

What it cannot answer goes two ways: requests for the store's own tree to libfuse, over a socket pair, and those for
layers that are not open or bytes that are not here to Python, over another one; then the lane answers after all.
A request may vanish between poll and read (its process was killed), which libfuse's own loop does not bear; in a
socket pair nothing vanishes.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.errno cimport EAGAIN, EINTR, EIO, ENODEV, ENOENT, ENOSYS, EROFS, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from fuse_wire cimport *
from index_view cimport open_view
from lane_answer cimport STORE_BIT, answer, answer_statfs, is_for_store, is_whole
from lane_content cimport BLOCKS, MISSING, read_content
from lane_disk cimport Job, send_to_disk, wait_for_disk
from lane_layer cimport Layer, inode_of
from lane_parking cimport *
from lane_signals cimport was_killed
from lane_state cimport *
from lane_table cimport find_layer, free_table, make_table, publish
from lane_watch cimport *

cdef extern from "<unistd.h>" nogil:
    int close(int fd)

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec *now)
    const int CLOCK_MONOTONIC

cdef extern from * nogil:
    """
    #define store_first(place, value) __atomic_store_n((place), (value), __ATOMIC_RELEASE)
    #define load_first(place) __atomic_load_n((place), __ATOMIC_ACQUIRE)
    """
    void store_first(uint64_t *place, uint64_t value)
    uint64_t load_first(uint64_t *place)

cdef enum:
    REQUEST_BYTES = 64 << 10     # the largest request: we take no writes
    NUMBER_STEP = 2              # between the kernel's numbers of requests
    LOOK_MS = 200                # how often to look whether a process that got a signal while it waited was killed
    MAX_TRIES = 4                # of a read whose chunks are taken away again before it comes to them

cdef enum Ending:
    GO_ON
    UNMOUNTED
    STOPPED
    CLOSED
    FAILED

cdef enum:                       # what is waited for
    STOP
    DEVICE
    LIBFUSE
    PYTHON
    DISK
    EVENTS


cdef int64_t settle(State *state, const char *request, size_t size, bint first) noexcept nogil:
    """Answer a request for a layer, or leave it to the disk's threads; MISSING: Python must see it."""
    cdef const fuse_in_header *header = <const fuse_in_header *>request
    cdef const fuse_read_in *read_in = <const fuse_read_in *>(request + sizeof(fuse_in_header))
    cdef Layer *layer = find_layer(&state.table, <uint32_t>(header.nodeid >> 32))
    cdef int64_t result
    if layer == NULL:
        return MISSING
    result = answer(state, layer, request, size, first)
    if result == BLOCKS:
        state.counts.blocked += 1
        if send_to_disk(state, layer, request):
            return 0
        result = read_content(
            layer, inode_of(layer, header.nodeid), read_in.offset,
            min(read_in.size, <uint32_t>(state.capacity - HEADER)), True, state.reply + HEADER,
        )
    if result != MISSING:
        state.counts.answered += 1
        if header.opcode == FUSE_READ and result > 0:
            state.counts.read_bytes += <uint64_t>result
        send_reply(state.device, header.unique, result, state.reply)
    return result


cdef void end_if_killed(State *state, uint32_t number) noexcept nogil:
    """A killed process need not wait for its bytes; what it asked for goes on."""
    cdef Slot *slot = &state.parking.slots[number]
    if not was_killed((<const fuse_in_header *>slot.request).pid):
        return
    send_reply(state.device, slot.unique, -EINTR, state.reply)
    state.parking.signalled -= slot.signalled
    slot.signalled = False
    if slot.state == SLOT_ASKED:
        slot.state = SLOT_INTERRUPTED
    else:
        slot.unique = 0          # it is still in the queue; `take_answers` frees it


cdef void interrupt(State *state, uint64_t unique) noexcept nogil:
    """Whoever waits for this request got a signal."""
    cdef uint32_t number = find_parked(&state.parking, unique)
    if number == NO_SLOT or state.parking.slots[number].signalled:
        return
    state.parking.slots[number].signalled = True
    state.parking.signalled += 1
    end_if_killed(state, number)


cdef void look_for_killed(State *state) noexcept nogil:
    """The kernel tells of the first signal only: those who got one are looked after."""
    cdef uint32_t i
    for i in range(<uint32_t>SLOTS):
        if state.parking.slots[i].signalled:
            end_if_killed(state, i)


cdef Ending forward(State *state) noexcept nogil:
    """The request at hand goes to libfuse; it stays where it is until there is room."""
    if send(state.libfuse, state.request, state.request_size, MSG_DONTWAIT | MSG_NOSIGNAL) < 0:
        return GO_ON if errno == EAGAIN or errno == EINTR else CLOSED
    state.counts.forwarded += 1
    state.request_size = 0
    return GO_ON


cdef Ending take_request(State *state) noexcept nogil:
    """One request of the kernel, if there is one."""
    cdef ssize_t got = read(state.device, state.request, REQUEST_BYTES)
    cdef fuse_in_header *header = <fuse_in_header *>state.request
    cdef fuse_read_in *read_in = <fuse_read_in *>(state.request + sizeof(fuse_in_header))
    cdef const char *body = state.request + sizeof(fuse_in_header)
    cdef uint32_t opcode
    cdef size_t length
    if got < 0:
        if errno == EAGAIN or errno == EINTR or errno == ENOENT:  # ENOENT: the request was interrupted
            return GO_ON
        return UNMOUNTED if errno == ENODEV else FAILED
    if got < <ssize_t>sizeof(fuse_in_header):
        return UNMOUNTED if got == 0 else FAILED
    opcode, length = header.opcode, <size_t>got - sizeof(fuse_in_header)
    if state.first == 0 and opcode != FUSE_FORGET and opcode != FUSE_BATCH_FORGET and opcode != FUSE_INTERRUPT:
        store_first(&state.first, header.unique)     # those three overtake others
    if opcode == FUSE_FORGET or opcode == FUSE_BATCH_FORGET:
        return GO_ON             # nothing is kept for the kernel
    if opcode == FUSE_OPEN or opcode == FUSE_OPENDIR or opcode == FUSE_FLUSH:
        send_reply(state.device, header.unique, -ENOSYS, state.reply)  # the kernel will not ask again
        return GO_ON
    if opcode == FUSE_STATFS:
        send_reply(state.device, header.unique, answer_statfs(state.root, state.reply + HEADER), state.reply)
        return GO_ON
    if opcode == FUSE_INTERRUPT:
        if length >= sizeof(fuse_interrupt_in):
            interrupt(state, (<fuse_interrupt_in *>read_in).unique)
        return GO_ON
    if is_for_store(header, body, length):
        if opcode == FUSE_READ or opcode == FUSE_READDIR or opcode == FUSE_READDIRPLUS:
            read_in.fh = header.nodeid   # nothing was opened, and pyfuse3 sees only the handle
        state.request_size = <size_t>got
        return forward(state)
    if not asks_index(opcode):
        send_reply(state.device, header.unique, -EROFS if would_change(opcode) else -ENOSYS, state.reply)
        return GO_ON
    if not is_whole(opcode, body, length):
        send_reply(state.device, header.unique, -EIO, state.reply)
        return GO_ON
    if settle(state, state.request, <size_t>got, True) == MISSING:
        state.counts.parked += 1
        if not park(&state.parking, state.request, <size_t>got):
            send_reply(state.device, header.unique, -EIO, state.reply)
        elif not tell(&state.parking, state.python):
            return CLOSED
    return GO_ON


cdef Ending carry_replies(State *state) noexcept nogil:
    """Every reply of libfuse that waits."""
    cdef ssize_t got
    while True:
        got = recv(state.libfuse, state.reply, state.capacity, MSG_DONTWAIT | MSG_TRUNC)
        if got < 0:
            if errno == EINTR:
                continue
            return GO_ON if errno == EAGAIN else CLOSED
        if got == 0:
            return CLOSED
        if <size_t>got > state.capacity:
            return FAILED
        write(state.device, state.reply, <size_t>got)


cdef Ending take_answers(State *state) noexcept nogil:
    """What Python says of parked requests."""
    cdef Answered said
    cdef Slot *slot
    cdef ssize_t got
    while True:
        got = recv(state.python, &said, sizeof(said), MSG_DONTWAIT)
        if got < 0:
            if errno == EINTR:
                continue
            return GO_ON if errno == EAGAIN else CLOSED
        if got != sizeof(said):
            return CLOSED
        if said.slot >= SLOTS:
            return FAILED
        slot = &state.parking.slots[said.slot]
        if slot.state == SLOT_INTERRUPTED or slot.state == SLOT_ASKED and slot.unique == 0:
            free_slot(&state.parking, said.slot)     # its reader was killed
        elif slot.state != SLOT_ASKED or slot.unique != said.unique:
            return FAILED        # nobody asked that, and a request must not be forgotten
        elif said.error:
            if said.error > 0:
                send_reply(state.device, said.unique, -said.error, state.reply)
            free_slot(&state.parking, said.slot)
        elif settle(state, slot.request, slot.size, False) == MISSING:
            slot.tries += 1
            if slot.tries < MAX_TRIES:
                queue_slot(&state.parking, said.slot)
                if not tell(&state.parking, state.python):
                    return CLOSED
            else:
                send_reply(state.device, said.unique, -EIO, state.reply)
                free_slot(&state.parking, said.slot)
        else:
            free_slot(&state.parking, said.slot)


cdef Ending take_back(State *state) noexcept nogil:
    """A read whose chunks were evicted while it waited for the disk: Python must see it."""
    cdef Job job
    cdef fuse_in_header *header = <fuse_in_header *>state.reply
    cdef fuse_read_in *read_in = <fuse_read_in *>(state.reply + sizeof(fuse_in_header))
    cdef size_t size = sizeof(fuse_in_header) + sizeof(fuse_read_in)
    if read(state.from_disk, &job, sizeof(job)) != sizeof(job):
        return GO_ON if errno == EAGAIN or errno == EINTR else FAILED
    memset(state.reply, 0, size)
    header.len, header.opcode, header.unique, header.nodeid = <uint32_t>size, FUSE_READ, job.unique, job.node
    header.pid, read_in.offset, read_in.size = job.pid, job.offset, job.size
    if not park(&state.parking, state.reply, size):
        send_reply(state.device, job.unique, -EIO, state.reply)
        return GO_ON
    return GO_ON if tell(&state.parking, state.python) else CLOSED


cdef int64_t now_ms() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t>now.tv_sec * 1000 + now.tv_nsec // 1000000


cdef bint watch_all(Watcher *watcher, const State *state) noexcept nogil:
    cdef bint full = state.request_size != 0
    # A request that libfuse has no room for, or more waiting ones than we can keep: the others wait in the kernel.
    cdef bint takes = not full and state.parking.free_slot != NO_SLOT
    cdef bint telling = state.parking.first_waiting != NO_SLOT
    return (
        watch(watcher, DEVICE, state.device, EPOLLIN if takes else 0)
        and watch(watcher, LIBFUSE, state.libfuse, EPOLLIN | EPOLLOUT if full else EPOLLIN)
        and watch(watcher, PYTHON, state.python, EPOLLIN | EPOLLOUT if telling else EPOLLIN)
    )


cdef Ending handle(State *state, uint32_t number, uint32_t events) noexcept nogil:
    """What happened at one descriptor."""
    cdef Ending ending = GO_ON
    if number == STOP:
        return STOPPED
    if number == DEVICE:
        return UNMOUNTED if events & EPOLLERR else take_request(state)
    if number == DISK:
        return take_back(state)
    if number == LIBFUSE:
        if events & (EPOLLIN | EPOLLHUP | EPOLLERR):
            ending = carry_replies(state)
        if ending == GO_ON and events & EPOLLOUT and state.request_size:
            ending = forward(state)
        return ending
    if events & (EPOLLIN | EPOLLHUP | EPOLLERR):
        ending = take_answers(state)
    if ending == GO_ON and events & EPOLLOUT and not tell(&state.parking, state.python):
        ending = CLOSED
    return ending


cdef Ending serve(State *state) noexcept nogil:
    cdef Watcher watcher
    cdef epoll_event happened[EVENTS]
    cdef Ending ending = GO_ON
    cdef int64_t looked = 0
    cdef int count, i
    memset(&watcher, 0, sizeof(watcher))
    watcher.epoll = epoll_create1(EPOLL_CLOEXEC)
    if watcher.epoll < 0:
        return FAILED
    if not watch(&watcher, STOP, state.stop, EPOLLIN) or not watch(&watcher, DISK, state.from_disk, EPOLLIN):
        ending = FAILED
    while ending == GO_ON:
        if not watch_all(&watcher, state):
            ending = FAILED
            continue
        count = epoll_wait(watcher.epoll, happened, EVENTS, LOOK_MS if state.parking.signalled else -1)
        if count < 0:
            ending = GO_ON if errno == EINTR else FAILED
            continue
        if state.parking.signalled and now_ms() - looked >= LOOK_MS:
            looked = now_ms()
            look_for_killed(state)
        for i in range(count):
            # One that was full before the others were looked at stays for the next turn.
            if happened[i].data.u32 == DEVICE and (state.request_size or state.parking.free_slot == NO_SLOT):
                continue
            ending = handle(state, happened[i].data.u32, happened[i].events)
            if ending != GO_ON:
                break
    close(watcher.epoll)
    return ending


def fail_taken(int device, uint64_t below, uint64_t most, int error):
    cdef uint64_t number = below, done = 0, failed = 0
    cdef fuse_out_header header
    header.len, header.error = HEADER, -error
    with nogil:
        while number > NUMBER_STEP and done < most:
            number -= NUMBER_STEP
            done += 1
            header.unique = number
            # ENOENT: it is answered already, as nearly all are.
            failed += write(device, &header, HEADER) == HEADER
    return failed


cdef class Lane:
    """See the stub."""

    cdef State state
    cdef list kept               # what the published layers' memory belongs to
    cdef bint first_reads

    def __cinit__(self, int root, size_t capacity, bint every_read, bint first_reads=False):
        self.kept = []
        self.first_reads = first_reads
        self.state.root, self.state.every_read = root, every_read
        self.state.capacity = capacity
        self.state.request = <char *>malloc(REQUEST_BYTES)
        self.state.reply = <char *>malloc(capacity)
        if (self.state.request == NULL or self.state.reply == NULL or not make_table(&self.state.table)
                or not make_parking(&self.state.parking)):
            raise MemoryError

    def __dealloc__(self):
        free(self.state.request)
        free(self.state.reply)
        free_table(&self.state.table)
        free_parking(&self.state.parking)

    def add_layer(self, uint32_t number, index, int content, state, uint32_t chunk_count):
        cdef _KeptLayer kept = _KeptLayer(index, state)
        cdef size_t bits = (<size_t>chunk_count + 7) // 8
        cdef const char *problem
        if not 0 < number < STORE_BIT:
            raise ValueError(f"layer number: wanted 1 to 2^31 - 1, got {number}")
        problem = open_view(&kept.layer.index, <const uint8_t *>kept.index.buf, <uint64_t>kept.index.len)
        if problem != NULL:
            raise ValueError((<bytes>problem).decode())
        if chunk_count != kept.layer.index.header.chunk_count:
            raise ValueError(f"chunks: wanted {kept.layer.index.header.chunk_count}, got {chunk_count}")
        if <size_t>kept.state.len < 64 + 2 * bits:
            raise ValueError(f"state: wanted {64 + 2 * bits} bytes, got {kept.state.len}")
        kept.layer.number, kept.layer.content = number, content
        kept.layer.state = <uint8_t *>kept.state.buf
        kept.layer.verified = kept.layer.state + 64
        kept.layer.touched = kept.layer.state + 64 + bits
        if self.first_reads:
            kept.layer.seen = <uint8_t *>calloc((<size_t>kept.layer.index.header.inode_count + 7) // 8, 1)
            if kept.layer.seen == NULL:
                raise MemoryError
        self.kept.append(kept)
        if not publish(&self.state.table, number, kept.layer):
            raise MemoryError

    def hide_layer(self, uint32_t number):
        if 0 < number < STORE_BIT and not publish(&self.state.table, number, NULL):
            raise MemoryError

    def first_request(self):
        return load_first(&self.state.first)

    def counts(self):
        return self.state.counts

    def run(self, int device, int libfuse, int python, int stop, int to_disk, int from_disk):
        cdef Ending ending
        self.state.device, self.state.libfuse, self.state.python, self.state.stop = device, libfuse, python, stop
        self.state.to_disk, self.state.from_disk = to_disk, from_disk
        with nogil:
            ending = serve(&self.state)
        if ending == FAILED:
            return f"failed: {errno}"
        return {UNMOUNTED: "unmounted", STOPPED: "stopped", CLOSED: "closed"}[ending]

    def run_disk(self, int device, int jobs, int back):
        cdef char *reply = <char *>malloc(self.state.capacity)
        if reply == NULL:
            raise MemoryError
        self.state.device = device
        with nogil:
            wait_for_disk(&self.state, jobs, back, reply)
        free(reply)


cdef class _KeptLayer:
    """Holds a layer's record and the buffers that it points into."""

    cdef Layer *layer
    cdef Py_buffer index, state
    cdef int held

    def __cinit__(self, index, state):
        self.layer = <Layer *>calloc(1, sizeof(Layer))
        if self.layer == NULL:
            raise MemoryError
        PyObject_GetBuffer(index, &self.index, PyBUF_SIMPLE)
        self.held = 1
        PyObject_GetBuffer(state, &self.state, PyBUF_SIMPLE | PyBUF_WRITABLE)
        self.held = 2

    def __dealloc__(self):
        if self.held > 0:
            PyBuffer_Release(&self.index)
        if self.held > 1:
            PyBuffer_Release(&self.state)
        if self.layer != NULL:
            free(self.layer.seen)
        free(self.layer)
