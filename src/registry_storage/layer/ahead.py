"""What comes along with chunks that a reader misses: neighbours that cost less than the round trips they save."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from ..registry.hosts import LinkEstimate
from ..toc.chunk import Chunk
from ..toc.index import TocIndex

MIN_REACH_BYTES = 32 << 10
MAX_REACH_BYTES = 384 << 10
REQUEST_SECONDS = 0.003
"""What a request costs this process besides the round trip: with a fast link that is most of it."""
MAX_AHEAD_BYTES = 16 << 20
"""Of a reader that went straight on for long."""
STRAIGHT_ON = 4
"""Growth that is no chance."""
MAX_READERS = 256
"""Places where a reader is expected next; the oldest are forgotten."""
MAX_MISSES = 8
"""Of a file, that make its windows larger."""
MAX_CHUNKS = 4096
"""In one window: many small files are one long walk of the index."""


def reach_bytes(link: LinkEstimate) -> int:
    """What the link carries in the time that one more request costs, within reason."""
    seconds = link.round_trip_seconds + REQUEST_SECONDS
    return max(MIN_REACH_BYTES, min(int(seconds * link.bytes_per_second), MAX_REACH_BYTES))


@dataclass(slots=True)
class Window:
    """What is brought along for one reader."""

    chunks: list[Chunk] = field(default_factory=list)
    """Behind the missing ones, in the order of the index."""
    next: int = 0
    """Where this reader will miss again when it goes straight on."""
    growth: int = 1
    """1: nobody knows whether it goes straight on; doubled each time that it did, quadrupled when that is no chance."""
    wanted: bool = False
    """The reader has come up with it."""
    ending: bool = False
    """All but the last bytes of it are here."""
    followed: bool = False
    """The window after this one is on its way."""

    @property
    def calls_next(self) -> bool:
        """Whether the window after this one should be on its way."""
        return self.growth >= STRAIGHT_ON and self.wanted and self.ending and not self.followed


class ReadAhead:
    """Of one layer; each reader is known by the place where it is expected.

    How far is measured (docs/benchmarks.md): programs come back to the file that they read, before and behind the
    place, more than they go on to the next one.
    """

    def __init__(self, index: TocIndex, chunk: Callable[[int], Chunk], is_absent: Callable[[int], bool]) -> None:
        """`is_absent`: neither here nor on its way."""
        self._index = index
        self._chunk = chunk
        self._is_absent = is_absent
        self._expected: OrderedDict[int, int] = OrderedDict()
        self._misses: OrderedDict[int, int] = OrderedDict()
        """Of each file that readers came back to."""

    def ahead(self, first: Chunk, last: Chunk, link: LinkEstimate) -> Window:
        """The window after a reader missed chunks `first` to `last`."""
        before = self._expected.pop(first.number, 0)
        window = Window(growth=before * (2 if before < STRAIGHT_ON else 4) or 1)
        reach = reach_bytes(link)
        owner = self._index.owner_of_chunk(last.number)
        if not before:
            self._count(owner)
        same_file = min((2 * reach + self._more(owner, reach)) * window.growth, MAX_AHEAD_BYTES)
        other_file = min(reach // 2 * window.growth, MAX_AHEAD_BYTES)
        owner_end = self._index.chunk_range(owner, 0, self._index.attributes(owner).size)[1]
        begin, number = last.blob_offset + last.blob_size, last.number + 1
        end = min(self._index.chunk_count, number + MAX_CHUNKS)
        while number < end:
            if not self._is_absent(number):
                if window.growth < STRAIGHT_ON:
                    break
            elif not (chunk := self._chunk(number)).is_hole:
                limit = same_file if number < owner_end else other_file
                if chunk.blob_offset < last.blob_offset or chunk.blob_offset + chunk.blob_size > begin + limit:
                    break
                window.chunks.append(chunk)
            number += 1
        end = min(self._index.chunk_count, number + MAX_CHUNKS)
        while number < end and (not self._is_absent(number) or self._chunk(number).is_hole):
            number += 1
        window.next = number
        self._expected[number] = window.growth
        while len(self._expected) > MAX_READERS:
            self._expected.popitem(last=False)
        return window

    def behind(self, first: Chunk, link: LinkEstimate) -> list[Chunk]:
        """Absent chunks of the same file directly before `first`: for those who jump about in it."""
        owner, chunks = self._index.owner_of_chunk(first.number), []
        owner_first, _ = self._index.chunk_range(owner, 0, 1)
        reach = reach_bytes(link)
        begin, number = first.blob_offset - reach - self._more(owner, reach), first.number - 1
        while number >= owner_first and self._is_absent(number):
            chunk = self._chunk(number)
            if not chunk.is_hole:
                if not begin <= chunk.blob_offset < first.blob_offset:
                    break
                chunks.append(chunk)
            number -= 1
        return chunks[::-1]

    def _more(self, inode: int, reach: int) -> int:
        """Bytes brought besides, from a file that readers jump about in again and again: they want most of it."""
        return min(self._misses.get(inode, 0), MAX_MISSES) * reach // 2

    def _count(self, inode: int) -> None:
        self._misses[inode] = self._misses.pop(inode, -1) + 1
        while len(self._misses) > MAX_READERS:
            self._misses.popitem(last=False)
