"""The lane answers as its slow twin does, and carries everything else whole."""

import errno
import os
import random
import socket
import struct
import subprocess
import threading
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from registry_storage.errors import FormatError
from registry_storage.toc.index import TocIndex, build_index
from tests.fakes.lane import CAPACITY, Ends
from tests.reference import slow_lane
from tests.reference.slow_lane import (
    BATCH_FORGET,
    CREATE,
    FLUSH,
    FORGET,
    GETATTR,
    GETXATTR,
    IN_HEADER,
    INTERRUPT,
    LISTXATTR,
    LOOKUP,
    LSEEK,
    OPEN,
    OPENDIR,
    OUT_HEADER,
    READ,
    READDIR,
    READDIRPLUS,
    READLINK,
    RMDIR,
    SETATTR,
    STATFS,
    SlowLayer,
    read_body,
    request,
)

from .test_toc_index import DIGESTS, TOC_OFFSET, TOCS, encode

messages = st.lists(st.binary(min_size=1, max_size=2000), max_size=60)


def index_of(toc: dict[str, Any]) -> TocIndex:
    return TocIndex(build_index(encode(toc, True), blob_size=TOC_OFFSET + 100, toc_offset=TOC_OFFSET))


def small_index() -> TocIndex:
    """A file of 10,000 bytes in two chunks, inode 1."""
    file = {"name": "f", "type": "reg", "size": 10000, "digest": DIGESTS[0], "offset": 0}
    return index_of(
        {"version": 1, "entries": [
            file | {"chunkSize": 6000, "chunkDigest": DIGESTS[1]},
            {"name": "f", "type": "chunk", "offset": 100, "chunkOffset": 6000, "chunkDigest": DIGESTS[2]},
        ]}
    )  # fmt: skip


FILE = 7 << 32 | 2
CONTENT = random.Random(1).randbytes(12288)


def error_of(reply: bytes) -> int:
    return -int(OUT_HEADER.unpack_from(reply)[1])


@settings(deadline=None, max_examples=60)
@given(toc=TOCS, seed=st.integers(0, 1 << 32), number=st.sampled_from([1, 7, (1 << 31) - 1]))
def test_the_lane_answers_as_its_slow_twin(toc: dict[str, Any], seed: int, number: int) -> None:
    try:
        index = index_of(toc)
    except FormatError:
        assume(False)
    dice = random.Random(seed)
    content = dice.randbytes(index.content_size)
    verified = {chunk for chunk in range(index.chunk_count) if dice.random() < 0.7}
    twin = SlowLayer(number, index, content, verified)
    names = [name for d in range(index.inode_count) if index.mode(d) >> 12 == 4 for name, _ in index.children(d, 0, 99)]
    attributes = [name for i in range(index.inode_count) for name, _ in index.xattrs(i)]
    with Ends() as ends:
        ends.add_layer(number, index, content, verified)
        for unique in range(1, 80):
            opcode = dice.choice([LOOKUP, GETATTR, READLINK, READ, GETXATTR, LISTXATTR, READDIR, READDIRPLUS])
            node = number << 32 | dice.randint(0, index.inode_count + 1)
            if opcode == LOOKUP:
                body = dice.choice([*names, b"a", b"nothing"]) + b"\0"
            elif opcode in (GETXATTR, LISTXATTR):
                body = struct.pack("<II", dice.choice([0, 0, 1, 3, 4096]), 0)
                body += dice.choice([*attributes, b"user.x"]) + b"\0" if opcode == GETXATTR else b""
            elif opcode == READ:
                body = read_body(dice.choice([0, 0, 1, 4096, 9999, 20000]), dice.choice([0, 1, 4096, 50000]))
            else:
                body = read_body(dice.randint(0, 5), dice.choice([0, 100, 200, 4096])) if opcode >= READDIR else b""
            message = request(opcode, node, body, unique)
            wanted = twin.answer(message)
            if wanted is not None:
                assert ends.ask(message) == wanted
                continue
            ends.kernel.send(message)
            slot, asked, said, about, *_ = ends.question()
            assert (asked, said, about) == (READ, unique, node)
            ends.answer(slot, unique, errno.EIO)
            assert ends.kernel.recv(CAPACITY) == OUT_HEADER.pack(16, -errno.EIO, unique)


def test_what_was_not_here_is_answered_after_python_brought_it() -> None:
    with Ends() as ends:
        state = ends.add_layer(7, small_index(), CONTENT, {0})
        assert ends.ask(request(READ, FILE, read_body(0, 6000)))[16:] == CONTENT[:6000]
        ends.kernel.send(request(READ, FILE, read_body(5000, 4096), 9))
        slot, opcode, unique, node, offset, size, pid, tries = ends.question()
        assert (opcode, unique, node, offset, size, pid, tries) == (READ, 9, FILE, 5000, 4096, 1, 0)
        state[64] |= 2
        ends.answer(slot, 9)
        assert ends.kernel.recv(CAPACITY)[16:] == CONTENT[5000:9096]
        assert state[65] == 1, "served chunks are marked as touched"


