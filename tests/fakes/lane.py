"""A lane between socket pairs: one end stands for the kernel, the others for libfuse and for Python."""

import mmap
import os
import socket
import struct
import tempfile
import threading
from types import TracebackType
from typing import Self

from registry_storage._ext import fuse_lane
from registry_storage.toc.index import TocIndex

CAPACITY = (1 << 20) + 4096
ASKED = struct.Struct("=IIQQQIII4x")
ANSWERED = struct.Struct("=IiQ")
TIMEOUT_SECONDS = 30.0


class Ends:
    """Running from construction to `close`; each socket is ours to read and write."""

    def __init__(self, *, every_read: bool = False) -> None:
        self.kernel, self._device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.libfuse, self._pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.python, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self.kernel, self.libfuse, self.python):
            end.settimeout(TIMEOUT_SECONDS)
        for end in (self._device, self._pair, self._theirs):
            end.setblocking(False)
        self.stop = os.eventfd(0)
        self._jobs, self._jobs_in = os.pipe()
        self._back, self._back_in = os.pipe()
        os.set_blocking(self._jobs_in, False)
        os.set_blocking(self._back, False)
        self.ending = ""
        self._files: list[int] = []
        self._root = os.open("/", os.O_RDONLY)
        self.lane = fuse_lane.Lane(self._root, CAPACITY, every_read)
        self._threads = [threading.Thread(target=self._run), threading.Thread(target=self._run_disk)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        device, pair, theirs = self._device.fileno(), self._pair.fileno(), self._theirs.fileno()
        self.ending = self.lane.run(device, pair, theirs, self.stop, self._jobs_in, self._back)
        os.close(self._jobs_in)

    def _run_disk(self) -> None:
        self.lane.run_disk(self._device.fileno(), self._jobs, self._back_in)

    def add_layer(self, number: int, index: TocIndex, content: bytes, verified: set[int]) -> mmap.mmap:
        """Show a layer; returns the memory that says which chunks may be served."""
        file, path = tempfile.mkstemp()
        os.unlink(path)
        self._files.append(file)
        os.write(file, content)
        length = (index.chunk_count + 7) // 8
        state = mmap.mmap(-1, 64 + 2 * max(1, length))
        for chunk in verified:
            state[64 + (chunk >> 3)] |= 1 << (chunk & 7)
        self.lane.add_layer(number, index.buffer, file, state, index.chunk_count)
        return state

    def ask(self, request: bytes) -> bytes:
        """Send a request as the kernel does; returns the reply."""
        self.kernel.send(request)
        return self.kernel.recv(CAPACITY)

    def question(self) -> tuple[int, ...]:
        """What Python is asked: slot, opcode, unique, node, offset, size, pid, tries."""
        return ASKED.unpack(self.python.recv(ASKED.size))

    def answer(self, slot: int, unique: int, error: int = 0) -> None:
        """What Python says."""
        self.python.send(ANSWERED.pack(slot, error, unique))

    def join(self) -> str:
        """Wait for the end; what ended it."""
        for thread in self._threads:
            thread.join(TIMEOUT_SECONDS)
            assert not thread.is_alive()
        return self.ending

    def close(self) -> None:
        os.eventfd_write(self.stop, 1)
        self.join()
        for end in (self.kernel, self._device, self.libfuse, self._pair, self.python, self._theirs):
            end.close()
        for file in (self.stop, self._jobs, self._back, self._back_in, self._root, *self._files):
            os.close(file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
