"""The lane's Python side: layers are shown to it, and what it cannot answer alone is made possible.

The lane is a thread without the GIL that answers every request for an open layer (_ext/fuse_lane.pyx). It asks here
to open a layer, or to bring the bytes of a read; then it answers itself.
"""

import errno
import logging
import os
import random
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeAlias

import trio

from .. import metrics, traces
from .._ext import fuse_lane
from ..errors import RegistryStorageError, UnavailableError
from ..layer.layer import Layer
from . import accesses, kernel
from .errnos import EXPECTED, errno_of
from .reasons import Reasons
from .recorder import Recorder

_log = logging.getLogger(__name__)

OpenLayer: TypeAlias = Callable[[int], Awaitable[Layer]]

_HEADER_BYTES = 4096
"""Room for what surrounds the bytes of a reply."""
_ASKED = struct.Struct("=IIQQQIII4x")  # slot, opcode, unique, node, offset, size, pid, tries
_ANSWERED = struct.Struct("=IiQ")  # slot, error, unique
_REPLIED = -1
"""In place of an errno: the kernel has its answer."""
_OUT_HEADER = struct.Struct("=IiQ")  # length, error, unique
_READ = 15
_DISK_THREADS = 2
"""For reads that must wait for the disk."""

_MAX_TAKEN = 1 << 24
"""Numbers of requests among which one that is still waited for is looked for: some seconds."""

LONG_SECONDS = 1.0
"""A read that failed sooner is simply tried again."""
SECOND_TRY_SECONDS = 1.0
"""The kernel reads ahead; where that fails, it asks at once for the one page that is needed, which is not worth
another long wait. It does so once: whoever asks after that is a program that tries again."""
PAGE_BYTES = 4096
MAX_FAILURES = 256
PATIENT_SECONDS = 0.2, 1.0
"""Between the tries of a read whose registry is not there."""


class _Failure(NamedTuple):
    """A read that failed after a long wait."""

    offset: int
    size: int
    until: float


