"""Pieces of a blob: what decodes on its own, and which of it is worth one request."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ..registry.ranges import merge
from ..toc.chunk import Chunk

NETWORK_BYTES = 1 << 20
"""Room for what arrives at once."""
BACKLOG_BYTES = 2 << 20
"""Received bytes that may wait for a free core; then receiving waits too."""
BATCH_BYTES = 4 << 20
"""Decoded bytes of one batch, unless a single piece has more."""
BATCHES = 2
"""Batches of one range that are decoded at the same time."""


def most_compressed(size: int) -> int:
    """Bytes that `size` bytes take at most when they cannot be compressed, with headers to spare."""
    return size + size // 64 + (64 << 10)


@dataclass(slots=True)
class Piece:
    """Bytes of the blob that decode on their own, and the wanted chunks in them."""

    offset: int
    end: int
    decoded: int = 0
    """Bytes that decoding it takes."""
    chunks: list[Chunk] = field(default_factory=list)


def pieces_of(chunks: Iterable[Chunk]) -> list[Piece]:
    """The pieces that hold `chunks`, in the order of the blob."""
    pieces: dict[int, Piece] = {}
    for chunk in chunks:
        piece = pieces.get(chunk.blob_offset)
        if piece is None:
            piece = pieces[chunk.blob_offset] = Piece(chunk.blob_offset, 0)
        piece.end = max(piece.end, chunk.blob_offset + chunk.blob_size)
        piece.decoded = max(piece.decoded, chunk.inner_offset + chunk.size)
        piece.chunks.append(chunk)
    return sorted(pieces.values(), key=lambda piece: piece.offset)


def ranges_of(chunks: Iterable[Chunk], gap_bytes: int, max_bytes: int) -> list[list[Piece]]:
    """The pieces of `chunks` in groups that are fetched with one request each; see `ranges.merge`."""
    ordered = pieces_of(chunks)
    spans = [(piece.offset, piece.end - piece.offset) for piece in ordered]
    return [ordered[part.first : part.end] for part in merge(spans, gap_bytes, max_bytes)]


def memory_needed(pieces: Sequence[Piece]) -> int:
    """Bytes to fetch and decode a range: pieces are decoded as they arrive, so never all of it is there."""
    everything = sum(piece.end - piece.offset + piece.decoded for piece in pieces)
    largest = max(piece.end - piece.offset + piece.decoded for piece in pieces)
    return min(everything, NETWORK_BYTES + BACKLOG_BYTES + BATCHES * max(BATCH_BYTES, largest))


class Arrival:
    """A range of the blob on its way: bytes go in as they come, batches of complete pieces come out."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._pieces = pieces
        self._next = 0  # the first piece that was not handed out
        self._complete = 0  # the first piece that is not all here
        self._buffer = bytearray()
        self._base = pieces[0].offset  # where the buffer begins in the blob
        self.offset = pieces[0].offset
        self.size = max(piece.end for piece in pieces) - self.offset

    def add(self, data: bytes) -> None:
        """The bytes that follow those that were added before."""
        self._buffer += data
        if self._next < len(self._pieces) and (gap := self._pieces[self._next].offset - self._base) > 0:
            self._drop(min(gap, len(self._buffer)))  # it may be large, and nobody wants it
        here = self._base + len(self._buffer)
        while self._complete < len(self._pieces) and self._pieces[self._complete].end <= here:
            self._complete += 1

    @property
    def has_batch(self) -> bool:
        """Whether `take` has something."""
        return self._next < self._complete

    @property
    def left_bytes(self) -> int:
        """How many bytes of the range are still to come."""
        return self.offset + self.size - self._base - len(self._buffer)

    @property
    def backlog_bytes(self) -> int:
        """Bytes that are here and belong to pieces which nobody took yet."""
        return len(self._buffer) if self.has_batch else 0

    def take(self) -> tuple[bytes, int, list[Chunk]]:
        """The next complete pieces: their bytes, where these begin in the blob, and the chunks in them."""
        first, decoded = self._next, 0
        while self._next < self._complete:
            piece = self._pieces[self._next]
            if self._next > first and decoded + piece.decoded > BATCH_BYTES:
                break
            decoded += piece.decoded
            self._next += 1
        taken = self._pieces[first : self._next]
        start, end = taken[0].offset, max(piece.end for piece in taken)
        span = bytes(memoryview(self._buffer)[start - self._base : end - self._base])
        # Pieces may overlap: what the rest needs stays.
        unused = self._pieces[self._next].offset if self._next < len(self._pieces) else end
        self._drop(min(max(unused - self._base, 0), len(self._buffer)))
        return span, start, [chunk for piece in taken for chunk in piece.chunks]

    def _drop(self, size: int) -> None:
        del self._buffer[:size]
        self._base += size

    def unreceived(self) -> list[Chunk]:
        """The chunks of which bytes are still to come."""
        return [chunk for piece in self._pieces[self._complete :] for chunk in piece.chunks]
