"""Tells systemd how the daemon is (sd_notify(3))."""

import os
import socket


def notify(state: str) -> None:
    """Send `state` ("READY=1", "STOPPING=1"), where somebody listens; never fails."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    if address[0] == "@":
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            channel.sendto(state.encode(), address)
        except OSError:
            return
