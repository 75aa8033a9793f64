"""Fuzz target: the lane, asked as no kernel asks, answered as no Python answers, over an index that may be damaged.

    python -m tests.fuzz.fuzz_lane [libFuzzer options] [corpus directory]          (needs atheris)

Whatever the bytes: every request that the lane took is answered once, in a form that the kernel takes, or it went to
libfuse, or Python was asked about it. The lane runs in this thread, in rounds, so the same bytes do the same again.
"""

import json
import mmap
import os
import random
import socket
import struct
import sys
from collections.abc import Iterator

from registry_storage._ext import fuse_lane
from registry_storage.toc.index import build_index
from tests.fakes.lane import ANSWERED, ASKED, CAPACITY
from tests.reference.slow_lane import (
    BATCH_FORGET,
    CREATE,
    FORGET,
    GETATTR,
    GETXATTR,
    IN_HEADER,
    INTERRUPT,
    LISTXATTR,
    LOOKUP,
    LSEEK,
    OPEN,
    OUT_HEADER,
    READ,
    READDIR,
    READDIRPLUS,
    READLINK,
    STATFS,
    read_body,
)

NUMBER = 7
CONTENT = random.Random(1).randbytes(16384)
STATE_BYTES = 64 + 2
FOREIGN = b"\xff" * 8
"""The number of what is not counted: raw requests, and replies of libfuse."""
MAX_REQUESTS = 12
"""In a round: their replies fit into the socket's buffer."""
CHAIN = (1 << 31 | NUMBER) << 32
NODES = (NUMBER << 32, 8 << 32, CHAIN, 0, 4 << 28, 0xFFFFFFFF << 32, NUMBER << 32 | 0xFFFFFF00, NUMBER << 32 | 1 << 31)
REQUEST, RAW_REQUEST, LONG_REQUEST, RUN, ANSWER, WRONG_ANSWER, RAW_ANSWER, REPLY, STATE, HIDE = range(10)


def good_index() -> bytes:
    """Directories, a file of three chunks, an empty one, links, a device, attributes."""
    digest = "sha256:" + "5a" * 32
    entries: list[dict[str, object]] = [
        {"name": "d/", "type": "dir", "xattrs": {"user.a": "QUJD", "user.bc": ""}},
        {"name": "d/f", "type": "reg", "size": 12000, "offset": 0, "chunkSize": 5000, "chunkDigest": digest},
        {"name": "d/f", "type": "chunk", "offset": 50, "chunkOffset": 5000, "chunkSize": 5000, "chunkDigest": digest},
        {"name": "d/f", "type": "chunk", "offset": 90, "chunkOffset": 10000, "chunkDigest": digest},
        {"name": "d/empty", "type": "reg"},
        {"name": "d/hard", "type": "hardlink", "linkName": "d/f"},
        {"name": "soft", "type": "symlink", "linkName": "d/f"},
        {"name": "null", "type": "char", "devMajor": 1, "devMinor": 3},
    ]
    toc = json.dumps({"version": 1, "entries": entries}).encode()
    return build_index(toc, blob_size=200, toc_offset=100)


INDEX = good_index()


