"""One run for all who want the same at the same time."""

import pytest
import trio
import trio.testing

from registry_storage.errors import UnavailableError
from registry_storage.layer.single_flight import SingleFlight


async def test_concurrent_callers_share_one_run(nursery: trio.Nursery) -> None:
    flights: SingleFlight[str, int] = SingleFlight(nursery)
    runs, results = 0, []

    async def work() -> int:
        nonlocal runs
        runs += 1
        await trio.testing.wait_all_tasks_blocked()
        return 7

    async def caller() -> None:
        results.append(await flights.run("key", work))

    async with trio.open_nursery() as callers:
        for _ in range(5):
            callers.start_soon(caller)
    assert (runs, results) == (1, [7] * 5)
    assert await flights.run("key", work) == 7
    assert runs == 2


async def test_a_cancelled_caller_leaves_the_others_their_result(nursery: trio.Nursery) -> None:
    flights: SingleFlight[str, int] = SingleFlight(nursery)
    release = trio.Event()

    async def work() -> int:
        await release.wait()
        return 1

    async with trio.open_nursery() as callers:
        scope = trio.CancelScope()

        async def first() -> None:
            with scope:
                await flights.run("key", work)

        results = []

        async def second() -> None:
            results.append(await flights.run("key", work))

        callers.start_soon(first)
        await trio.testing.wait_all_tasks_blocked()
        callers.start_soon(second)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        release.set()
    assert results == [1]


async def test_an_error_reaches_every_caller_and_is_not_remembered(nursery: trio.Nursery) -> None:
    flights: SingleFlight[str, int] = SingleFlight(nursery)

    async def fail() -> int:
        raise UnavailableError("down")

    async def succeed() -> int:
        return 3

    with pytest.raises(UnavailableError, match="down"):
        await flights.run("key", fail)
    assert await flights.run("key", succeed) == 3
