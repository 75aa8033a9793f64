"""Which part of the cache goes when room is needed."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from registry_storage.cache.budget import Budget, parse_size
from registry_storage.cache.eviction import PINNED, REFERENCED, UNREFERENCED, Eviction, Victim
from registry_storage.errors import ConfigError

BLOCK = 1 << 20


class Shelf:
    """Ten things of a mebibyte each, used one second after the other."""

    def __init__(self, rank: int, used_at: float) -> None:
        self.rank, self.used_at = rank, used_at
        self.here = list(range(10))
        self.gone: list[int] = []

    def used_bytes(self) -> int:
        return BLOCK * len(self.here)

    def kept_bytes(self) -> int:
        return self.used_bytes() if self.rank == PINNED else 0

    def collect_uses(self, now: float) -> None:
        pass

    def victims(self) -> Iterator[Victim]:
        for number in list(self.here):
            yield Victim(self.rank, self.used_at + number, partial(self.evict, number))

    def evict(self, number: int) -> int:
        if number not in self.here:
            return 0
        self.here.remove(number)
        self.gone.append(number)
        return BLOCK


def eviction(tmp_path: Path, size: int, *shelves: Shelf) -> Eviction:
    made = Eviction(tmp_path, Budget(size, 0))
    for shelf in shelves:
        made.add(shelf)
    made.measure()
    return made


async def test_what_nobody_references_goes_first_and_of_that_what_was_used_longest_ago(tmp_path: Path) -> None:
    long_ago = trio.current_time() - 1000
    referenced, unreferenced = Shelf(REFERENCED, long_ago - 500), Shelf(UNREFERENCED, long_ago)
    made = eviction(tmp_path, 20 * BLOCK, referenced, unreferenced)
    made.grew(3 * BLOCK)
    assert (referenced.gone, unreferenced.gone) == ([], [0, 1, 2])
    made.grew(9 * BLOCK)
    assert (referenced.gone, len(unreferenced.gone)) == ([0, 1], 10)
    assert made.used_bytes == 20 * BLOCK


async def test_pinned_things_stay_and_that_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shelf = Shelf(PINNED, 0.0)
    made = eviction(tmp_path, 5 * BLOCK, shelf)
    made.grew(BLOCK)
    made.grew(BLOCK)
    assert shelf.gone == []
    assert not made.make_room(BLOCK)
    assert len(caplog.records) == 1
    assert await made.prune(REFERENCED) == 0


async def test_what_was_used_a_moment_ago_stays_until_it_is_far_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry_storage.cache.eviction.FRESH_BYTES", 4 * BLOCK)
    shelf = Shelf(REFERENCED, trio.current_time() + 60)
    made = eviction(tmp_path, 10 * BLOCK, shelf)
    made.grew(3 * BLOCK)
    assert shelf.gone == []
    made.grew(2 * BLOCK)
    assert len(shelf.gone) == 2


async def test_the_cache_shrinks_to_the_low_mark_by_itself(tmp_path: Path, nursery: trio.Nursery) -> None:
    shelf = Shelf(REFERENCED, trio.current_time() - 100)
    made = eviction(tmp_path, int(10 * BLOCK / 0.97), shelf)
    nursery.start_soon(made.run)
    with trio.fail_after(30):
        while not shelf.gone:
            await trio.sleep(0.01)
    assert shelf.gone == [0]


async def test_a_disk_that_others_fill_shrinks_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf(REFERENCED, trio.current_time() - 100)
    made = eviction(tmp_path, 100 * BLOCK, shelf)
    assert made.has_room()
    made.budget = Budget(100 * BLOCK, 1 << 62)
    assert not made.has_room()
    made.grew(0)
    assert len(shelf.gone) == 10


async def test_pruning_spares_what_is_dearer(tmp_path: Path) -> None:
    shelves = [Shelf(rank, 0.0) for rank in (UNREFERENCED, REFERENCED, PINNED)]
    made = eviction(tmp_path, 100 * BLOCK, *shelves)
    assert await made.prune(UNREFERENCED) == 10 * BLOCK
    assert [len(shelf.gone) for shelf in shelves] == [10, 0, 0]
    assert await made.prune(REFERENCED) == 10 * BLOCK
    assert [len(shelf.gone) for shelf in shelves] == [10, 10, 0]


def test_sizes_are_shares_or_bytes() -> None:
    disk = 1000 * BLOCK
    assert parse_size("50%", disk, "x") == 500 * BLOCK
    assert parse_size("1.5MiB", disk, "x") == 3 * BLOCK // 2
    assert parse_size("2G", disk, "x") == 2 << 30
    assert parse_size("10k", disk, "x") == parse_size("10240", disk, "x") == parse_size("10KiB", disk, "x") == 10240
    for text in ("", "much", "-1", "101%", "5X", "1e9"):
        with pytest.raises(ConfigError, match="cache_size"):
            parse_size(text, disk, "cache_size")
