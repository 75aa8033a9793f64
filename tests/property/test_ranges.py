"""Merging pieces into ranges, against what must hold for any pieces."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from registry_storage.registry.ranges import merge, parse_content_range, range_header

Pieces = list[tuple[int, int]]
_PIECES = st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 300)), max_size=40).map(sorted)
_GAP = st.integers(0, 200)
_MAX = st.integers(1, 1500)


@given(_PIECES, _GAP, _MAX)
def test_every_piece_lies_in_the_range_that_names_it(pieces: Pieces, gap: int, maximum: int) -> None:
    ranges = merge(pieces, gap, maximum)
    assert [number for r in ranges for number in range(r.first, r.end)] == list(range(len(pieces)))
    for r in ranges:
        for offset, size in pieces[r.first : r.end]:
            assert r.offset <= offset
            assert offset + size <= r.offset + r.size


@given(_PIECES, _GAP, _MAX)
def test_only_a_single_piece_makes_a_range_too_large(pieces: Pieces, gap: int, maximum: int) -> None:
    for r in merge(pieces, gap, maximum):
        assert r.size <= max(maximum, pieces[r.first][1])


@given(_PIECES, _GAP, _MAX)
def test_a_range_begins_and_ends_with_a_wanted_byte(pieces: Pieces, gap: int, maximum: int) -> None:
    for r in merge(pieces, gap, maximum):
        assert r.offset == pieces[r.first][0]
        assert r.offset + r.size == max(offset + size for offset, size in pieces[r.first : r.end])


@given(_PIECES, _GAP, _MAX)
def test_no_range_pays_for_a_gap_that_is_not_worth_it(pieces: Pieces, gap: int, maximum: int) -> None:
    for r in merge(pieces, gap, maximum):
        reached = r.offset
        for offset, size in pieces[r.first : r.end]:
            assert offset - reached <= gap
            reached = max(reached, offset + size)


@given(_PIECES, _GAP, _MAX)
def test_neighbouring_ranges_could_not_have_been_one(pieces: Pieces, gap: int, maximum: int) -> None:
    ranges = merge(pieces, gap, maximum)
    for one, other in itertools.pairwise(ranges):
        first = pieces[other.first]
        together = max(one.offset + one.size, first[0] + first[1]) - one.offset
        assert first[0] - (one.offset + one.size) > gap or together > maximum


@given(st.integers(0, 1 << 50), st.integers(1, 1 << 40), st.integers(0, 1 << 50))
def test_content_range_of_a_range_is_read_back(offset: int, size: int, rest: int) -> None:
    text = range_header(offset, size).replace("=", " ")
    assert parse_content_range(f"{text}/{offset + size + rest}") == (offset, size, offset + size + rest)
    assert parse_content_range(f"{text}/*") == (offset, size, None)


@given(st.text(max_size=40))
def test_content_range_of_anything_is_a_range_or_nothing(text: str) -> None:
    got = parse_content_range(text)
    assert got is None or (got[0] >= 0 and got[1] > 0)
