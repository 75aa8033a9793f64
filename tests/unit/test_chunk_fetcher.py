"""Readers that share a fetch, and a fetch that fails, do not harm those who come after."""

import os
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import cast

import pytest
import trio
import trio.testing

from registry_storage.cache.content import Content, state_bytes
from registry_storage.errors import RegistryStorageError, UnavailableError
from registry_storage.formats.detect import detect
from registry_storage.layer.activity import Activity, GaveWayError
from registry_storage.layer.chunks import REQUESTS_AHEAD, ChunkFetcher
from registry_storage.layer.loose import LooseChunks
from registry_storage.layer.memory import MemoryBudget
from registry_storage.layer.source import BlobSource
from registry_storage.registry.hosts import LinkEstimate
from registry_storage.toc.index import TocIndex, build_index
from tests.fakes.images import BuiltLayer, File, build_layer

DATA = os.urandom(2000)
LAYER = build_layer([File("file", DATA, chunk_size=1000)])
(FIRST, _), (SECOND, _) = LAYER.places["file"]
END = LAYER.toc_offset
"""What an index knows of the end of the last piece."""


class Transfer:
    """A range that is asked for; the test says when its bytes arrive, and which are wrong."""

    def __init__(self, blob: bytes, offset: int, size: int) -> None:
        self._blob = blob
        self._offset, self._end = offset, offset + size
        self._send, self._receive = trio.open_memory_channel[bytes](10)

    def arrive(self, end: int, *wrong: int) -> None:
        """What comes next, up to `end` of the blob."""
        data = bytearray(self._blob[self._offset : end])
        for place in wrong:
            data[place - self._offset] ^= 1
        self._offset = end
        self._send.send_nowait(bytes(data))
        if end == self._end:
            self._send.close()

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        async for piece in self._receive:
            yield piece


class ScriptedSource:
    """Stands for a `BlobSource`."""

    link = LinkEstimate()

    def __init__(self, blob: bytes = LAYER.blob) -> None:
        self._blob = blob
        self.transfers: list[Transfer] = []
        self.asked: list[tuple[int, int]] = []

    async def stream(self, offset: int, size: int) -> AsyncGenerator[bytes, None]:
        self.asked.append((offset, offset + size))
        self.transfers.append(Transfer(self._blob, offset, size))
        async with aclosing(self.transfers[-1].pieces()) as pieces:
            async for piece in pieces:
                yield piece

    async def transfer(self, number: int) -> Transfer:
        """Wait for it to be asked for."""
        await until(lambda: len(self.transfers) > number)
        return self.transfers[number]


class Reader:
    """Someone who needs chunks."""

    outcome: str | None = None

    async def read(self, fetcher: ChunkFetcher, first: int, end: int) -> None:
        try:
            await fetcher.ensure(first, end)
        except RegistryStorageError as error:
            self.outcome = str(error)
        else:
            self.outcome = "read"


async def until(holds: Callable[[], bool]) -> None:
    """Worker threads are at work."""
    with trio.fail_after(20):
        while not holds():
            await trio.sleep(0.001)


@pytest.fixture
def source() -> ScriptedSource:
    return ScriptedSource()


def make_fetcher(layer: BuiltLayer, directory: Path, nursery: trio.Nursery, source: ScriptedSource) -> ChunkFetcher:
    lazy = detect(layer.descriptor)
    assert lazy.toc is not None
    toc = lazy.format.open_toc(layer.blob[lazy.toc.offset :], lazy.toc, layer.toc_digest)
    index = TocIndex(build_index(toc, blob_size=len(layer.blob), toc_offset=lazy.toc.offset))
    state = memoryview(bytearray(state_bytes(index.chunk_count)))
    content = Content(directory, size=index.content_size, chunk_count=index.chunk_count, state=state)
    return ChunkFetcher(
        "layer", lazy.format, index, content, cast("BlobSource", source),
        Activity(), nursery, trio.CapacityLimiter(1), MemoryBudget(64 << 20),
        LooseChunks(lambda size: False),
    )  # fmt: skip


@pytest.fixture
def fetcher(tmp_path: Path, nursery: trio.Nursery, source: ScriptedSource) -> ChunkFetcher:
    return make_fetcher(LAYER, tmp_path, nursery, source)


