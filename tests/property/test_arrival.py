"""A range that arrives in any pieces is handed out whole, once, in order."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from registry_storage.layer.pieces import BATCH_BYTES, Arrival, Piece, memory_needed, pieces_of, ranges_of
from registry_storage.toc.chunk import Chunk

START = 1000


@st.composite
def chunk_lists(draw: st.DrawFn) -> list[Chunk]:
    """Chunks as a TOC may have them: several in a piece, gaps between pieces, pieces that overlap."""
    chunks: list[Chunk] = []
    offset = START
    for _ in range(draw(st.integers(1, 12))):
        size, inner = draw(st.integers(1, 60)), 0
        for _ in range(draw(st.integers(1, 3))):
            decoded = draw(st.sampled_from([1, 100, BATCH_BYTES // 2, BATCH_BYTES + 1]))
            chunks.append(Chunk(len(chunks), offset, size, inner, decoded, 0, bytes(32)))
            inner += decoded
        offset += max(1, size + draw(st.integers(-20, 20)))
    return chunks


@given(chunk_lists(), st.lists(st.integers(1, 50), min_size=1), st.randoms(use_true_random=False))
def test_every_chunk_is_handed_out_once_with_the_bytes_of_its_piece(
    chunks: list[Chunk], sizes: list[int], random: Random
) -> None:
    pieces = pieces_of(chunks)
    arrival = Arrival(pieces)
    blob = bytes((7 * at) % 251 for at in range(arrival.offset + arrival.size))
    got: list[Chunk] = []
    position, turn = arrival.offset, 0
    while position < len(blob):
        end = min(len(blob), position + sizes[turn % len(sizes)])
        arrival.add(blob[position:end])
        position, turn = end, turn + 1
        missing = {chunk.number for chunk in arrival.unreceived()}
        assert missing == {c.number for p in _after_the_complete(pieces, position) for c in p.chunks}
        while arrival.has_batch and random.random() < 0.7:
            got += _check_batch(arrival, blob)
    while arrival.has_batch:
        got += _check_batch(arrival, blob)
    assert sorted(chunk.number for chunk in got) == [chunk.number for chunk in chunks]
    assert arrival.backlog_bytes == 0


def _after_the_complete(pieces: list[Piece], position: int) -> list[Piece]:
    for number, piece in enumerate(pieces):
        if piece.end > position:
            return pieces[number:]
    return []


def _check_batch(arrival: Arrival, blob: bytes) -> list[Chunk]:
    span, base, chunks = arrival.take()
    assert span == blob[base : base + len(span)]
    for chunk in chunks:
        assert base <= chunk.blob_offset
        assert chunk.blob_offset + chunk.blob_size <= base + len(span)
    offsets = {chunk.blob_offset: chunk.inner_offset + chunk.size for chunk in chunks}
    assert len(offsets) == 1 or sum(offsets.values()) <= BATCH_BYTES
    return chunks


@given(chunk_lists(), st.integers(0, 40), st.integers(1, 200))
def test_ranges_hold_every_piece_and_need_no_more_memory_than_everything(
    chunks: list[Chunk], gap: int, limit: int
) -> None:
    ranges = ranges_of(chunks, gap, limit)
    assert [c for pieces in ranges for p in pieces for c in p.chunks] == [
        c for p in pieces_of(chunks) for c in p.chunks
    ]
    for pieces in ranges:
        everything = sum(piece.end - piece.offset + piece.decoded for piece in pieces)
        assert 0 < memory_needed(pieces) <= everything
