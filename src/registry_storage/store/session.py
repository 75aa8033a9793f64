"""The FUSE session: the device is ours, pyfuse3 gets the requests for the store's own tree over a socket pair."""

import logging
import os
import socket
from pathlib import Path

import pyfuse3
import trio

from ..errors import MountError
from ..names import FILE_SYSTEM
from . import kernel
from .lane import Lane, OpenLayer
from .operations import Operations
from .recorder import Recorder

_log = logging.getLogger(__name__)

_SO_SNDBUFFORCE = 32
_LIBFUSE_QUEUE_BYTES = 4 << 20


class Session:
    """Mounted from construction until `stop`.

    libfuse first reads a synthetic INIT from its end of the pair, because the kernel's was answered by us. Its
    reply to that reaches the kernel with a number that no request has, and is ignored. Raises MountError.
    """

    def __init__(self, mountpoint: Path, operations: Operations, lane: Lane) -> None:
        self._mountpoint = mountpoint
        self._lane = lane
        self._socket, libfuse_socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._stopping = False
        max_read = _make_room(libfuse_socket)
        self._device = kernel.mount(mountpoint, max_read)
        try:
            handshake = kernel.shake_hands(self._device, max_read)
            os.set_blocking(self._device, False)
            self._socket.send(kernel.synthetic_init(handshake))
            try:
                pyfuse3.init(operations, f"/dev/fd/{libfuse_socket.detach()}", {f"fsname={FILE_SYSTEM}"})
            except RuntimeError as error:
                raise MountError(f"mount point {mountpoint}: libfuse: {error}") from None
        except BaseException:
            kernel.unmount(mountpoint)
            self._close_descriptors()
            raise

    async def serve(self, open_layer: OpenLayer, recorder: Recorder | None) -> None:
        """Answer requests until the file system is unmounted or `stop` is called.

        `open_layer` opens the layer of a number and shows it to the lane.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run_lane, open_layer, recorder)
            try:
                await pyfuse3.main()
            finally:
                self._lane.stop()

    async def _run_lane(self, open_layer: OpenLayer, recorder: Recorder | None) -> None:
        ending = await self._lane.serve(self._device, self._socket, open_layer, recorder)
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