async def test_the_end_of_a_fetch_leaves_alone_a_chunk_that_is_on_its_way_again(
    fetcher: ChunkFetcher, source: ScriptedSource, nursery: trio.Nursery
) -> None:
    first, again = Reader(), Reader()
    nursery.start_soon(first.read, fetcher, 0, 1)
    old = await source.transfer(0)  # of both chunks: the second is fetched around the first
    old.arrive(SECOND, FIRST + 20)
    await until(lambda: first.outcome is not None)
    assert "chunk 0" in str(first.outcome)

    nursery.start_soon(again.read, fetcher, 0, 1)
    new = await source.transfer(1)
    old.arrive(END)
    with trio.fail_after(20):
        await fetcher.ensure(1, 2)
    await trio.testing.wait_all_tasks_blocked()
    assert again.outcome is None
    new.arrive(SECOND)
    await until(lambda: again.outcome is not None)
    assert again.outcome == "read"


async def test_who_joined_a_fetch_that_fails_in_several_places_asks_for_all_of_them_again(
    fetcher: ChunkFetcher, source: ScriptedSource, nursery: trio.Nursery
) -> None:
    first, joined = Reader(), Reader()
    nursery.start_soon(first.read, fetcher, 0, 2)
    old = await source.transfer(0)
    nursery.start_soon(joined.read, fetcher, 0, 2)
    await trio.testing.wait_all_tasks_blocked()
    old.arrive(SECOND, FIRST + 20)
    await until(lambda: first.outcome is not None)
    old.arrive(END, SECOND + 20)

    new = await source.transfer(1)
    new.arrive(END)
    await until(lambda: joined.outcome is not None)
    assert joined.outcome == "read"
    assert len(source.transfers) == 2


async def test_nothing_is_remembered_of_a_failure(
    fetcher: ChunkFetcher, source: ScriptedSource, nursery: trio.Nursery
) -> None:
    first, again = Reader(), Reader()
    nursery.start_soon(first.read, fetcher, 0, 2)
    (await source.transfer(0)).arrive(END, FIRST + 20)
    await until(lambda: first.outcome is not None)
    assert "chunk 0" in str(first.outcome)
    nursery.start_soon(again.read, fetcher, 0, 2)
    (await source.transfer(1)).arrive(SECOND)  # the second chunk was right
    await until(lambda: again.outcome is not None)
    assert again.outcome == "read"


async def test_background_work_gives_way_to_a_reader_of_what_it_fetches_and_loses_nothing_that_is_here(
    fetcher: ChunkFetcher, source: ScriptedSource, nursery: trio.Nursery
) -> None:
    ended = trio.Event()

    async def work() -> None:
        with pytest.raises(GaveWayError):
            await fetcher.fill([0, 1], giving_way=True)
        ended.set()

    nursery.start_soon(work)
    (await source.transfer(0)).arrive(SECOND)
    await until(lambda: fetcher._content.is_ready(0))
    reader = Reader()
    nursery.start_soon(reader.read, fetcher, 1, 2)
    await until(ended.is_set)
    (await source.transfer(1)).arrive(END)
    await until(lambda: reader.outcome is not None)
    assert reader.outcome == "read"
    assert source.asked == [(FIRST, END), (SECOND, END)]


async def test_a_batch_is_decoded_while_more_arrives(
    fetcher: ChunkFetcher, source: ScriptedSource, nursery: trio.Nursery
) -> None:
    reader = Reader()
    nursery.start_soon(reader.read, fetcher, 0, 2)
    transfer = await source.transfer(0)
    transfer.arrive(SECOND)
    with trio.fail_after(20):
        await fetcher.ensure(0, 1)
    assert reader.outcome is None
    transfer.arrive(END)
    await until(lambda: reader.outcome is not None)
    assert reader.outcome == "read"


