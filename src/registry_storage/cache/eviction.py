"""Makes room on the disk: what was not used for the longest time goes first, what nobody references before the rest.

Who has something to give up is a `Source`; it names its victims when there is need. Everything here runs in the event
loop's thread.
"""

import itertools
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple, Protocol

import trio

from .budget import HIGH, LOW, Budget

_log = logging.getLogger(__name__)

ROUND_SECONDS = 1.0
SLICE_BYTES = 32 << 20
"""Freed at once before others may run again."""
FRESH_SECONDS = 0.5
"""What was fetched or read a moment ago is still in flight: it goes only when nothing else can, and far too much is."""
FRESH_BYTES = 16 << 20

UNREFERENCED, REFERENCED, PINNED = range(3)


class Victim(NamedTuple):
    """Something that can go."""

    rank: int
    """UNREFERENCED goes before REFERENCED; PINNED never."""
    used_at: float
    """trio's clock."""
    evict: Callable[[], int]
    """Let it go; returns how many bytes are free then."""


class Source(Protocol):
    """Who has something to give up."""

    def used_bytes(self) -> int:
        """On disk."""

    def kept_bytes(self) -> int:
        """Of them, what is no victim at any price."""

    def collect_uses(self, now: float) -> None:
        """Look what has been used since the last call."""

    def victims(self) -> Iterable[Victim]:
        """All that can go now."""


class Eviction:
    """Keeps the root within its budget, and some of the disk free."""

    def __init__(self, root: Path, budget: Budget) -> None:
        self._root = root
        self.budget = budget
        self._sources: list[Source] = []
        self._used = 0
        self._victims: Iterator[Victim] = iter(())
        self._planned_at = float("-inf")
        self._told_full = False
        self.evicted_bytes = 0
        """Since this process serves."""
        self.evictions = 0
        """How many victims gave something."""

    def add(self, source: Source) -> None:
        """Ask `source` too."""
        self._sources.append(source)

    @property
    def used_bytes(self) -> int:
        """On disk, as last measured."""
        return self._used

    def has_room(self) -> bool:
        """Whether something may be fetched that nobody has asked for."""
        return self._used < LOW * self.budget.size and self._free_bytes() > self.budget.keep_free

    def grew(self, by: int) -> None:
        """Something was written: within the budget again at once."""
        self._used += by
        excess = self._excess(1.0)
        if excess > 0:
            self._evict(excess)

    def admit(self, by: int) -> bool:
        """Something was written that will be kept: whether it may, when everything goes for it that can."""
        self.grew(by)
        if self.kept_bytes() > self.budget.size:
            return False
        missing = self.budget.keep_free - self._free_bytes()
        return missing <= 0 or self.make_room(missing)

    def kept_bytes(self) -> int:
        """On disk, of what never goes."""
        return sum(source.kept_bytes() for source in self._sources)

    def make_room(self, wanted: int) -> bool:
        """The disk is full, whatever the budget says: free `wanted` bytes. False when nothing can go."""
        return self._evict(wanted, even_fresh=True) > 0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                self.measure()
                if self._excess(HIGH) > 0:
                    while (excess := self._excess(LOW)) > 0 and self._evict(min(excess, SLICE_BYTES)):
                        await trio.lowlevel.checkpoint()
            except OSError as error:  # somebody removes the root; the guard makes it again
                _log.debug("the cache cannot be measured: %s", error)
            await trio.sleep(ROUND_SECONDS)

    def measure(self) -> None:
        """What is used, and what was used lately."""
        now = trio.current_time()
        for source in self._sources:
            source.collect_uses(now)
        self._used = sum(source.used_bytes() for source in self._sources)

    async def prune(self, rank: int) -> int:
        """Evict everything up to `rank`; returns the bytes that are free then."""
        before = self.evicted_bytes
        self._plan()
        for victim in self._victims:
            if victim.rank > rank:
                break
            self._let_go(victim)
            await trio.lowlevel.checkpoint()
        self._planned_at = float("-inf")
        self.measure()
        return self.evicted_bytes - before

    def _excess(self, mark: float) -> int:
        """Bytes above a mark, or missing on the disk."""
        return max(self._used - int(mark * self.budget.size), self.budget.keep_free - self._free_bytes())

    def _free_bytes(self) -> int:
        disk = os.statvfs(self._root)
        return disk.f_bavail * disk.f_frsize

    def _evict(self, wanted: int, *, even_fresh: bool = False) -> int:
        freed, now = 0, trio.current_time()
        if now - self._planned_at >= ROUND_SECONDS:
            self._plan()
        while freed < wanted:
            victim = next(self._victims, None)
            if victim is None and self._planned_at < now:
                self._plan()
                victim = next(self._victims, None)
            if victim is None or victim.rank >= PINNED:
                self._tell_full(freed)
                break
            if not even_fresh and now - victim.used_at < FRESH_SECONDS and self._excess(1.0) < FRESH_BYTES:
                self._victims = itertools.chain([victim], self._victims)
                break
            freed += self._let_go(victim)
        return freed

    def _tell_full(self, freed: int) -> None:
        if not freed and not self._told_full:
            _log.warning("the cache is full, and nothing in it can go: %d bytes", self._used)
        self._told_full = not freed

    def _let_go(self, victim: Victim) -> int:
        try:
            freed = victim.evict()
        except OSError as error:
            _log.warning("nothing can be evicted: %s", error)
            return 0
        self._used -= freed
        self.evicted_bytes += freed
        self.evictions += bool(freed)
        return freed

    def _plan(self) -> None:
        """All that can go, the first to go first."""
        now = self._planned_at = trio.current_time()
        for source in self._sources:
            source.collect_uses(now)
        victims = itertools.chain.from_iterable(source.victims() for source in self._sources)
        self._victims = iter(sorted(victims, key=attrgetter("rank", "used_at")))