def seeds() -> list[bytes]:
    """Every operation as a kernel asks it, for every entry; reads that wait, are brought, fail and are given up."""
    bodies = {
        LOOKUP: b"d\0", GETATTR: bytes(16), READLINK: b"", READ: read_body(4000, 4096),
        GETXATTR: struct.pack("<II", 64, 0) + b"user.a\0", LISTXATTR: struct.pack("<II", 0, 0),
        READDIR: read_body(0, 4096), READDIRPLUS: read_body(1, 400), FORGET: bytes(8), BATCH_FORGET: bytes(24),
        INTERRUPT: struct.pack("<Q", 2), OPEN: bytes(8), STATFS: b"", CREATE: bytes(20), LSEEK: bytes(24),
    }  # fmt: skip
    asked = [(opcode, node, entry, body) for opcode, body in bodies.items() for node in (0, 1, 4) for entry in (1, 3)]
    requests = [_step(REQUEST, bytes([opcode, node, entry]) + body) for opcode, node, entry, body in asked]
    read = _step(REQUEST, bytes([READ, 0, 3]) + bodies[READ])
    run, bring = _step(RUN), _step(STATE, bytes([64, 7]))
    good = [b"\7" + b"\0" + one for one in requests]
    good += [b"\0\0" + read + run + bring + _step(ANSWER, bytes([0, error])) for error in (0, 5, 255)]
    good += [b"\0\0" + read + run + _step(ANSWER, b"\0\0") * 5]
    good += [b"\0\0" + read + _step(REQUEST, bytes([INTERRUPT, 3, 0]) + bytes([1] + 7 * [0])) + run]
    good += [b"\x17\0" + read + run + bring, b"\x0f\0" + read + run + _step(HIDE) + read]
    good += [b"\0\0" + _step(REQUEST, bytes([opcode, 1, 1])) + run + _step(ANSWER, b"\0\5") for opcode in bodies]
    good += [b"\7\0" + _step(REQUEST, bytes([LOOKUP, 0, 1]) + b".registry-storage\0"), b"\7\0" + run]
    good += [b"\7\0" + _step(WRONG_ANSWER, bytes(16)) + run, b"\7\0" + _step(RAW_ANSWER, b"x") + run]
    good += [b"\7\0" + _step(REPLY, bytes(20)) + run + _step(RAW_REQUEST, b"short")]
    good += [b"\7\0" + _step(LONG_REQUEST, bytes([LOOKUP, 0, 1, 255]) + b"name")]
    for position in range(256, len(INDEX), 61):
        good.append(b"\7\1" + struct.pack("<HB", position, 0x81) + b"".join(requests[:30:3]) + run)
    return good


def _step(kind: int, payload: bytes = b"") -> bytes:
    return bytes([kind, len(payload)]) + payload


