"""When a failed attempt is worth another, how long to wait for it, and when to give up."""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import trio

from .. import metrics
from ..errors import RegistryError


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait, in seconds; consumers of a layer store wait for minutes, so we fail well before."""

    connect_seconds: float = 5.0
    """For TCP, and again for TLS."""
    first_byte_seconds: float = 8.0
    """From the sent request to the reply's headers."""
    stall_seconds: float = 8.0
    """Between two pieces of a body."""
    operation_seconds: float = 18.0
    """Without any progress, over all attempts, waits, token requests and redirects of one operation."""
    minimum_bytes_per_second: int = 16 << 10
    """A transfer that is slower on average, after `operation_seconds` of grace, is given up."""
    token_seconds: float = 10.0
    """For one request to a token server."""
    helper_seconds: float = 10.0
    """For one run of a credential helper."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential back-off with full jitter: a random part of `base_seconds` doubled with every failure."""

    attempts: int = 5
    """Tries in a row without progress, the first one included."""
    base_seconds: float = 0.25
    cap_seconds: float = 5.0
    retry_after_cap_seconds: float = 30.0
    """A registry that asks for a longer wait gets this one."""
    progress_bytes: int = 64 << 10
    """Every so many bytes received, the count of failures and the time for the operation start again."""


class RetryableError(Exception):
    """One attempt failed, but another may not; `error` is what to raise when there is none.

    `host` was asked and answered with `status`, 0 for no answer or a broken one. `retry_after_seconds` is what the
    registry asked for.
    """

    def __init__(
        self, error: RegistryError, host: str, status: int = 0, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(str(error))
        self.error = error
        self.host = host
        self.status = status
        self.retry_after_seconds = retry_after_seconds


class Budget:
    """The time and the attempts that one operation may still use."""

    def __init__(
        self,
        timeouts: Timeouts,
        policy: RetryPolicy,
        *,
        size: int = 0,
        random_source: Callable[[], float] = random.random,
    ) -> None:
        """`size`: bytes that the operation transfers. `random_source` yields numbers in [0, 1)."""
        now = trio.current_time()
        self._timeouts = timeouts
        self._policy = policy
        self._random = random_source
        self._idle_until = now + timeouts.operation_seconds
        self._until = self._idle_until + size / timeouts.minimum_bytes_per_second
        self._failures = 0
        self._received_bytes = 0
        self._sent_bytes = 0

    @property
    def deadline(self) -> float:
        """On trio's clock, seconds."""
        return min(self._idle_until, self._until)

    def progressed(self, size: int) -> None:
        """`size` bytes arrived. A few buy no more time: a registry that stalls could go on for long."""
        self._received_bytes += size
        if self._received_bytes >= self._policy.progress_bytes:
            self._received_bytes = self._failures = 0
            self._idle_until = trio.current_time() + self._timeouts.operation_seconds

    def sent(self, size: int) -> None:
        """`size` bytes are on their way. That buys time, but whether they arrive is to be seen."""
        self._sent_bytes += size
        if self._sent_bytes >= self._policy.progress_bytes:
            self._sent_bytes = 0
            self._idle_until = trio.current_time() + self._timeouts.operation_seconds

    def held(self, seconds: float) -> None:
        """The consumer took so long to take what had arrived: not the registry's fault."""
        self._idle_until += seconds
        self._until += seconds

    async def pause(self, failure: RetryableError) -> None:
        """Wait before the next attempt; raises the failure's error when there is to be none."""
        self._failures += 1
        policy = self._policy
        delay = self._random() * min(policy.cap_seconds, policy.base_seconds * 2.0 ** (self._failures - 1))
        if failure.retry_after_seconds is not None:
            delay += min(failure.retry_after_seconds, policy.retry_after_cap_seconds)
        if self._failures >= policy.attempts or trio.current_time() + delay >= self.deadline:
            raise failure.error from failure.__cause__
        metrics.count_retry(failure.host, failure.status)
        await trio.sleep(delay)


def parse_retry_after(text: str | None, date: str | None, wall_clock: Callable[[], float]) -> float | None:
    """Seconds to wait, from a ``Retry-After`` header (RFC 9110 section 10.2.3); None: absent or malformed.

    `date`: the reply's ``Date`` header. A date to wait for is one by the host's clock: ours may be wrong.
    """
    if text is None:
        return None
    text = text.strip()
    if re.fullmatch(r"[0-9]{1,9}", text, re.ASCII):
        return float(text)
    try:
        until = parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
    try:
        now = wall_clock() if date is None else parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        now = wall_clock()
    return max(0.0, until - now)
