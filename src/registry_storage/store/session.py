"""The FUSE session: the device is ours, pyfuse3 gets the requests for the store's own tree over a socket pair."""

import logging
import socket
from pathlib import Path

import pyfuse3
import trio

from ..errors import MountError
from ..names import FILE_SYSTEM
from . import kernel
from .kernel import Mounted
from .lane import Lane, OpenLayer
from .operations import Operations
from .recorder import Recorder

_log = logging.getLogger(__name__)


class Session:
    """Serves a mount until `leave`, or until it is gone.

    libfuse first reads a synthetic INIT from its end of the pair, because the kernel's was answered by whoever
    mounted. Its reply to that reaches the kernel with a number that no request has, and is ignored. Raises MountError.
    """

    def __init__(self, mountpoint: Path, mounted: Mounted, operations: Operations, lane: Lane) -> None:
        self._mountpoint = mountpoint
        self._lane = lane
        self._device = mounted.device
        self._leaving = False
        self._socket, libfuse_socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            if mounted.max_read > kernel.SMALL_READ:
                kernel.make_room(libfuse_socket)
            self._socket.send(kernel.synthetic_init(mounted.handshake))
            pyfuse3.init(operations, f"/dev/fd/{libfuse_socket.detach()}", {f"fsname={FILE_SYSTEM}"})
        except (OSError, RuntimeError) as error:
            self._socket.close()
            raise MountError(f"mount point {mountpoint}: libfuse: {error}") from None

    async def serve(self, open_layer: OpenLayer, recorder: Recorder | None) -> None:
        """Answer requests until the file system is unmounted or `leave` is called.

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
        if not self._leaving:
            log = _log.info if ending == "unmounted" else _log.error
            log("%s: %s", self._mountpoint, ending)
            self.leave()

    async def fail_taken(self) -> None:
        """Nobody shall wait forever for a worker that is gone, where the kernel cannot deliver again; while serving."""
        count = await self._lane.fail_taken(self._mountpoint)
        _log.warning(
            "%s: this kernel cannot deliver again what the last worker had taken (before 6.9): %d requests failed",
            self._mountpoint, count,
        )  # fmt: skip

    def leave(self) -> None:
        """Let `serve` return. The mount stays; what was taken from the kernel and not answered is lost with us."""
        if not self._leaving:
            self._leaving = True
            pyfuse3.terminate()

    def close(self) -> None:
        """Give the descriptors back; `serve` has returned."""
        pyfuse3.close(unmount=False)
        self._socket.close()
