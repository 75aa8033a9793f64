"""Memory that says which chunks were verified, kept by whoever keeps the mount: it outlives a worker that serves.

One anonymous file for all layers, so that it is one descriptor to hand on. It never outlives the supervisor: what
lies on disk while nobody serves is hashed again.

    0    magic, 8 bytes
    8    bytes in use, from the start, 64 bits
    64   records, each a multiple of 64 bytes: layer digest (32), TOC digest (32), bytes of state (8), 56 unused, state
"""

import mmap
import os
import struct

from .root import LayerKey

BYTES = 1 << 30
"""Of address space; pages that no layer uses take no memory."""
_MAGIC = b"RSTSTAT1"
_HEADER = struct.Struct("=8sQ")
_RECORD = struct.Struct("=32s32sQ56x")
_ALIGN = 64


def create_shared_state() -> int:
    """The descriptor of a new one, close-on-exec."""
    descriptor = os.memfd_create("registry-storage-verified", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, BYTES)
    os.pwrite(descriptor, _HEADER.pack(_MAGIC, _ALIGN), 0)
    return descriptor


def _aligned(size: int) -> int:
    return -size % _ALIGN + size


class SharedState:
    """The states of layers, found by key. One process at a time writes."""

    def __init__(self, descriptor: int) -> None:
        """`descriptor` may be closed afterwards. Raises ValueError when it is not one of ours."""
        self._memory = mmap.mmap(descriptor, BYTES)
        self._view = memoryview(self._memory)
        magic, self._used = _HEADER.unpack_from(self._memory)
        if magic != _MAGIC or not _ALIGN <= self._used <= BYTES:
            raise ValueError("not the shared state of a supervisor")
        self._regions: dict[bytes, tuple[int, int]] = {}
        place = _ALIGN
        while place < self._used:
            layer, toc, size = _RECORD.unpack_from(self._memory, place)
            self._regions[layer + toc] = (place, size)
            place += _RECORD.size + _aligned(size)

    def region(self, key: LayerKey, size: int) -> memoryview:
        """The state of a layer, `size` bytes: as an earlier worker left it, or zeros.

        Where there is no more room it is memory of this process alone, and the next worker hashes again.
        """
        name = bytes.fromhex(key.layer_digest.hex) + bytes.fromhex(key.toc_digest.hex)
        place, known = self._regions.get(name, (0, -1))
        if known != size:
            place = self._used
            used = place + _RECORD.size + _aligned(size)
            if used > BYTES:
                return memoryview(mmap.mmap(-1, max(size, 1)))[:size]
            _RECORD.pack_into(self._memory, place, name[:32], name[32:], size)
            _HEADER.pack_into(self._memory, 0, _MAGIC, used)  # last: a worker may die in between
            self._used = used
            self._regions[name] = (place, size)
        return self._view[place + _RECORD.size : place + _RECORD.size + size]
