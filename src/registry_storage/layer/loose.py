"""Verified chunks that the disk could not take, kept in memory for a moment for those who wait for them."""

import errno
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import trio

from ..cache.content import Content
from ..formats.verified import VerifiedChunk
from ..toc.chunk import Chunk

MAX_BYTES = 32 << 20
"""Of all layers together; one larger chunk goes alone."""
KEEP_SECONDS = 5.0
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""The disk, or our part of it, is full."""


class _Kept(NamedTuple):
    data: VerifiedChunk
    until: float


class LooseChunks:
    """Used in the event loop's thread, but for `write`."""

    def __init__(self, make_room: Callable[[int], bool]) -> None:
        """`make_room` frees so many bytes of the disk, or says that it cannot."""
        self._make_room = make_room
        self._kept: OrderedDict[tuple[int, int], _Kept] = OrderedDict()
        self._bytes = 0

    def write(self, content: Content, chunks: Sequence[tuple[Chunk, VerifiedChunk]]) -> list[OSError | None]:
        """Put chunks into their places, after making room where that helps; in a worker thread.

        What became of each, in their order.
        """
        try:
            content.write(chunks)
        except OSError:  # one may fit where all of them do not
            return [self._write_one(content, *chunk) for chunk in chunks]
        return [None] * len(chunks)

    def _write_one(self, content: Content, chunk: Chunk, data: VerifiedChunk) -> OSError | None:
        try:
            content.write([(chunk, data)])
        except OSError as error:
            if error.errno not in FULL or not trio.from_thread.run_sync(self._make_room, 2 * chunk.size):
                return error
            try:
                content.write([(chunk, data)])
            except OSError as again:
                return again
        return None

    def keep(self, content: Content, number: int, data: VerifiedChunk) -> None:
        """It is not in its place: whoever waits gets it from here."""
        self.expire()
        while self._kept and self._bytes + len(data) > MAX_BYTES:
            self._drop(next(iter(self._kept)))
        if (id(content), number) in self._kept:
            self._drop((id(content), number))
        self._kept[id(content), number] = _Kept(data, trio.current_time() + KEEP_SECONDS)
        self._bytes += len(data)

    def get(self, content: Content, number: int) -> bytes | None:
        """The chunk's bytes, if they are here."""
        kept = self._kept.get((id(content), number))
        return None if kept is None else kept.data.data

    def expire(self) -> None:
        """Forget what nobody has waited for any more."""
        now = trio.current_time()
        while self._kept and next(iter(self._kept.values())).until < now:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: tuple[int, int]) -> None:
        self._bytes -= len(self._kept.pop(key).data)
