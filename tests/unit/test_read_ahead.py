"""What comes along with a miss: little for those who jump about, more and more for those who go straight on."""

import os
from itertools import pairwise

import pytest

from registry_storage.formats.detect import detect
from registry_storage.layer import ahead
from registry_storage.layer.ahead import MAX_MISSES, MAX_READERS, REQUEST_SECONDS, ReadAhead
from registry_storage.registry.hosts import LinkEstimate
from registry_storage.toc.index import TocIndex, build_index
from tests.fakes.images import File, build_layer

CHUNK = 8 << 10
REACH = 64 << 10
LINK = LinkEstimate(round_trip_seconds=0.01, bytes_per_second=REACH / (0.01 + REQUEST_SECONDS))


def layer(*files: tuple[str, int]) -> TocIndex:
    """Files with so many chunks each, which cannot be compressed."""
    return index_of(*(File(name, os.urandom(count * CHUNK), chunk_size=CHUNK) for name, count in files))


def index_of(*files: File) -> TocIndex:
    built = build_layer(files)
    lazy = detect(built.descriptor)
    location = lazy.toc
    assert location is not None
    json = lazy.format.open_toc(built.blob[location.offset :], location, lazy.toc_digest)
    return TocIndex(build_index(json, blob_size=len(built.blob), toc_offset=location.offset))


class Reader:
    """Reads chunks of a layer; what came along is here too."""

    def __init__(self, index: TocIndex) -> None:
        self.index = index
        self.here: set[int] = set()
        self.ahead = ReadAhead(
            index, index.chunk, lambda number: number < index.chunk_count and number not in self.here
        )

    def miss(self, number: int) -> list[int]:
        """The chunks after `number` that come along."""
        chunk = self.index.chunk(number)
        self.here.add(number)
        window = self.ahead.ahead(chunk, chunk, LINK)
        numbers = [chunk.number for chunk in window.chunks]
        self.here.update(numbers)
        return numbers

    def behind(self, number: int) -> list[int]:
        return [chunk.number for chunk in self.ahead.behind(self.index.chunk(number), LINK)]


def test_who_goes_straight_on_for_long_gets_what_lies_behind_that_which_is_here() -> None:
    reader = Reader(layer(("file", 600)))
    number = 0
    for turn in range(3):
        if turn == 2:
            reader.here.update(range(number + 3, number + 6))
        came = reader.miss(number)
        number, last = came[-1] + 1, number
    assert {last + 1, last + 2, last + 6, number - 1} <= set(came)
    assert not {last + 3, last + 4, last + 5} & set(came)


def test_a_hole_at_the_end_of_a_window_is_no_end_of_going_straight_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "MAX_CHUNKS", 4)
    data = os.urandom(5 * CHUNK) + bytes(CHUNK) + os.urandom(5 * CHUNK)
    reader = Reader(index_of(File("file", data, chunk_size=CHUNK, holes=True)))
    assert reader.miss(0) == [1, 2, 3, 4]
    chunk = reader.index.chunk(6)
    assert reader.ahead.ahead(chunk, chunk, LINK).growth == 2


def test_who_does_not_gets_nothing_behind_it() -> None:
    reader = Reader(layer(("file", 100)))
    reader.here.update((3, 4))
    assert reader.miss(0) == [1, 2]


def test_a_window_grows_for_a_reader_that_goes_straight_on() -> None:
    reader = Reader(layer(("file", 600)))
    sizes, number = [], 0
    for _ in range(4):
        came = reader.miss(number)
        sizes.append(len(came))
        number = came[-1] + 1
    assert sizes[0] * CHUNK <= 2 * REACH
    factors = [after / before for before, after in pairwise(sizes)]
    assert [round(factor) for factor in factors] == [2, 2, 4]
    assert number < 600


def test_readers_side_by_side_do_not_disturb_each_other() -> None:
    count, length = 60, 80
    reader = Reader(layer(*((f"file{number:02}", length) for number in range(count))))
    places = [length * number for number in range(count)]
    growing = [0] * count
    for _ in range(2):
        for number, place in enumerate(places):
            came = reader.miss(place)
            assert len(came) > growing[number]
            growing[number], places[number] = len(came), came[-1] + 1


def test_a_reader_that_jumps_about_in_a_file_gets_more_of_it_little_by_little() -> None:
    reader = Reader(layer(("file", 2000)))
    sizes = [len(reader.miss(number)) * CHUNK for number in range(50, 2000, 150)]
    assert sizes[0] <= 2 * REACH
    assert all(0 <= later - earlier <= REACH for earlier, later in pairwise(sizes))
    assert 5 * REACH <= sizes[-2] == sizes[-1] <= (2 + MAX_MISSES / 2) * REACH


def test_a_reader_that_jumps_from_file_to_file_gets_the_same_little_each_time() -> None:
    reader = Reader(layer(*((f"file{number}", 100) for number in range(10))))
    assert {len(reader.miss(number)) for number in (500, 100, 900, 300)} == {len(reader.miss(700))}


def test_another_file_comes_along_only_when_it_is_near() -> None:
    small = layer(*((f"file{number:03}", 1) for number in range(200)))
    assert 1 <= len(Reader(small).miss(50)) * CHUNK <= REACH // 2
    large = Reader(layer(("one", 1), ("two", 100)))
    assert len(large.miss(0)) * CHUNK <= REACH // 2


def test_behind_comes_the_same_file_only() -> None:
    reader = Reader(layer(("one", 100), ("two", 100)))
    came = reader.behind(103)
    assert came == [100, 101, 102]
    came = reader.behind(80)
    assert came == list(range(came[0], 80))
    assert 1 <= len(came) * CHUNK <= REACH
    reader.here.add(78)
    assert reader.behind(80) == [79]


def test_what_is_here_already_is_passed_over_when_a_reader_goes_on() -> None:
    reader = Reader(layer(("file", 400)))
    alone = len(reader.miss(300))
    reader.here = set(range(10, 20))
    assert reader.miss(0) == list(range(1, 10))
    assert len(reader.miss(20)) >= 1.8 * alone


def test_places_of_readers_are_not_kept_for_ever() -> None:
    reader = Reader(layer(*((f"file{number:04}", 1) for number in range(2000))))
    for number in range(0, 2000, 4):
        reader.miss(number)
    assert len(reader.ahead._expected) <= MAX_READERS
