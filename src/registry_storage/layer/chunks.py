"""Brings missing chunks into a layer's content: one fetch for all readers, ranges merged by cost."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import trio

from .. import metrics
from ..cache.content import Content
from ..errors import RegistryStorageError, VerificationError
from ..formats.base import LayerFormat
from ..formats.verified import decode_chunks, verify_chunk
from ..registry.ranges import merge
from ..toc.chunk import Chunk
from ..toc.index import TocIndex
from .activity import Activity
from .memory import MemoryBudget
from .source import BlobSource

_log = logging.getLogger(__name__)

MAX_RANGE_BYTES = 8 << 20
"""Largest single range that a reader waits for."""
MAX_AHEAD_BYTES = 64 << 20
"""Largest single range of what is fetched ahead, which readers will ask for: they wait for their chunk only."""
NETWORK_BYTES = 1 << 20
"""Room for what arrives at once."""
MIN_AROUND_BYTES = 64 << 10
MAX_AROUND_BYTES = 4 << 20
RECHECK_BYTES = 8 << 20


def _most_compressed(size: int) -> int:
    """Bytes that `size` bytes take at most when they cannot be compressed, with headers to spare."""
    return size + size // 64 + (64 << 10)


class _Pending:
    """A chunk on its way."""

    __slots__ = ("done", "error")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.error: Exception | None = None


@dataclass(slots=True)
class _Piece:
    """Bytes of the blob that decode on their own, and the wanted chunks in them."""

    offset: int
    end: int
    decoded: int = 0
    """Bytes that decoding it takes."""
    chunks: list[Chunk] = field(default_factory=list)


def _memory_needed(pieces: Sequence[_Piece]) -> int:
    """Bytes to fetch and decode a range: pieces are decoded as they arrive, so never all of it is there."""
    everything = sum(piece.end - piece.offset + piece.decoded for piece in pieces)
    largest = max(piece.end - piece.offset + piece.decoded for piece in pieces)
    return min(everything, 2 * largest + NETWORK_BYTES)


class ChunkFetcher:
    """The missing chunks of one layer. Everything but decoding and hashing runs in the event loop's thread."""

    def __init__(
        self,
        name: str,
        layer_format: LayerFormat,
        index: TocIndex,
        content: Content,
        source: BlobSource,
        activity: Activity,
        nursery: trio.Nursery,
        workers: trio.CapacityLimiter,
        memory: MemoryBudget,
    ) -> None:
        self._memory = memory
        self._name = name
        self._format = layer_format
        self._index = index
        self._content = content
        self._source = source
        self._activity = activity
        self._nursery = nursery
        self._workers = workers
        self._pending: dict[int, _Pending] = {}
        self._expected = -1
        self._around = MIN_AROUND_BYTES

    async def ensure(self, first: int, end: int) -> None:
        """Return when chunks `first` to `end` (exclusive) are ready; for readers.

        Raises RegistryError, VerificationError, FormatError or OSError. Nothing is remembered of a failure: the
        next call tries again, and so does this one when what failed had begun before it came.
        """
        joined = any(number in self._pending for number in range(first, end))
        waits = self._start(range(first, end), urgent=True)
        try:
            await _all(waits)
        except (RegistryStorageError, OSError):
            if not joined:
                raise
            for pending in waits:  # or the second try would join what is left of the first
                await pending.done.wait()
            await _all(self._start(range(first, end), urgent=True))

    async def fill(self, numbers: Iterable[int]) -> None:
        """The same for work that nobody waits for: exactly these chunks, one range after the other.

        A reader that comes for one of them waits for its turn instead of asking once more.
        """
        await _all(self._start(numbers, urgent=False))

    def _start(self, numbers: Iterable[int], *, urgent: bool) -> list[_Pending]:
        waits: list[_Pending] = []
        mine: dict[int, _Pending] = {}
        for number in numbers:
            if self._content.is_ready(number):
                continue
            pending = self._pending.get(number)
            if pending is None:
                pending = mine[number] = self._pending[number] = _Pending()
            waits.append(pending)
        if mine:
            self._nursery.start_soon(self._bring, mine, urgent)
        return waits

    async def _bring(self, mine: dict[int, _Pending], urgent: bool) -> None:
        """Make the chunks that are `mine` ready, whatever it takes; each ends with success or an error."""
        try:
            missing = await self._recheck([self._chunk(number) for number in mine])
            if urgent and missing:
                neighbours = self._read_around(missing)
                missing += neighbours
                mine |= {chunk.number: self._pending[chunk.number] for chunk in neighbours}
            ranges = self._ranges(missing, MAX_RANGE_BYTES if urgent else MAX_AHEAD_BYTES)
            if not urgent:
                await self._fetch_in_turn(ranges)
                return
            with self._activity.reading():
                async with trio.open_nursery() as nursery:
                    for pieces in ranges:
                        nursery.start_soon(self._fetch_within_budget, pieces)
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

    def _chunk(self, number: int) -> Chunk:
        """A chunk, with no more of the blob than its compressed bytes can possibly take.

        What the index knows is where the next piece begins, which a hostile TOC may put far away.
        """
        chunk = self._index.chunk(number)
        return chunk._replace(blob_size=min(chunk.blob_size, _most_compressed(chunk.inner_offset + chunk.size)))

    async def _recheck(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        """Those of `chunks` that are not here, after holes were made and what is on disk was hashed again."""
        missing, batch, size = [], [], 0
        for chunk in chunks:
            if chunk.is_hole or self._content.is_present(chunk.number):
                batch.append(chunk)
                size += chunk.size
                if size >= RECHECK_BYTES:
                    missing += await self._recheck_batch(batch)
                    batch, size = [], 0
            else:
                missing.append(chunk)
        if batch:
            missing += await self._recheck_batch(batch)
        return sorted(missing, key=lambda chunk: chunk.number)

    async def _recheck_batch(self, chunks: list[Chunk]) -> list[Chunk]:
        def hash_again() -> list[Chunk]:
            damaged = []
            for chunk in chunks:
                if chunk.is_hole:
                    self._content.write_hole(chunk)
                    continue
                try:
                    verify_chunk(self._content.read_chunk(chunk), chunk.digest_raw)
                except (VerificationError, OSError):
                    damaged.append(chunk)
            return damaged

        damaged = await trio.to_thread.run_sync(hash_again, limiter=self._workers)
        bad = {chunk.number for chunk in damaged}
        self._ready([chunk.number for chunk in chunks if chunk.number not in bad])
        for chunk in damaged:
            self._content.forget([chunk.number])
            metrics.DAMAGED_CHUNKS.inc()
            _log.warning(
                "layer %s: %s: chunk %d is damaged on disk; it will be fetched again",
                self._name, self._path(chunk), chunk.number,
            )  # fmt: skip
        return damaged

    def _read_around(self, missing: list[Chunk]) -> list[Chunk]:
        """Neighbours that cost less than the round trip they may save; more for a reader that goes straight on."""
        link = self._source.link
        if missing[0].number == self._expected:
            self._around = min(self._around * 2, MAX_AROUND_BYTES)
        else:
            self._around = MIN_AROUND_BYTES
        budget = max(self._around, min(int(link.round_trip_seconds * link.bytes_per_second), MAX_AROUND_BYTES // 4))
        last = missing[-1]
        position = last.blob_offset + last.blob_size
        limit, added = position + budget, []
        for number in range(last.number + 1, self._index.chunk_count):
            if number in self._pending or self._content.is_ready(number) or self._content.is_present(number):
                break
            chunk = self._chunk(number)
            if chunk.is_hole:
                continue
            if chunk.blob_offset < last.blob_offset or chunk.blob_offset + chunk.blob_size > limit:
                break
            self._pending[number] = _Pending()
            added.append(chunk)
        self._expected = (added[-1] if added else last).number + 1
        return added

    def _ranges(self, chunks: Iterable[Chunk], max_bytes: int) -> list[list[_Piece]]:
        """The pieces of `chunks`, in groups that are fetched with one request each."""
        pieces: dict[int, _Piece] = {}
        for chunk in chunks:
            piece = pieces.get(chunk.blob_offset)
            if piece is None:
                piece = pieces[chunk.blob_offset] = _Piece(chunk.blob_offset, 0)
            piece.end = max(piece.end, chunk.blob_offset + chunk.blob_size)
            piece.decoded = max(piece.decoded, chunk.inner_offset + chunk.size)
            piece.chunks.append(chunk)
        if not pieces:
            return []
        link = self._source.link
        gap = max(16 << 10, min(int(link.round_trip_seconds * link.bytes_per_second), 1 << 20))
        ordered = sorted(pieces.values(), key=lambda piece: piece.offset)
        spans = [(piece.offset, piece.end - piece.offset) for piece in ordered]
        return [ordered[part.first : part.end] for part in merge(spans, gap, max_bytes)]

    async def _fetch_in_turn(self, ranges: Sequence[list[_Piece]]) -> None:
        """One range after the other, each behind the readers; the first that cannot be fetched ends them all."""
        for position, pieces in enumerate(ranges):
            await self._activity.quiet(0)
            error = await self._fetch_within_budget(pieces)
            if error is not None:
                rest = (chunk.number for later in ranges[position + 1 :] for piece in later for chunk in piece.chunks)
                self._finish(rest, error)
                return

    async def _fetch_within_budget(self, pieces: list[_Piece]) -> RegistryStorageError | None:
        async with self._memory.hold(_memory_needed(pieces)):
            return await self._fetch(pieces)

    async def _fetch(self, pieces: list[_Piece]) -> RegistryStorageError | None:
        """Fetch one range; every piece is decoded, verified and kept as soon as its last byte is here.

        Returns the error when the range could not be fetched; a chunk that is refused is no such error.
        """
        start, end = pieces[0].offset, max(piece.end for piece in pieces)
        buffer, base, done = bytearray(), start, 0  # the buffer holds the blob from `base` on
        try:
            async with aclosing(self._source.stream(start, end - start)) as stream:
                async for data in stream:
                    buffer += data
                    complete = done
                    while complete < len(pieces) and pieces[complete].end <= base + len(buffer):
                        complete += 1
                    if complete > done:
                        await self._keep(bytes(buffer), base, pieces[done:complete])
                        done = complete
                        unused = pieces[done].offset - base if done < len(pieces) else len(buffer)
                        unused = min(unused, len(buffer))
                        del buffer[:unused]
                        base += unused
        except RegistryStorageError as error:
            chunks = [chunk for piece in pieces[done:] for chunk in piece.chunks]
            if chunks:
                _log.warning(
                    "layer %s: %s: bytes %d to %d of the blob cannot be fetched: %s",
                    self._name, self._path(chunks[0]), start, end, error,
                )  # fmt: skip
            self._finish([chunk.number for chunk in chunks], error)
            return error
        return None

    async def _keep(self, span: bytes, span_offset: int, pieces: Sequence[_Piece]) -> None:
        chunks = [chunk for piece in pieces for chunk in piece.chunks]

        def decode_and_write() -> list[RegistryStorageError | OSError | None]:
            results: list[RegistryStorageError | OSError | None] = []
            for chunk, result in zip(chunks, decode_chunks(self._format, span, span_offset, chunks), strict=True):
                if isinstance(result, RegistryStorageError):
                    results.append(result)
                    continue
                try:
                    self._content.write(chunk, result)
                    results.append(None)
                except OSError as error:
                    results.append(error)
            return results

        results = await trio.to_thread.run_sync(decode_and_write, limiter=self._workers)
        self._ready([chunk.number for chunk, error in zip(chunks, results, strict=True) if error is None])
        for chunk, error in zip(chunks, results, strict=True):
            if error is None:
                continue
            metrics.REFUSED_CHUNKS.inc()
            _log.error(
                "layer %s: %s: chunk %d (blob offset %d) is refused: %s",
                self._name, self._path(chunk), chunk.number, chunk.blob_offset, error,
            )  # fmt: skip
            self._finish([chunk.number], error)

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


async def _all(waits: Iterable[_Pending]) -> None:
    for pending in waits:
        await pending.done.wait()
        if pending.error is not None:
            raise pending.error