def one_input(data: bytes) -> None:
    """Byte 0: chunks that are there (bits 0 to 2), Python sees every read (3), the content blocks (4).

    Byte 1: how many edits of the index follow, each a position and a byte to XOR. Then steps: kind, length, payload.
    """
    if len(data) < 2:
        return
    flags, count = data[0], data[1] % 16
    index = bytearray(INDEX)
    for position, change in struct.iter_unpack("<HB", data[2 : 2 + 3 * count][: (len(data) - 2) // 3 * 3]):
        index[position % len(index)] ^= change
    with _Lane(index, flags) as lane:
        for kind, payload in _steps(data[2 + 3 * count :]):
            if not lane.take(kind % 10, payload):
                return
        lane.run()


def _steps(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 2:
        yield data[0], data[2 : 2 + data[1]]
        data = data[2 + data[1] :]


class _Lane:
    """A lane, and what is known of the requests that it got."""

    def __init__(self, index: bytearray, flags: int) -> None:
        self._root = os.open("/", os.O_RDONLY)
        # A file in memory does not know RWF_NOWAIT on older kernels; a file on disk whose page is here does.
        self._content = os.memfd_create("content") if flags & 16 else os.open("/tmp", os.O_TMPFILE | os.O_RDWR)
        os.write(self._content, CONTENT)
        self._state = mmap.mmap(-1, mmap.PAGESIZE)
        self._state[64] = flags & 7
        self._libfuse, self._pair = _pair()
        self._python, self._theirs = _pair()
        self._lane = fuse_lane.Lane(self._root, CAPACITY, bool(flags & 8))
        try:
            self._lane.add_layer(NUMBER, bytes(index), self._content, memoryview(self._state)[:STATE_BYTES], 3)
        except ValueError:
            assert bytes(index) != INDEX
        self._serial = 0
        self._queue: list[bytes] = []
        self._open: dict[int, tuple[int, int]] = {}
        """Requests without an answer: opcode and how many bytes were wanted."""
        self._asked: list[tuple[int, int]] = []
        self._ended = False

    def take(self, kind: int, payload: bytes) -> bool:
        """One step; False when the lane has ended."""
        if kind == REQUEST and len(payload) >= 3:
            self._add(payload[0], NODES[payload[1] % len(NODES)] | payload[2], payload[3:])
        elif kind == LONG_REQUEST and len(payload) >= 4:
            self._add(payload[0], NODES[payload[1] % len(NODES)] | payload[2], payload[4:] * payload[3] * 4)
        elif kind == RAW_REQUEST:
            self._queue.append(payload[:8] + FOREIGN + payload[16:])
        elif kind == ANSWER and len(payload) >= 2 and self._asked:
            slot, unique = self._asked.pop(payload[0] % len(self._asked))
            error = struct.unpack("b", payload[1:2])[0]
            if error < 0:
                self._open.pop(unique, None)  # Python says that it replied itself
            self._python.send(ANSWERED.pack(slot, error, unique))
        elif kind == WRONG_ANSWER:
            wrong = payload[: ANSWERED.size].ljust(ANSWERED.size, b"\0")
            slot, error, unique = ANSWERED.unpack(wrong)
            if (slot, unique) in self._asked:  # it is right by chance
                self._asked.remove((slot, unique))
                if error < 0:
                    self._open.pop(unique, None)
            self._python.send(wrong)
        elif kind == RAW_ANSWER:
            self._python.send(payload or b"\0")
        elif kind == REPLY:
            self._libfuse.send(payload[:8] + FOREIGN + payload[16:])
        elif kind == STATE and len(payload) >= 2:
            self._state[payload[0] % STATE_BYTES] = payload[1]
        elif kind == HIDE:
            self._lane.hide_layer(NUMBER)
        if kind in (RUN, WRONG_ANSWER) or len(self._queue) >= MAX_REQUESTS:
            self.run()
        return not self._ended

    def _add(self, opcode: int, node: int, body: bytes) -> None:
        self._serial += 1
        body = body[: 60 << 10]
        message = IN_HEADER.pack(IN_HEADER.size + len(body), opcode, self._serial, node, 0, 0, 0, 0, 0) + body
        wanted = struct.unpack_from("<I", body, 16)[0] if len(body) >= 20 else 0
        self._open[self._serial] = (opcode, wanted)
        self._queue.append(message)

    def run(self) -> None:
        """Let the lane have what is queued, and look at what it did."""
        kernel, device = _pair()
        jobs_out, jobs_in = os.pipe2(os.O_NONBLOCK)
        back_out, back_in = os.pipe2(os.O_NONBLOCK)
        stop = os.eventfd(0)
        # Everything that waits elsewhere is looked at once, together with the first request, which wants no answer.
        for message in [IN_HEADER.pack(48, FORGET, 0, 1, 0, 0, 0, 0, 0) + bytes(8), *self._queue]:
            if message:
                kernel.send(message)
        self._queue.clear()
        kernel.shutdown(socket.SHUT_WR)
        try:
            ending = self._lane.run(
                device.fileno(), self._pair.fileno(), self._theirs.fileno(), stop, jobs_in, back_out
            )
            os.close(jobs_in)
            self._lane.run_disk(device.fileno(), jobs_out, back_in)
            self._look(kernel, back_out, ending)
        finally:
            for descriptor in (stop, jobs_out, back_out, back_in):
                os.close(descriptor)
            kernel.close()
            device.close()

    def _look(self, kernel: socket.socket, back: int, ending: str) -> None:
        for reply in _received(kernel):
            if len(reply) < OUT_HEADER.size:
                continue  # libfuse's, whatever it was
            length, error, unique = OUT_HEADER.unpack_from(reply)
            if length != len(reply) or unique not in self._open:
                continue  # libfuse's; an answer of the lane that goes nowhere shows below
            opcode, wanted = self._open.pop(unique)
            assert opcode not in (FORGET, BATCH_FORGET)
            assert -512 < error <= 0
            assert length == OUT_HEADER.size or error == 0
            if opcode in (READ, READDIR, READDIRPLUS):
                assert length - OUT_HEADER.size <= wanted
        for message in _received(self._libfuse):
            self._open.pop(IN_HEADER.unpack_from(message)[2], None)
        for record in _received(self._python):
            slot, _, unique, *_ = ASKED.unpack(record)
            self._asked.append((slot, unique))
        try:
            evicted = os.read(back, 4096)
        except BlockingIOError:
            evicted = b""
        if ending != "unmounted":
            self._ended = True
            return
        waiting = {unique for _, unique in self._asked}
        for unique, (opcode, _) in self._open.items():
            assert opcode in (FORGET, INTERRUPT, BATCH_FORGET) or unique in waiting or evicted, (opcode, unique)
        self._open = {unique: what for unique, what in self._open.items() if unique in waiting}

    def __enter__(self) -> "_Lane":
        return self

    def __exit__(self, *_: object) -> None:
        for end in (self._libfuse, self._pair, self._python, self._theirs):
            end.close()
        os.close(self._root)
        os.close(self._content)


def _pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    return ours, theirs


def _received(end: socket.socket) -> Iterator[bytes]:
    while True:
        try:
            message = end.recv(CAPACITY)
        except BlockingIOError:
            return
        if not message:
            return
        yield message


def main() -> None:
    import atheris

    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