def test_a_layer_that_is_not_open_is_asked_for() -> None:
    with Ends() as ends:
        ends.kernel.send(request(LOOKUP, 7 << 32 | 1, b"f\0", 5))
        slot, opcode, unique, node, *_ = ends.question()
        assert (opcode, unique, node) == (LOOKUP, 5, 7 << 32 | 1)
        index = small_index()
        ends.add_layer(7, index, CONTENT, set())
        ends.answer(slot, 5)
        wanted = SlowLayer(7, index, CONTENT).answer(request(LOOKUP, 7 << 32 | 1, b"f\0", 5))
        assert ends.kernel.recv(CAPACITY) == wanted
        ends.lane.hide_layer(7)
        ends.kernel.send(request(GETATTR, FILE, b"", 6))
        slot, *_ = ends.question()
        ends.answer(slot, 6, errno.ESTALE)
        assert error_of(ends.kernel.recv(CAPACITY)) == errno.ESTALE


def test_bytes_that_are_never_there_end_in_an_error_after_some_tries() -> None:
    with Ends() as ends:
        ends.add_layer(7, small_index(), CONTENT, set())
        ends.kernel.send(request(READ, FILE, read_body(0, 10), 3))
        for wanted in range(4):
            slot, *_, tries = ends.question()
            assert tries == wanted
            ends.answer(slot, 3)
        assert error_of(ends.kernel.recv(CAPACITY)) == errno.EIO


def test_a_content_file_that_was_cut_off_is_no_short_read() -> None:
    with Ends() as ends:
        ends.add_layer(7, small_index(), CONTENT[:5000], {0, 1})
        ends.kernel.send(request(READ, FILE, read_body(0, 10000), 3))
        slot, *_ = ends.question()
        ends.answer(slot, 3, errno.EIO)
        assert error_of(ends.kernel.recv(CAPACITY)) == errno.EIO


def test_a_read_of_a_killed_process_ends_and_its_slot_is_used_again() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    with Ends() as ends:
        ends.add_layer(7, small_index(), CONTENT, set())
        ends.kernel.send(request(READ, FILE, read_body(0, 10), 3, gone.pid))
        slot, *_ = ends.question()
        assert error_of(ends.ask(request(INTERRUPT, 0, struct.pack("<Q", 3), 4))) == errno.EINTR
        ends.answer(slot, 3)  # nobody waits for it any more
        ends.kernel.send(request(READ, FILE, read_body(0, 10), 5))
        again, _, unique, *_ = ends.question()
        assert unique == 5
        ends.answer(again, 5, errno.EIO)
        assert OUT_HEADER.unpack(ends.kernel.recv(CAPACITY)) == (16, -errno.EIO, 5)


def test_a_read_goes_on_after_a_signal_that_does_not_kill_and_ends_when_one_does() -> None:
    """An error would be a bus error in whoever faulted on the page."""
    waiting = subprocess.Popen(["sleep", "60"])
    with Ends() as ends:
        state = ends.add_layer(7, small_index(), CONTENT, set())
        for unique in (3, 5):
            ends.kernel.send(request(READ, FILE, read_body(0, 10), unique, waiting.pid))
        slot, *_ = ends.question()
        ends.question()
        for unique in (3, 5):
            ends.kernel.send(request(INTERRUPT, 0, struct.pack("<Q", unique), unique + 1))
        state[64] |= 1
        ends.answer(slot, 3)
        assert ends.kernel.recv(CAPACITY)[16:] == CONTENT[:10]
        waiting.kill()
        waiting.wait()
        assert OUT_HEADER.unpack(ends.kernel.recv(CAPACITY)) == (16, -errno.EINTR, 5)


def test_many_reads_may_wait_at_the_same_time() -> None:
    count = 3000
    with Ends() as ends:
        state = ends.add_layer(7, small_index(), CONTENT, set())

        def send() -> None:
            for unique in range(1, count + 1):
                ends.kernel.send(request(READ, FILE, read_body(unique, 8), unique))

        sender = threading.Thread(target=send)
        sender.start()
        waiting = [ends.question() for _ in range(count)]
        sender.join()
        state[64] |= 3

        for slot, _, unique, *_ in waiting:
            ends.answer(slot, unique)
            assert ends.kernel.recv(CAPACITY)[16:] == CONTENT[unique : unique + 8]


def test_a_recorder_sees_every_read_before_it_is_answered() -> None:
    with Ends(every_read=True) as ends:
        ends.add_layer(7, small_index(), CONTENT, {0, 1})
        ends.kernel.send(request(READ, FILE, read_body(0, 10), 3))
        slot, *_ = ends.question()
        ends.answer(slot, 3)
        assert ends.kernel.recv(CAPACITY)[16:] == CONTENT[:10]


