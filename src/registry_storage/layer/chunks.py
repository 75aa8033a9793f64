"""Brings missing chunks into a layer's content: one fetch for all readers, ranges merged by cost."""

import bisect
import enum
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import NamedTuple

import trio

from .. import metrics
from ..cache.content import Content
from ..errors import RegistryStorageError
from ..formats.base import LayerFormat
from ..toc.chunk import Chunk
from ..toc.index import TocIndex
from .activity import Activity, GaveWayError
from .ahead import ReadAhead, Window, reach_bytes
from .keeping import Keeper
from .loose import LooseChunks
from .memory import MemoryBudget
from .pieces import BACKLOG_BYTES, BATCHES, Arrival, Piece, memory_needed, most_compressed, ranges_of
from .recheck import Recheck
from .source import ByteSource
from .turns import Turns

_log = logging.getLogger(__name__)

MAX_RANGE_BYTES = 32 << 20
"""Largest single range that a reader waits for; what comes along is behind what he needs."""
MAX_AHEAD_BYTES = 64 << 20
"""Largest single range of what is fetched ahead, which readers will ask for: they wait for their chunk only."""
URGENT_GAP_BYTES = 16 << 10
"""Unwanted bytes in a range that a reader waits for: its ranges come at the same time, so more would not pay."""
TAIL_ROUND_TRIPS = 2
"""How long before the end of a window the next one is asked for."""
MAX_HOLES = 64
"""Behind one chunk, which become ready with it."""
MOST_FROM_START = 1 << 16
"""Chunks that are brought in one pass over a plain layer's blob: what waits for them takes memory."""
REQUESTS_AHEAD = 4
"""For one layer, of what readers will want in a known order: while some replies are awaited, others flow."""


class _For(enum.Enum):
    """For whom chunks are fetched."""

    READER = enum.auto()
    """Who waits."""
    LATER_READERS = enum.auto()
    """Who wait for their turn when they come meanwhile."""
    SAME_READER = enum.auto()
    """Who waits, and will surely want this next: nothing else comes along."""
    NOBODY = enum.auto()
    """It gives way to everybody."""


class _Pending:
    """A chunk on its way."""

    __slots__ = ("done", "error", "turns", "whom", "window")

    def __init__(self, whom: _For, window: Window | None = None) -> None:
        self.done = trio.Event()
        self.error: Exception | None = None
        self.whom = whom
        self.window = window
        """What it was brought along with."""
        self.turns: Turns | None = None
        """Where it waits."""


class LastError(NamedTuple):
    """When (seconds since 1970) and why something could not be had."""

    seconds: float
    message: str


