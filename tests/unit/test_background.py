"""When the rest of a layer is fetched, and in which slices."""

from collections import deque
from collections.abc import Iterable
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
import trio
import trio.testing

from registry_storage.formats.prefetch_ranges import PREFETCH_ANNOTATION
from registry_storage.layer.activity import Activity
from registry_storage.layer.background import MIN_SLICE_BYTES, QUIET_SECONDS, START_SECONDS, Background
from registry_storage.toc.chunk import Chunk

if TYPE_CHECKING:
    from registry_storage.layer.layer import Layer

CHUNK_BYTES = 64 << 10


class FakeLayer:
    """Chunks of one size in one row; fetching takes as long as the test says."""

    key = SimpleNamespace(layer_digest="sha256:layer")

    def __init__(self, activity: Activity, chunk_count: int, prefetch_chunks: int = 0) -> None:
        self.index = self.content = self.chunks = self
        self.descriptor = SimpleNamespace(annotations={}, digest="sha256:layer")
        self.chunk_count = chunk_count
        self.prefetch_end = prefetch_chunks * CHUNK_BYTES
        self.here: set[int] = set()
        self.fetched: deque[tuple[float, int]] = deque()
        self._activity = activity
        self.seconds = 0.1

    def chunk(self, number: int) -> Chunk:
        return Chunk(number, number * CHUNK_BYTES, CHUNK_BYTES, 0, CHUNK_BYTES, 0, bytes(32))

    def is_present(self, number: int) -> bool:
        return number in self.here

    def missing_from(self, number: int) -> int | None:
        return next((n for n in range(number, self.chunk_count) if n not in self.here), None)

    async def fill_in_order(self, groups: Iterable[Iterable[int]]) -> None:
        await self.fill([number for group in groups for number in group])

    async def fill(self, numbers: Iterable[int], *, giving_way: bool = False) -> None:
        wanted = list(numbers)
        self.fetched.append((trio.current_time(), len(wanted)))
        if giving_way:
            with self._activity.giving_way():
                await trio.sleep(self.seconds)
                self.here.update(wanted)
        else:
            await trio.sleep(self.seconds)
            self.here.update(wanted)


@pytest.fixture
def activity() -> Activity:
    return Activity()


def start(nursery: trio.Nursery, activity: Activity, *layers: FakeLayer) -> Background:
    background = Background(activity, prefetch=True, rest=True, has_room=lambda: True)
    nursery.start_soon(background.run)
    for layer in layers:
        background.want(cast("Layer", layer))
    return background


async def test_the_rest_begins_after_a_while_in_slices_that_double(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, activity: Activity
) -> None:
    layer = FakeLayer(activity, 100)
    begin = trio.current_time()
    start(nursery, activity, layer)
    await trio.sleep(60)
    first = MIN_SLICE_BYTES // CHUNK_BYTES
    assert [count for _, count in layer.fetched] == [first, 2 * first, 4 * first, 8 * first, 100 - 15 * first]
    assert layer.fetched[0][0] - begin == pytest.approx(START_SECONDS, abs=0.01)
    assert len(layer.here) == 100


async def test_a_reader_cuts_a_slice_off_and_it_begins_small_again_soon(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, activity: Activity
) -> None:
    layer = FakeLayer(activity, 100)
    start(nursery, activity, layer)
    await trio.sleep(START_SECONDS + 0.25)
    assert len(layer.fetched) == 3
    with activity.reading():
        await trio.sleep(0.5)
        assert len(layer.fetched) == 3
    ended = trio.current_time()
    await trio.sleep(60)
    first = MIN_SLICE_BYTES // CHUNK_BYTES
    assert layer.fetched[3][0] == pytest.approx(ended + QUIET_SECONDS, abs=0.01)
    assert layer.fetched[3][1] == first
    assert len(layer.here) == 100


async def test_a_layer_that_comes_later_has_the_link_for_itself_first(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, activity: Activity
) -> None:
    old, new = FakeLayer(activity, 1000), FakeLayer(activity, 30, prefetch_chunks=30)
    background = start(nursery, activity, old)
    await trio.sleep(START_SECONDS + 0.25)
    came, before = trio.current_time(), len(old.fetched)
    background.want(cast("Layer", new))
    await trio.sleep(60)
    assert new.fetched[0][0] == pytest.approx(came, abs=0.01)
    assert new.fetched[0][1] == 30
    assert old.fetched[before][0] - came >= START_SECONDS - 0.01
    assert len(old.here) == 1000


async def test_what_nobody_uses_any_more_is_not_fetched(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, activity: Activity
) -> None:
    layer = FakeLayer(activity, 1000)
    background = start(nursery, activity, layer)
    await trio.sleep(START_SECONDS + 0.25)
    background.forget(cast("Layer", layer))
    await trio.sleep(60)
    assert len(layer.here) < 100


async def test_the_start_of_an_optimized_image_is_told_once_and_its_end_when_it_is_quiet(
    nursery: trio.Nursery, activity: Activity, autojump_clock: trio.testing.MockClock
) -> None:
    told: list[tuple[bool, float]] = []

    async def tell(begins: bool) -> None:
        told.append((begins, trio.current_time()))

    layers = [FakeLayer(activity, 4), FakeLayer(activity, 4), FakeLayer(activity, 4)]
    for layer in layers[:2]:
        layer.descriptor.annotations[PREFETCH_ANNOTATION] = f"0+{CHUNK_BYTES}"
        layer.descriptor.size = 4 * CHUNK_BYTES
    background = start(nursery, activity)
    background.starting = tell
    for layer in layers:
        background.want(cast("Layer", layer))
    await trio.sleep(60)
    assert [begins for begins, _ in told] == [True, False]
    assert told[1][1] - told[0][1] >= START_SECONDS
