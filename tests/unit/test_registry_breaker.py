"""A host that does not answer is left alone, and is not overrun when it is back."""

import math

import pytest
import trio
from trio.testing import MockClock

from registry_storage.registry.breaker import FAILURES, LONGEST_PAUSE_SECONDS, Breaker, BreakerOpenError

pytest_plugins = ["tests.fakes.registry_fixtures"]


class Host:
    """Counts who comes at the same time."""

    def __init__(self, breaker: Breaker) -> None:
        self.breaker = breaker
        self.up = False
        self.asked: list[float] = []
        self.answers = 0

    async def ask(self, deadline: float = math.inf) -> bool:
        probe = await self.breaker.enter(deadline)
        self.asked.append(trio.current_time())
        await trio.sleep(0.01)
        if self.up:
            self.answers += 1
            self.breaker.answered()
            return True
        self.breaker.failed(probe)
        return False

    async def until_answered(self) -> None:
        while not await self.ask():
            pass


async def opened(random: float = 1.0) -> Host:
    host = Host(Breaker(lambda: random))
    for _ in range(FAILURES):
        assert not await host.ask()
    host.asked.clear()
    return host


async def test_a_few_failures_keep_nobody_away(clock: MockClock) -> None:
    host = Host(Breaker())
    for _ in range(FAILURES - 1):
        await host.ask()
    host.up = True
    assert await host.ask()
    host.up = False
    for _ in range(FAILURES - 1):
        await host.ask()
    assert not host.breaker.is_open


async def test_while_it_is_open_one_after_the_other_tries_with_growing_pauses(
    clock: MockClock, nursery: trio.Nursery
) -> None:
    host = await opened()
    for _ in range(100):
        nursery.start_soon(host.until_answered)
    await trio.sleep(60)
    pauses = [later - earlier for earlier, later in zip(host.asked, host.asked[1:], strict=False)]
    assert len(host.asked) < 12
    assert pauses[:3] == pytest.approx([1.01, 2.01, 4.01])
    assert max(pauses) <= LONGEST_PAUSE_SECONDS + 0.1


async def test_when_the_host_is_back_those_who_waited_come_spread_over_a_moment(
    clock: MockClock, nursery: trio.Nursery
) -> None:
    numbers = iter(range(1000))
    host = await opened()
    host.breaker = Breaker(lambda: next(numbers) % 100 / 100)
    for _ in range(FAILURES):
        await host.ask()
    for _ in range(100):
        nursery.start_soon(host.until_answered)
    await trio.sleep(20)
    host.asked.clear()
    host.up = True
    await trio.sleep(LONGEST_PAUSE_SECONDS + 10)
    assert host.answers == 100
    first = host.asked[0]
    assert sum(at - first < 0.05 for at in host.asked) < 20
    assert not host.breaker.is_open


async def test_the_probe_of_one_who_goes_away_is_another_s(clock: MockClock, nursery: trio.Nursery) -> None:
    host = await opened()
    await trio.sleep(10)
    assert await host.breaker.enter(math.inf)
    host.up = True
    nursery.start_soon(host.ask)
    await trio.sleep(5)
    assert host.answers == 0
    host.breaker.left(probe=True)
    await trio.sleep(1)
    assert host.answers == 1


async def test_who_has_no_time_left_is_told_so(clock: MockClock) -> None:
    host = await opened()
    with pytest.raises(BreakerOpenError):
        await host.ask(trio.current_time() + 0.1)
