"""What _ext/fuse_lane does, in plain Python."""

import errno
import os
import select


def run(device: int, socket: int, stop: int, capacity: int) -> str:
    """As `registry_storage._ext.fuse_lane.run`."""
    waiting = b""
    while True:
        readable, writable, _ = select.select(
            [socket, stop] if waiting else [device, socket, stop], [socket] if waiting else [], []
        )
        if stop in readable:
            return "stopped"
        if socket in readable:
            reply = os.read(socket, capacity)
            if not reply:
                return "closed"
            try:
                os.write(device, reply)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise
        if device in readable:
            try:
                waiting = os.read(device, capacity)
            except BlockingIOError:
                continue
            if not waiting:
                return "unmounted"
        if waiting and (device in readable or socket in writable):
            try:
                os.write(socket, waiting)
                waiting = b""
            except BlockingIOError:
                continue