class ChunkFetcher:
    """The missing chunks of one layer. Everything but decoding and hashing runs in the event loop's thread."""

    def __init__(
        self,
        name: str,
        layer_format: LayerFormat,
        index: TocIndex,
        content: Content,
        source: ByteSource,
        activity: Activity,
        nursery: trio.Nursery,
        workers: trio.CapacityLimiter,
        memory: MemoryBudget,
        loose: LooseChunks,
        *,
        from_start: bool = False,
    ) -> None:
        """`from_start`: every range costs the blob from its start, so what is missing comes along with the first."""
        self._from_start = from_start
        self._loose = loose
        self._memory = memory
        self._name = name
        self._index = index
        self._content = content
        self._source = source
        self._activity = activity
        self._nursery = nursery
        self._pending: dict[int, _Pending] = {}
        self.last_error: LastError | None = None
        self._keeper = Keeper(name, layer_format, content, loose, workers)
        self._here = Recheck(name, content, workers, self._path, self._ready)
        self._ahead = ReadAhead(index, self._chunk, self.is_absent)
        self.begun: Callable[[int], None] = lambda inode: None
        """Told, once, of each file in which a reader misses something, if its first chunk is missed too, or ready."""
        self._told_begun: set[int] = set()

    def note_error(self, error: Exception) -> None:
        """Remember why something could not be had."""
        if not isinstance(error, GaveWayError):
            self.last_error = LastError(time.time(), str(error) or type(error).__name__)

    async def ensure(self, first: int, end: int) -> None:
        """Return when chunks `first` to `end` (exclusive) are ready; for readers.

        Raises RegistryError, VerificationError, FormatError or OSError. Nothing is remembered of a failure: the
        next call tries again, and so does this one when what failed had begun before it came.
        """
        joined = any(number in self._pending for number in range(first, end))
        waits = self._start(range(first, end), _For.READER)
        try:
            await _all(waits)
        except (RegistryStorageError, OSError):
            if not joined:
                raise
            for pending in waits:  # or the second try would join what is left of the first
                await pending.done.wait()
            await _all(self._start(range(first, end), _For.READER))

    async def fill(self, numbers: Iterable[int], *, giving_way: bool = False) -> None:
        """The same for work that nobody waits for: exactly these chunks, one range after the other.

        A reader that comes for one of them waits for its turn instead of asking once more. With `giving_way`
        everything ends with GaveWayError when a reader comes, whatever it is for.
        """
        await _all(self._start(numbers, _For.NOBODY if giving_way else _For.LATER_READERS))

    async def fill_in_order(self, groups: Sequence[Sequence[int]]) -> None:
        """The same for exactly what readers will want, group after group, a few requests at a time.

        What a reader comes for is next.
        """
        waits: list[_Pending] = []
        mine: dict[int, _Pending] = {}
        for number in itertools.chain.from_iterable(groups):
            pending = self._pending.get(number)
            if pending is None and not self._content.is_ready(number):
                pending = mine[number] = self._pending[number] = _Pending(_For.LATER_READERS)
            if pending is not None:
                waits.append(pending)
        if mine:
            self._nursery.start_soon(self._bring, mine, _For.LATER_READERS, groups)
        await _all(waits)

    async def bring_at_once(self, numbers: Iterable[int]) -> None:
        """The same as `ensure` for exactly these chunks, which a reader is about to want."""
        await _all(self._start(numbers, _For.SAME_READER))

    def is_absent(self, number: int) -> bool:
        """Neither here nor on its way."""
        return number < self._index.chunk_count and not (
            number in self._pending or self._content.is_ready(number) or self._content.is_present(number)
        )

    def is_on_its_way(self, number: int) -> bool:
        """Somebody fetches or hashes this chunk at this moment."""
        return number in self._pending

    def damage_is_told(self) -> None:
        """The log says already that what is here may be damaged."""
        self._here.told()

    def adopt(self, numbers: Sequence[int]) -> None:
        """Somebody else has verified these chunks and put them in their place."""
        self._ready(numbers)

    def _start(self, numbers: Iterable[int], whom: _For) -> list[_Pending]:
        waits: list[_Pending] = []
        mine: dict[int, _Pending] = {}
        for number in numbers:
            if self._content.is_ready(number) or self._loose.get(self._content, number) is not None:
                continue
            pending = self._pending.get(number)
            if pending is None:
                pending = mine[number] = self._pending[number] = _Pending(whom)
            elif whom is _For.READER:
                self._join(pending, number)
            waits.append(pending)
        if mine:
            self._nursery.start_soon(self._bring, mine, whom)
        return waits

    def _join(self, pending: _Pending, number: int) -> None:
        """A reader has come up with what is on its way."""
        if pending.whom is _For.NOBODY:
            self._activity.interrupt()  # it may be far behind in its range; the reader asks anew
        elif pending.window is not None:
            pending.window.wanted = True
            self._follow(pending.window)
        elif pending.turns is not None:
            pending.turns.hurry(number)

    def _follow(self, window: Window) -> None:
        """Let the next window come right behind this one, when the reader wants it: before he must wait for it."""
        if window.calls_next and self.is_absent(window.next):
            window.followed = True
            self._start([window.next], _For.READER)

    def _end(self, window: Window) -> None:
        window.ending = True
        self._follow(window)

    async def _bring(
        self, mine: dict[int, _Pending], whom: _For, groups: Sequence[Sequence[int]] | None = None
    ) -> None:
        """Make the chunks that are `mine` ready, whatever it takes; each ends with success or an error."""
        try:
            missing = await self._here.missing([self._chunk(number) for number in mine])
            if not missing:
                return
            if self._from_start:
                with self._activity.reading():
                    await self._fetch_from_start(missing, mine)
                return
            if whom is _For.READER:
                with self._activity.reading():
                    await self._fetch_around(missing, mine)
                return
            if groups is not None:
                await self._fetch_in_order(_ranges_in_order(missing, groups), mine)
                return
            if whom is _For.SAME_READER:
                with self._activity.reading():
                    await self._fetch_side_by_side(missing)
                return
            ranges = ranges_of(missing, reach_bytes(self._source.link), MAX_AHEAD_BYTES)
            if whom is _For.LATER_READERS:
                await self._fetch_in_turn(ranges)
                return
            with self._activity.giving_way():
                await self._fetch_in_turn(ranges)
        except GaveWayError as error:
            self._give_up(mine, error)
        except OSError as error:
            _log.error("layer %s: the cache cannot be written: %s", self._name, error.strerror)
            self._give_up(mine, error)
        except Exception:
            _log.exception("layer %s: fetching chunks failed", self._name)
        finally:
            self._give_up(mine, RegistryStorageError(f"layer {self._name}: interrupted"))

    def _give_up(self, mine: Mapping[int, _Pending], error: Exception) -> None:
        """End what is not ended yet; a chunk that failed before may already be on its way again, for another reader."""
        self._finish([number for number, pending in mine.items() if not pending.done.is_set()], error)

    async def _fetch_side_by_side(self, chunks: list[Chunk]) -> None:
        async with trio.open_nursery() as nursery:
            for pieces in ranges_of(chunks, URGENT_GAP_BYTES, MAX_RANGE_BYTES):
                nursery.start_soon(self._fetch_within_budget, pieces)

    def _tell_begun(self, chunk: Chunk) -> None:
        inode = self._index.owner_of_chunk(chunk.number)
        first, _ = self._index.chunk_range(inode, 0, 1)
        if inode not in self._told_begun and (chunk.number == first or self._content.is_ready(first)):
            self._told_begun.add(inode)
            self.begun(inode)

    async def _fetch_around(self, missing: list[Chunk], mine: dict[int, _Pending]) -> None:
        """What a reader waits for, then what it will probably want, which becomes `mine` too."""
        self._tell_begun(missing[0])
        window = self._ahead.ahead(missing[0], missing[-1], self._source.link)
        self._take(window.chunks, mine, window)
        waits = [mine[chunk.number] for chunk in missing]
        async with trio.open_nursery() as nursery:
            ranges = ranges_of(missing + window.chunks, URGENT_GAP_BYTES, MAX_RANGE_BYTES)
            for pieces in ranges:
                nursery.start_soon(self._fetch_within_budget, pieces, window if pieces is ranges[-1] else None)
            for pending in waits:
                await pending.done.wait()
            behind = self._ahead.behind(missing[0], self._source.link)
            self._take(behind, mine)
            for pieces in ranges_of(behind, URGENT_GAP_BYTES, MAX_RANGE_BYTES):
                nursery.start_soon(self._fetch_within_budget, pieces)

    async def _fetch_from_start(self, missing: list[Chunk], mine: dict[int, _Pending]) -> None:
        """One range for everything that is missing, from what comes first in the tar, within bounds."""
        absent = [number for number in range(self._index.chunk_count) if self.is_absent(number)]
        if len(absent) > MOST_FROM_START:
            first = bisect.bisect_left(absent, missing[0].number)
            absent = absent[first : first + MOST_FROM_START]
        others = [chunk for chunk in map(self._chunk, absent) if not chunk.is_hole]
        self._take(others, mine)
        (pieces,) = ranges_of(missing + others, self._index.blob_size, self._index.blob_size)
        await self._fetch_within_budget(pieces)

    def _take(self, chunks: Iterable[Chunk], mine: dict[int, _Pending], window: Window | None = None) -> None:
        """Make absent chunks `mine`."""
        for chunk in chunks:
            mine[chunk.number] = self._pending[chunk.number] = _Pending(_For.READER, window)

    def _chunk(self, number: int) -> Chunk:
        """A chunk, with no more of the blob than its compressed bytes can possibly take.

        What the index knows is where the next piece begins, which a hostile TOC may put far away.
        """
        chunk = self._index.chunk(number)
        most = most_compressed(chunk.inner_offset + chunk.size)
        return chunk if chunk.blob_size <= most else chunk._replace(blob_size=most)

    async def _fetch_in_turn(self, ranges: Sequence[list[Piece]]) -> None:
        """One range after the other, each behind the readers; the first that cannot be fetched ends them all."""
        for position, pieces in enumerate(ranges):
            await self._activity.no_reader()
            error = await self._fetch_within_budget(pieces)
            if error is not None:
                rest = (chunk.number for later in ranges[position + 1 :] for piece in later for chunk in piece.chunks)
                self._finish(rest, error)
                return

    async def _fetch_in_order(self, ranges: Sequence[list[Piece]], mine: Mapping[int, _Pending]) -> None:
        """Some ranges at a time, so that the link is never idle; the first that cannot be fetched ends them all."""
        turns = Turns(ranges)
        for pending in mine.values():
            pending.turns = turns

        async def work() -> None:
            while True:
                await self._activity.no_reader()
                pieces = turns.take()
                if pieces is None:
                    return
                error = await self._fetch_within_budget(pieces)
                if error is not None:
                    self._finish(turns.give_up(), error)

        async with trio.open_nursery() as nursery:
            for _ in range(REQUESTS_AHEAD):
                nursery.start_soon(work)

    async def _fetch_within_budget(
        self, pieces: list[Piece], window: Window | None = None
    ) -> RegistryStorageError | None:
        async with self._memory.hold(memory_needed(pieces)):
            return await self._fetch(pieces, window)

    async def _fetch(self, pieces: list[Piece], window: Window | None) -> RegistryStorageError | None:
        """Fetch one range; every piece is decoded, verified and kept as soon as its last byte is here.

        Receiving goes on meanwhile. `window`: what ends with this range. Returns the error when the range could not
        be fetched; a chunk that is refused is no such error.
        """
        arrival, idle, link = Arrival(pieces), trio.Semaphore(BATCHES), self._source.link

        async def keep_batches() -> None:
            try:
                while arrival.has_batch:
                    await self._keep(*arrival.take())
            finally:
                idle.release()

        async with trio.open_nursery() as nursery:
            try:
                async with aclosing(self._source.stream(arrival.offset, arrival.size)) as stream:
                    async for data in stream:
                        arrival.add(data)
                        if window is not None and arrival.left_bytes <= TAIL_ROUND_TRIPS * reach_bytes(link):
                            self._end(window)
                            window = None
                        if arrival.has_batch and (idle.value or arrival.backlog_bytes > BACKLOG_BYTES):
                            await idle.acquire()
                            nursery.start_soon(keep_batches)
            except RegistryStorageError as error:
                chunks = arrival.unreceived()
                if chunks:
                    _log.warning(
                        "layer %s: %s: bytes %d to %d of the blob cannot be fetched: %s",
                        self._name, self._path(chunks[0]), arrival.offset, arrival.offset + arrival.size, error,
                    )  # fmt: skip
                    self.note_error(error)
                self._finish([chunk.number for chunk in chunks], error)
                return error
        return None

    async def _keep(self, span: bytes, span_offset: int, chunks: Sequence[Chunk]) -> None:
        holes = [hole for chunk in chunks for hole in self._holes_behind(chunk.number)]
        kept = await self._keeper.keep(span, span_offset, chunks, holes)
        self._ready(kept.written)
        self._finish(kept.loose, None)
        for chunk, error in kept.refused:
            metrics.REFUSED_CHUNKS.inc()
            self.note_error(error)
            _log.error(
                "layer %s: %s: chunk %d (blob offset %d) is refused: %s",
                self._name, self._path(chunk), chunk.number, chunk.blob_offset, error,
            )  # fmt: skip
            self._finish([chunk.number], error)

    def _holes_behind(self, number: int) -> Iterator[Chunk]:
        """Whoever reads on would have to ask for each, though it has no bytes."""
        for hole in range(number + 1, number + 1 + MAX_HOLES):
            if not self.is_absent(hole) or not (chunk := self._index.chunk(hole)).is_hole:
                return
            yield chunk

    def _ready(self, numbers: Sequence[int]) -> None:
        self._content.mark_ready(numbers)
        self._finish(numbers, None)

    def _finish(self, numbers: Iterable[int], error: Exception | None) -> None:
        for number in numbers:
            pending = self._pending.pop(number, None)
            if pending is not None:
                pending.error = error
                pending.done.set()

    def _path(self, chunk: Chunk) -> str:
        path = self._index.path(self._index.owner_of_chunk(chunk.number))
        return "/" + path.decode("utf-8", "backslashreplace")


def _ranges_in_order(missing: Iterable[Chunk], groups: Iterable[Iterable[int]]) -> list[list[Piece]]:
    """The missing chunks group by group; no gap that matters is fetched along."""
    of_number = {chunk.number: chunk for chunk in missing}
    ranges: list[list[Piece]] = []
    for group in groups:
        chunks = [of_number[number] for number in group if number in of_number]
        ranges += ranges_of(chunks, URGENT_GAP_BYTES, MAX_AHEAD_BYTES)
    return ranges


async def _all(waits: Iterable[_Pending]) -> None:
    for pending in waits:
        await pending.done.wait()
        if pending.error is not None:
            raise pending.error


