"""Who is busy: readers always go before prefetch, and prefetch before background work."""

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from ..errors import RegistryStorageError


class GaveWayError(RegistryStorageError):
    """Background work ended because somebody needs the link: nothing is wrong."""


class Activity:
    """Counts the fetches that somebody needs: a reader, or the prioritized files of a layer that is in use.

    A reader that waits for what is being fetched ahead anyway does not count: that work must not wait for it.
    """

    def __init__(self) -> None:
        self._readers = 0
        self._prefetches = 0
        self._last = -1e9
        self._changed = trio.Event()
        self._giving_way: set[trio.CancelScope] = set()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """For as long as a reader's fetch goes on."""
        self._readers += 1
        self.interrupt()
        try:
            yield
        finally:
            self._readers -= 1
            self._ended()

    @contextmanager
    def prefetching(self) -> Iterator[None]:
        """For as long as prioritized files are fetched."""
        self._prefetches += 1
        self.interrupt()
        try:
            yield
        finally:
            self._prefetches -= 1
            self._ended()

    @contextmanager
    def giving_way(self) -> Iterator[None]:
        """Work that is cut off as soon as anybody else needs the link; raises GaveWayError then."""
        with trio.CancelScope() as scope:
            self._giving_way.add(scope)
            try:
                yield
            finally:
                self._giving_way.discard(scope)
        if scope.cancelled_caught:
            raise GaveWayError("somebody else needs the link")

    def touch(self) -> None:
        """Somebody will soon need the link."""
        self._last = trio.current_time()
        self.interrupt()

    def interrupt(self) -> None:
        """Somebody needs the link, or what background work has begun to fetch."""
        for scope in self._giving_way:
            scope.cancel()

    async def no_reader(self) -> None:
        """Wait for a moment without a reader's fetch."""
        while self._readers:
            await self._changed.wait()

    async def quiet(self, seconds: float) -> bool:
        """Wait until nobody has needed the link for `seconds`; whether that had to be waited for."""
        waited = False
        while True:
            remaining = self._last + seconds - trio.current_time()
            if self._readers or self._prefetches:
                await self._changed.wait()
            elif remaining > 0:
                await trio.sleep(remaining)
            else:
                return waited
            waited = True

    def _ended(self) -> None:
        self._last = trio.current_time()
        self._changed.set()
        self._changed = trio.Event()
