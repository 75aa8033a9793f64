"""Chooses the faults of each request: by a list, or by chance that a seed makes repeatable."""

import random
import time
from collections import Counter
from typing import Protocol

from .answers import LoggedRequest
from .faults import Fault


class Script(Protocol):
    """Is asked once for each request, in the order in which they come."""

    def __call__(self, request: LoggedRequest) -> list[Fault]:
        """What to do to this one."""


class RandomFaults:
    """A share of the requests meets one fault; some faults begin a burst, which all meet for a while."""

    def __init__(self, seed: int, share: float = 0.15, longest_seconds: float = 10.0) -> None:
        """`share`: of the requests, 0 to 1. `longest_seconds`: of a delay; stalls end when the client goes away.

        With one seed the choices are the same; which request meets them depends on the order of the requests.
        """
        self.seed = seed
        self.done: Counter[str] = Counter()
        """How often each kind was chosen."""
        self._random = random.Random(seed)
        self._share = share
        self._longest = longest_seconds
        self._burst_until = 0.0
        self._bursting = Fault("disconnect")

    def __call__(self, request: LoggedRequest) -> list[Fault]:
        """See Script."""
        now = time.monotonic()
        if now < self._burst_until:
            return [self._chosen(self._bursting)]
        if self._random.random() >= self._share:
            return []
        fault, burst_seconds = self._any()
        self._bursting, self._burst_until = fault, now + burst_seconds
        return [self._chosen(fault)]

    def _chosen(self, fault: Fault) -> Fault:
        self.done[f"status {fault.status}" if fault.kind == "status" else fault.kind] += 1
        return fault

    def _any(self) -> tuple[Fault, float]:
        """A fault, and for how many seconds the next requests meet it too."""
        chance = self._random
        at = int(2 ** chance.uniform(0, 20))
        kind = chance.choice(
            (
                *("reset", "truncate", "unframed", "corrupt", "swap", "length", "wrong-range", "shift") * 3,
                *("disconnect", "garbage", "ignore-range", "chunked", "headers", "expire") * 2,
                *("status", "busy", "drip", "delay", "stall"),
            )
        )
        if kind == "status":
            return Fault("status", status=chance.choice((500, 502, 503, 504))), chance.choice((0, 0, 0.5, 3))
        if kind == "busy":
            wait = chance.choice(("0", "1", "2", "Thu, 01 Jan 1970 00:00:00 GMT", "soon"))
            return Fault("status", status=429, headers={"retry-after": wait}), chance.choice((0, 0, 1))
        if kind == "disconnect":
            return Fault("disconnect"), chance.choice((0, 0, 0, 2))
        if kind == "drip":
            return Fault("drip", at=1 + at // 16, seconds=chance.uniform(0.01, 0.2)), 0
        if kind == "delay":
            return Fault("delay", seconds=chance.uniform(0, self._longest)), 0
        if kind == "stall":
            return Fault("stall", at=chance.choice((None, at))), 0
        if kind == "length":
            return Fault("length", at=chance.choice((-1, 1)) * at), 0
        if kind == "headers":
            name = chance.choice(("content-range", "content-type", "content-encoding", "accept-ranges"))
            value = chance.choice((None, "", "bytes 0-0/1", "bytes 1-0/0", "gzip", "none", "bytes 0-"))
            return Fault("headers", headers={name: value}), 0
        return Fault(kind, at=at), 0
