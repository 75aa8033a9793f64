"""Keeps requests away from a host that does not answer, and lets them back one after the other.

Closed, everybody passes. After some failures in a row it is open: everybody waits, and after a pause one request goes
as a probe. When that is answered, the others follow, spread over a moment; when not, the pause doubles.
"""

import math
import random
from collections.abc import Callable

import trio

FAILURES = 8
"""In a row, over all requests to the host."""
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 10.0
SPREAD_SECONDS = 0.02
"""Per request that waits, when the host is back."""


class BreakerOpenError(Exception):
    """The time for the operation ended before the host was back."""


class Breaker:
    """Of one host. Each `enter` that returns is followed by `answered`, or `failed` or `left` with what it returned."""

    def __init__(self, random_source: Callable[[], float] = random.random) -> None:
        """`random_source` yields numbers in [0, 1)."""
        self._random = random_source
        self._failures = 0
        self._openings = 0
        self._open_until = -math.inf
        self._probing = False
        self._waiting = 0
        self._changed = trio.Event()

    @property
    def is_open(self) -> bool:
        """The host did not answer of late."""
        return self._openings > 0

    async def enter(self, deadline: float) -> bool:
        """Wait until a request may go; True: it is the probe. Raises BreakerOpenError at `deadline` (trio's clock)."""
        if not self.is_open:
            return False
        self._waiting += 1
        try:
            with trio.move_on_at(deadline):
                while self.is_open:
                    if not self._probing and trio.current_time() >= self._open_until:
                        self._probing = True
                        return True
                    until = math.inf if self._probing else self._open_until
                    with trio.move_on_at(until):
                        await self._changed.wait()
                await trio.sleep(self._random() * self._waiting * SPREAD_SECONDS)
                return False
            raise BreakerOpenError
        finally:
            self._waiting -= 1

    def answered(self) -> None:
        """The host is there."""
        self._failures = self._openings = 0
        self._probing = False
        self._tell()

    def failed(self, probe: bool) -> None:
        """It did not answer, or said that it cannot."""
        self._failures += 1
        if probe or (self._failures >= FAILURES and not self.is_open):
            pause = min(FIRST_PAUSE_SECONDS * 2.0**self._openings, LONGEST_PAUSE_SECONDS)
            self._openings += 1
            self._open_until = trio.current_time() + pause * (1 + self._random()) / 2
            self._probing = False
            self._tell()

    def left(self, probe: bool) -> None:
        """Whoever asked went away before there was an answer: another may probe."""
        if probe and self._probing:
            self._probing = False
            self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