async def test_a_reader_that_goes_straight_on_finds_the_next_window_on_its_way(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    size = 8 << 10
    layer = build_layer([File("file", os.urandom(1200 * size), chunk_size=size)])
    source = ScriptedSource(layer.blob)
    fetcher = make_fetcher(layer, tmp_path, nursery, source)
    for turn in range(3):
        number = next(number for number in range(1200) if not fetcher._content.is_ready(number))
        nursery.start_soon(Reader().read, fetcher, number, number + 1)
        transfer = await source.transfer(turn)
        begin, end = source.asked[turn]
        if turn < 2:
            transfer.arrive(end)
            await until(lambda: not fetcher._pending)
    transfer.arrive(begin + (end - begin) // 4)
    await trio.testing.wait_all_tasks_blocked()
    assert len(source.asked) == 3
    nursery.start_soon(Reader().read, fetcher, number + 100, number + 101)
    await trio.testing.wait_all_tasks_blocked()
    transfer.arrive(end - 1000)
    following = await source.transfer(3)
    assert source.asked[3][0] == end
    transfer.arrive(end)
    following.arrive(source.asked[3][1])
    await until(lambda: not fetcher._pending)
    assert len(source.asked) == 4


HOLEY = build_layer([File("file", DATA[:1000] + bytes(2000) + DATA[1000:], chunk_size=1000, holes=True)])


async def test_holes_behind_a_chunk_become_ready_with_it(tmp_path: Path, nursery: trio.Nursery) -> None:
    (tmp_path / "content").write_bytes(b"garbage" * 572)  # of an earlier life: none of it may be seen
    source = ScriptedSource(HOLEY.blob)
    fetcher = make_fetcher(HOLEY, tmp_path, nursery, source)
    nursery.start_soon(Reader().read, fetcher, 0, 1)
    transfer = await source.transfer(0)
    transfer.arrive(HOLEY.places["file"][3][0])
    await until(lambda: fetcher._content.is_ready(0))
    assert [fetcher._content.is_ready(number) for number in range(4)] == [True, True, True, False]
    assert fetcher._content.read(0, 3000) == DATA[:1000] + bytes(2000)
    transfer.arrive(source.asked[0][1])
    await until(lambda: not fetcher._pending)


ORDERED = build_layer([File(name, os.urandom(200_000), chunk_size=200_000) for name in "abcdefgh"])


async def test_what_is_known_to_be_needed_comes_in_order_and_what_a_reader_waits_for_next(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    source = ScriptedSource(ORDERED.blob)
    fetcher = make_fetcher(ORDERED, tmp_path, nursery, source)
    starts = {offset: name for name, ((offset, _),) in ORDERED.places.items()}
    order = [3, 1, 0, 7, 6, 5, 4]
    nursery.start_soon(fetcher.fill_in_order, [[number] for number in order])
    await source.transfer(REQUESTS_AHEAD - 1)
    await trio.testing.wait_all_tasks_blocked()
    assert [starts[offset] for offset, _ in source.asked] == ["d", "b", "a", "h"]
    reader = Reader()
    nursery.start_soon(reader.read, fetcher, 4, 5)
    await trio.testing.wait_all_tasks_blocked()
    source.transfers[0].arrive(source.asked[0][1])
    asked = await source.transfer(REQUESTS_AHEAD)
    assert starts[source.asked[-1][0]] == "e"  # the last of all, but for the reader
    asked.arrive(source.asked[-1][1])
    await until(lambda: reader.outcome is not None)
    assert reader.outcome == "read"
    for number in (1, 2, 3, 5, 6):
        transfer = await source.transfer(number)
        transfer.arrive(source.asked[number][1])
    with trio.fail_after(20):
        for number in order:
            await fetcher.ensure(number, number + 1)
    assert sorted(starts[offset] for offset, _ in source.asked) == list("abdefgh")


async def test_a_range_that_cannot_be_fetched_ends_what_waits_behind_it(tmp_path: Path, nursery: trio.Nursery) -> None:
    class Broken(ScriptedSource):
        async def stream(self, offset: int, size: int) -> AsyncGenerator[bytes, None]:
            self.asked.append((offset, offset + size))
            raise UnavailableError("nobody is there")
            yield b""

    source = Broken(ORDERED.blob)
    fetcher = make_fetcher(ORDERED, tmp_path, nursery, source)
    with pytest.raises(UnavailableError), trio.fail_after(20):
        await fetcher.fill_in_order([[number] for number in range(8)])
    await until(lambda: not any(fetcher.is_on_its_way(number) for number in range(8)))
    assert len(source.asked) <= REQUESTS_AHEAD
