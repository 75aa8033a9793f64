"""Tells systemd how the daemon is (sd_notify(3))."""

import array
import os
import socket
from collections.abc import Sequence


def notify(state: str, descriptors: Sequence[int] = ()) -> None:
    """Send `state` ("READY=1", "STOPPING=1") and descriptors, where somebody listens; never fails."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    if address[0] == "@":
        address = "\0" + address[1:]
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            channel.sendmsg([state.encode()], rights, 0, address)
        except OSError:
            return
