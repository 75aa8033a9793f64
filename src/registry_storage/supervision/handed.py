"""What a supervisor hands to each worker, and what they say to each other."""

import json
import socket
from dataclasses import asdict, dataclass

from ..store.kernel import Handshake, Mounted

OPTION = "--handed"
"""The worker's first word on its command line; the next one is `Handed.to_text`."""

PREPARED = b"prepared"
"""Worker: everything is loaded; it waits for GO."""
GO = b"go"
"""Supervisor: serve."""
SPARE = b"spare"
"""Worker: whoever has the other end of the first descriptor is prepared; the second is its process descriptor."""
SERVING = b"serving"
"""Worker: requests are being answered."""
LEAVE = b"leave"
"""Supervisor: end, and leave the mount as it is."""
UPGRADE = b"upgrade"
"""Worker: somebody wants a new one to take over."""
REFUSED = b"refused"
"""Supervisor: the new one did not come up; go on."""


@dataclass(frozen=True, slots=True)
class Handed:
    """Descriptors by number, and what was agreed with the kernel."""

    device: int
    """Of /dev/fuse."""
    lock: int
    """Of the root directory's lock."""
    verified: int
    """Of the memory that says which chunks were verified."""
    channel: int
    """One end of a SOCK_SEQPACKET pair; the supervisor has the other."""
    max_read: int
    minor: int
    flags: int
    again: bool
    """Somebody served this mount before: what it had taken must be delivered again."""

    @property
    def mounted(self) -> Mounted:
        """The mount."""
        return Mounted(self.device, self.max_read, Handshake(self.minor, self.flags))

    def to_text(self) -> str:
        """One word for a command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> "Handed":
        """The same again."""
        return cls(**json.loads(text))


def say(channel: socket.socket, word: bytes) -> bool:
    """Send a word; False: the other side is gone."""
    try:
        channel.send(word)
    except OSError:
        return False
    return True
