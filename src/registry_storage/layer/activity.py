"""Who is busy: readers always go before prefetch, and prefetch before background work."""

from collections.abc import Iterator
from contextlib import contextmanager

import trio


class Activity:
    """Counts the fetches that a reader asked for.

    A reader that waits for what is being fetched ahead anyway does not count: that work must not wait for it.
    """

    def __init__(self) -> None:
        self._readers = 0
        self._last = -1e9
        self._none = trio.Event()
        self._none.set()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """For as long as such a fetch goes on."""
        self._readers += 1
        if self._none.is_set():
            self._none = trio.Event()
        try:
            yield
        finally:
            self._readers -= 1
            self._last = trio.current_time()
            if not self._readers:
                self._none.set()

    async def quiet(self, seconds: float) -> None:
        """Wait until no such fetch has gone on for `seconds`."""
        while True:
            await self._none.wait()
            remaining = self._last + seconds - trio.current_time()
            if remaining <= 0:
                return
            await trio.sleep(remaining)
