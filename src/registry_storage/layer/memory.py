"""A budget of memory for what is being fetched and decoded."""

import ctypes
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

_libc = ctypes.CDLL(None)


def give_back_memory() -> None:
    """Return what was freed to the system: TOCs and ranges take much for a moment, which glibc keeps."""
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)


class MemoryBudget:
    """Hands out bytes in the order of asking; what is larger than everything gets everything, alone."""

    def __init__(self, total_bytes: int) -> None:
        self._total = total_bytes
        self._free = total_bytes
        self._queue: deque[tuple[int, trio.Event]] = deque()

    @property
    def in_use(self) -> int:
        """Bytes that are held now."""
        return self._total - self._free

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return len(self._queue)

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """For as long as `size` bytes are needed. Never ask for more while holding."""
        size = min(size, self._total)
        await self._take(size)
        try:
            yield
        finally:
            self._give(size)

    async def _take(self, size: int) -> None:
        if not self._queue and self._free >= size:
            self._free -= size
            return
        granted = trio.Event()
        self._queue.append((size, granted))
        try:
            await granted.wait()
        except trio.Cancelled:
            if granted.is_set():
                self._give(size)
            else:
                self._queue.remove((size, granted))
                self._give(0)
            raise

    def _give(self, size: int) -> None:
        self._free += size
        while self._queue and self._queue[0][0] <= self._free:
            wanted, granted = self._queue.popleft()
            self._free -= wanted
            granted.set()
