"""Ranges that wait for their turn: fetched in order, except that what a reader waits for comes next."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from .pieces import Piece


class Turns:
    """Used from the event loop's thread only."""

    def __init__(self, ranges: Sequence[list[Piece]]) -> None:
        self._waiting = OrderedDict(enumerate(ranges))
        self._range_of = {
            chunk.number: place for place, pieces in enumerate(ranges) for piece in pieces for chunk in piece.chunks
        }

    def take(self) -> list[Piece] | None:
        """The next range, which waits no longer; None: there is none."""
        return self._waiting.popitem(last=False)[1] if self._waiting else None

    def hurry(self, chunk_number: int) -> None:
        """A reader waits for this chunk: its range is the next, if it still waits."""
        place = self._range_of.get(chunk_number)
        if place is not None and place in self._waiting:
            self._waiting.move_to_end(place, last=False)

    def give_up(self) -> Iterator[int]:
        """The numbers of all chunks that wait; none waits any longer."""
        while (pieces := self.take()) is not None:
            yield from (chunk.number for piece in pieces for chunk in piece.chunks)