class Lane:
    """One for the process; its thread runs in `serve`."""

    def __init__(self, root: Path, read_timeout_seconds: float, *, every_read: bool) -> None:
        """`every_read`: a recorder will want to see reads that the lane could answer alone.

        Where the log wants to know of accesses, the first read of each file comes here, too.
        """
        self._accesses = accesses.Accesses() if accesses.are_told() else None
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._lane = fuse_lane.Lane(self._root, kernel.MAX_READ + _HEADER_BYTES, every_read, self._accesses is not None)
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._timeout = read_timeout_seconds
        self._recorder: Recorder | None = None
        self._reasons = Reasons()
        self._device = -1
        self._failures: dict[tuple[int, int], _Failure] = {}

    def show(self, number: int, layer: Layer) -> None:
        """From now on requests for this layer number are answered from `layer`."""
        content = layer.content
        self._lane.add_layer(number, layer.index.buffer, content.file, content.state, content.chunk_count)

    async def serve(
        self,
        device: int,
        libfuse: socket.socket,
        open_layer: OpenLayer,
        recorder: Recorder | None,
    ) -> str:
        """Answer requests until the mount is gone ("unmounted"), `stop` ("stopped"), or something breaks.

        `device`: of /dev/fuse, non-blocking, after INIT. `libfuse`: our end of libfuse's socket pair.
        `open_layer` opens the layer of a number and shows it.
        """
        self._recorder = recorder
        self._device = device
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        jobs_out, jobs_in = os.pipe2(os.O_CLOEXEC)
        back_out, back_in = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(jobs_in, False)
        os.set_blocking(back_out, False)
        limiter = trio.CapacityLimiter(1 + _DISK_THREADS)

        def run() -> str:
            try:
                return self._lane.run(
                    device, libfuse.fileno(), theirs.fileno(), self._stop, jobs_in, back_out
                )
            finally:
                os.close(jobs_in)

        def run_disk() -> None:
            self._lane.run_disk(device, jobs_out, back_in)

        try:
            async with trio.open_nursery() as nursery:
                for _ in range(_DISK_THREADS):
                    nursery.start_soon(lambda: trio.to_thread.run_sync(run_disk, limiter=limiter))
                async with trio.open_nursery() as answering:
                    answering.start_soon(self._take_questions, ours, open_layer)
                    ending = await trio.to_thread.run_sync(run, limiter=limiter)
                    answering.cancel_scope.cancel()
        finally:
            ours.close()
            theirs.close()
            for descriptor in (jobs_out, back_out, back_in):
                os.close(descriptor)
        return ending

    def counts(self) -> dict[str, int]:
        """What the lane counted since the start, see fuse_lane.pyi."""
        return self._lane.counts()

    async def fail_taken(self, mountpoint: Path) -> int:
        """Answer with ESTALE what an earlier worker took and the kernel cannot deliver again; `serve` is running.

        Numbers of requests ascend, so all that is below the first of ours is older: a request of our own makes sure
        that there is a first. The kernel asks again by itself where it can: look-ups of paths, pages read ahead.
        Returns how many there were.
        """
        await trio.to_thread.run_sync(os.statvfs, mountpoint, abandon_on_cancel=True)
        below = self._lane.first_request()
        return await trio.to_thread.run_sync(
            fuse_lane.fail_taken, self._device, below, _MAX_TAKEN, errno.ESTALE, abandon_on_cancel=True
        )

    def stop(self) -> None:
        """Let `serve` return."""
        os.eventfd_write(self._stop, 1)

    def close(self) -> None:
        """Give the descriptors back; `serve` has returned."""
        os.close(self._stop)
        os.close(self._root)

    async def _take_questions(self, ours: socket.socket, open_layer: OpenLayer) -> None:
        questions = trio.socket.from_stdlib_socket(ours)

        async def settle(slot: int, opcode: int, unique: int, *what: int) -> None:
            error = await self._prepare(open_layer, opcode, unique, *what)
            await questions.send(_ANSWERED.pack(slot, error, unique))

        async with trio.open_nursery() as nursery:
            while record := await questions.recv(_ASKED.size):
                nursery.start_soon(settle, *_ASKED.unpack(record))

    async def _prepare(
        self, open_layer: OpenLayer, opcode: int, unique: int, node: int, offset: int, size: int, pid: int,
        tries: int,
    ) -> int:  # fmt: skip
        """Make the request answerable: 0; or the errno that answers it, or `_REPLIED`."""
        if opcode == _READ and self._is_second_try(node, pid, offset, size):
            return errno.EIO
        try:
            with metrics.timed("open_layer"), traces.span("fuse open layer"):
                layer = await open_layer(node >> 32)
            if opcode == _READ:
                with metrics.timed("missing_read"), traces.span("fuse read", offset=offset, size=size):
                    data = await self._bring(layer, node, offset, size, pid, again=tries > 0)
                if data is not None:
                    self._reply(unique, data)
                    return _REPLIED
        except EXPECTED as error:
            metrics.count_error("missing_read" if opcode == _READ else "open_layer")
            number = errno_of(error)
            if opcode != _READ:
                self._reasons.tell("layer", error)
                return number
            if not isinstance(error, RegistryStorageError):  # those were told where they happened, with their file
                self._reasons.tell("read", error)
            return errno.EIO if number == errno.ENOENT else number
        except Exception:
            _log.exception("node %#x: request %d failed", node, opcode)
            return errno.EIO
        return 0

    def _reply(self, unique: int, data: bytes) -> None:
        """Answer a read past the lane."""
        with suppress(OSError):  # the request was interrupted, and is answered already
            os.writev(self._device, [_OUT_HEADER.pack(_OUT_HEADER.size + len(data), 0, unique), data])

    async def _bring(
        self, layer: Layer, node: int, offset: int, size: int, pid: int, *, again: bool
    ) -> bytes | None:
        """Have the bytes of a read where the lane finds them; or return them, when the disk cannot take them."""
        inode, started = (node & 0xFFFFFFFF) - 1, trio.current_time()
        if self._accesses is not None:
            self._accesses.note(layer, inode, pid)
        try:
            with trio.fail_after(self._timeout):
                length = await self._bring_patiently(layer, inode, offset, size, again=again)
            path = layer.index.path(inode).decode("utf-8", "backslashreplace")
            metrics.remember_read(trio.current_time() - started, f"/{path}", str(layer.key.layer_digest))
        except (RegistryStorageError, OSError, trio.TooSlowError) as error:
            layer.chunks.note_error(error)
            now = trio.current_time()
            if now - started >= LONG_SECONDS and size > PAGE_BYTES:
                if len(self._failures) >= MAX_FAILURES:
                    self._failures.clear()
                self._failures[node, pid] = _Failure(offset, size, now + SECOND_TRY_SECONDS)
            if isinstance(error, trio.TooSlowError):
                path = layer.index.path(inode).decode("utf-8", "backslashreplace")
                raise TimeoutError(
                    errno.ETIMEDOUT, f"layer {layer.key.layer_digest}: /{path}: no bytes within {self._timeout:g} s"
                ) from None
            raise
        if self._recorder is not None and not again:
            await self._recorder.note(node >> 32, layer, inode, offset, length)
        return layer.take_loose(inode, offset, length) if length else None

    async def _bring_patiently(self, layer: Layer, inode: int, offset: int, size: int, *, again: bool) -> int:
        """Until the registry is back, for as long as the reader waits."""
        while True:
            try:
                return await layer.bring(inode, offset, size, again=again)
            except UnavailableError:
                await trio.sleep(random.uniform(*PATIENT_SECONDS))  # noqa: S311  # the breaker spreads them, too

    def _is_second_try(self, node: int, pid: int, offset: int, size: int) -> bool:
        failure = self._failures.pop((node, pid), None)
        return (
            failure is not None
            and trio.current_time() < failure.until
            and size <= PAGE_BYTES
            and failure.offset <= offset < failure.offset + failure.size
        )
