"""The FUSE session: pyfuse3 on a descriptor that is ours."""

import os
import socket
from pathlib import Path

import pyfuse3

from ..names import FILE_SYSTEM
from . import kernel
from .operations import Operations
from .tree import Tree


class Session:
    """Mounted from construction until `close`.

    libfuse is given one end of a socket pair in which a synthetic INIT waits; when it has read that, the device
    takes the socket's place. Raises MountError.
    """

    def __init__(self, mountpoint: Path, tree: Tree, root: Path, *, read_timeout_seconds: float) -> None:
        self._mountpoint = mountpoint
        self._device = kernel.mount(mountpoint)
        try:
            handshake = kernel.shake_hands(self._device)
            os.set_blocking(self._device, False)
            ours, libfuse_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._fd = libfuse_end.detach()
            with ours:
                ours.send(kernel.synthetic_init(handshake))
                operations = Operations(tree, str(root), read_timeout_seconds, self._connect)
                pyfuse3.init(operations, f"/dev/fd/{self._fd}", {f"fsname={FILE_SYSTEM}"})
                self._ours = socket.socket(fileno=os.dup(ours.fileno()))
        except BaseException:
            kernel.unmount(mountpoint)
            os.close(self._device)
            raise

    def _connect(self) -> None:
        os.dup2(self._device, self._fd, inheritable=False)
        self._ours.close()

    async def serve(self) -> None:
        """Answer requests until the file system is unmounted or `stop` is called."""
        await pyfuse3.main()

    def stop(self) -> None:
        """Unmount, and let `serve` return."""
        kernel.unmount(self._mountpoint)
        pyfuse3.terminate()

    def close(self) -> None:
        """Give the descriptors back."""
        pyfuse3.close(unmount=False)
        os.close(self._device)
