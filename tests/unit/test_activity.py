"""Readers go before prefetch, prefetch before background work."""

import pytest
import trio
import trio.testing

from registry_storage.layer.activity import Activity, GaveWayError


async def test_work_that_gives_way_is_cut_off_by_a_reader_and_by_a_prefetch(nursery: trio.Nursery) -> None:
    activity, cut_off = Activity(), 0

    async def work() -> None:
        nonlocal cut_off
        with pytest.raises(GaveWayError), activity.giving_way():
            await trio.sleep_forever()
        cut_off += 1

    for needs in (activity.reading, activity.prefetching):
        before = cut_off
        nursery.start_soon(work)
        await trio.testing.wait_all_tasks_blocked()
        with needs():
            await trio.testing.wait_all_tasks_blocked()
            assert cut_off == before + 1


async def test_it_is_quiet_so_long_after_the_last_reader(autojump_clock: trio.testing.MockClock) -> None:
    activity = Activity()
    assert not await activity.quiet(5)
    with activity.reading():
        await trio.sleep(1)
    begin = trio.current_time()
    assert await activity.quiet(5)
    assert trio.current_time() - begin == pytest.approx(5)
    assert not await activity.quiet(5)


async def test_quiet_waits_for_all_readers_and_begins_anew_with_each(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    activity = Activity()

    async def read(start: float, end: float) -> None:
        await trio.sleep(start)
        with activity.reading():
            await trio.sleep(end - start)

    for start, end in ((0, 10), (2, 4), (11, 12), (30, 31)):
        nursery.start_soon(read, start, end)
    await trio.testing.wait_all_tasks_blocked()
    begin = trio.current_time()
    await activity.quiet(5)
    assert trio.current_time() - begin == pytest.approx(17, abs=0.1)


async def test_prefetch_waits_for_readers_only(autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    activity = Activity()
    with activity.prefetching():
        await activity.no_reader()

        async def read() -> None:
            with activity.reading():
                await trio.sleep(3)

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        begin = trio.current_time()
        await activity.no_reader()
        assert trio.current_time() - begin == pytest.approx(3, abs=0.1)
