"""Which files of which layers are read, for the log at debug level: each once."""

import logging
from weakref import WeakKeyDictionary

from ..layer.layer import Layer

_log = logging.getLogger(__name__)


def are_told() -> bool:
    """Whether anybody wants to know."""
    return _log.isEnabledFor(logging.DEBUG)


class Accesses:
    """Remembers what was told since the daemon runs: a bit per entry of a layer."""

    def __init__(self) -> None:
        self._told: WeakKeyDictionary[Layer, bytearray] = WeakKeyDictionary()

    def note(self, layer: Layer, inode: int, pid: int) -> None:
        """Thread `pid` (0: of another namespace) reads a file."""
        told = self._told.get(layer)
        if told is None:
            told = self._told[layer] = bytearray((layer.index.inode_count + 7) // 8)
        bit = 1 << (inode & 7)
        if told[inode >> 3] & bit:
            return
        told[inode >> 3] |= bit
        path = layer.index.path(inode).decode("utf-8", "backslashreplace")
        _log.debug(
            "file is read", extra={"layer": str(layer.key.layer_digest), "path": f"/{path}", "pid": pid}
        )