@pytest.mark.parametrize(
    ("opcode", "wanted"),
    [(OPEN, errno.ENOSYS), (OPENDIR, errno.ENOSYS), (FLUSH, errno.ENOSYS), (SETATTR, errno.EROFS),
     (CREATE, errno.EROFS), (RMDIR, errno.EROFS), (LSEEK, errno.ENOSYS)],
)  # fmt: skip
def test_what_layers_do_not_do(opcode: int, wanted: int) -> None:
    with Ends() as ends:
        assert error_of(ends.ask(request(opcode, 7 << 32 | 1, bytes(60)))) == wanted


def test_statfs_is_that_of_the_file_system_under_the_cache() -> None:
    with Ends() as ends:
        reply = ends.ask(request(STATFS, 1))
        blocks, _, _, files, _, size, longest, fragment = struct.unpack_from("<5QIII", reply, 16)
        found = os.statvfs("/")
        assert (blocks, files, size, longest, fragment) == (
            found.f_blocks, found.f_files, found.f_bsize, 255, found.f_frsize,
        )  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(requests=messages, replies=messages)
def test_requests_for_the_store_go_to_libfuse_and_its_replies_back(
    requests: list[bytes], replies: list[bytes]
) -> None:
    with Ends() as ends:
        sent = [request(CREATE, 1 << 28 | 5, body, unique) for unique, body in enumerate(requests)]
        got: list[bytes] = []
        receiver = threading.Thread(target=lambda: got.extend(ends.libfuse.recv(CAPACITY) for _ in sent))
        receiver.start()
        for message in sent:
            ends.kernel.send(message)
        for reply in replies:
            ends.libfuse.send(reply)
        assert [ends.kernel.recv(CAPACITY) for _ in replies] == replies
        receiver.join(20)
        assert got == sent


@pytest.mark.parametrize("node", [4 << 28 | 9, 1 << 63 | 3 << 32 | 8])
@pytest.mark.parametrize("opcode", [READ, READDIR, READDIRPLUS])
def test_the_handle_of_the_stores_own_nodes_is_the_node(node: int, opcode: int) -> None:
    with Ends() as ends:
        ends.kernel.send(request(opcode, node, read_body(3, 100)))
        got = ends.libfuse.recv(CAPACITY)
        assert slow_lane.READ_IN.unpack(got[IN_HEADER.size :])[:3] == (node, 3, 100)


def test_forgetting_has_no_reply() -> None:
    with Ends() as ends:
        ends.kernel.send(request(FORGET, 5, bytes(8)))
        ends.kernel.send(request(BATCH_FORGET, 0, bytes(24)))
        assert error_of(ends.ask(request(OPEN, 5, bytes(8), 8))) == errno.ENOSYS


def test_the_first_request_is_one_that_overtakes_no_other() -> None:
    with Ends() as ends:
        assert ends.lane.first_request() == 0
        ends.kernel.send(request(FORGET, 5, bytes(8), 90))
        ends.kernel.send(request(BATCH_FORGET, 0, bytes(24), 92))
        ends.kernel.send(request(INTERRUPT, 0, struct.pack("<Q", 2), 3))
        for unique in (40, 42):
            ends.ask(request(OPEN, 5, bytes(8), unique))
        assert ends.lane.first_request() == 40


def test_a_slow_libfuse_does_not_hold_up_replies() -> None:
    with Ends() as ends:
        ends.kernel.setblocking(False)
        sent = 0
        try:
            while True:  # until every buffer on the way is full
                ends.kernel.send(request(CREATE, 5, bytes(1000), sent))
                sent += 1
        except BlockingIOError:
            pass
        ends.kernel.settimeout(20)
        ends.libfuse.send(b"reply")
        assert ends.kernel.recv(CAPACITY) == b"reply"
        for number in range(sent):
            assert IN_HEADER.unpack_from(ends.libfuse.recv(CAPACITY))[2] == number


def test_it_says_what_ended_it() -> None:
    for end, ending in (("kernel", "unmounted"), ("libfuse", "closed"), ("python", "closed")):
        with Ends() as ends:
            getattr(ends, end).shutdown(socket.SHUT_RDWR)
            assert ends.join() == ending
    with Ends() as ends:
        os.eventfd_write(ends.stop, 1)
        assert ends.join() == "stopped"


@settings(deadline=None, max_examples=200)
@given(
    opcode=st.integers(0, 60),
    node=st.sampled_from([1, FILE, 7 << 32 | 1, 7 << 32, 1 << 63]),
    body=st.binary(max_size=90),
)
def test_no_request_however_malformed_ends_the_lane(opcode: int, node: int, body: bytes) -> None:
    with Ends() as ends:
        ends.add_layer(7, small_index(), CONTENT, {0})
        ends.kernel.send(request(opcode, node, body))
        ends.kernel.send(request(OPEN, 5, bytes(8), 1 << 40))
        while OUT_HEADER.unpack_from(ends.kernel.recv(CAPACITY))[2] != 1 << 40:
            pass
        assert not ends.ending
