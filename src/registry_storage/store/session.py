"""The FUSE session: the device is ours, pyfuse3 gets its requests over a socket pair."""

import logging
import os
import socket
from pathlib import Path

import pyfuse3
import trio

from .._ext import fuse_lane
from ..errors import MountError
from ..names import FILE_SYSTEM
from . import kernel
from .operations import Operations
from .recorder import Recorder
from .tree import Tree

_log = logging.getLogger(__name__)

_HEADER_BYTES = 4096
"""Room for what surrounds the bytes of a read."""
_SO_SNDBUFFORCE = 32
_LIBFUSE_QUEUE_BYTES = 4 << 20


class Session:
    """Mounted from construction until `stop`.

    libfuse first reads a synthetic INIT from its end of the pair, because the kernel's was answered by us. Its
    reply to that reaches the kernel with a number that no request has, and is ignored. Raises MountError.
    """

    def __init__(
        self, mountpoint: Path, tree: Tree, root: Path, *, read_timeout_seconds: float, recorder: Recorder | None
    ) -> None:
        self._mountpoint = mountpoint
        self._socket, libfuse_socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopping = False
        self._max_read = _make_room(libfuse_socket)
        self._device = kernel.mount(mountpoint, self._max_read)
        try:
            handshake = kernel.shake_hands(self._device, self._max_read)
            os.set_blocking(self._device, False)
            self._socket.send(kernel.synthetic_init(handshake))
            operations = Operations(tree, str(root), read_timeout_seconds, recorder)
            try:
                pyfuse3.init(operations, f"/dev/fd/{libfuse_socket.detach()}", {f"fsname={FILE_SYSTEM}"})
            except RuntimeError as error:
                raise MountError(f"mount point {mountpoint}: libfuse: {error}") from None
        except BaseException:
            kernel.unmount(mountpoint)
            self._close_descriptors()
            raise

    async def serve(self) -> None:
        """Answer requests until the file system is unmounted or `stop` is called."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run_lane)
            try:
                await pyfuse3.main()
            finally:
                os.eventfd_write(self._stop, 1)

    async def _run_lane(self) -> None:
        capacity = self._max_read + _HEADER_BYTES
        ending = await trio.to_thread.run_sync(
            fuse_lane.run, self._device, self._socket.fileno(), self._stop, capacity, limiter=trio.CapacityLimiter(1)
        )
        if not self._stopping:
            log = _log.info if ending == "unmounted" else _log.error
            log("%s: %s", self._mountpoint, ending)
            self._terminate()

    def stop(self) -> None:
        """Unmount, and let `serve` return."""
        kernel.unmount(self._mountpoint)
        self._terminate()

    def _terminate(self) -> None:
        if not self._stopping:
            self._stopping = True
            pyfuse3.terminate()

    def close(self) -> None:
        """Give the descriptors back; `serve` has returned."""
        pyfuse3.close(unmount=False)
        self._close_descriptors()

    def _close_descriptors(self) -> None:
        os.close(self._device)
        os.close(self._stop)
        self._socket.close()


def _make_room(libfuse_socket: socket.socket) -> int:
    """Let one message hold the largest reply; the bytes of a read that then fit.

    Beyond the system's limit only with privileges (CAP_NET_ADMIN); without, reads are smaller.
    """
    try:
        libfuse_socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _LIBFUSE_QUEUE_BYTES)
    except PermissionError:
        return kernel.SMALL_READ
    return kernel.MAX_READ
