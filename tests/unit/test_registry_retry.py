"""When to try again, and how long to wait."""

import pytest
import trio
from trio.testing import MockClock

from registry_storage.errors import UnavailableError
from registry_storage.registry.retry import Budget, RetryableError, RetryPolicy, Timeouts, parse_retry_after

pytest_plugins = ["tests.fakes.registry_fixtures"]

FAILURE = RetryableError(UnavailableError("down"), "registry.example")


async def waits(budget: Budget, failure: RetryableError = FAILURE) -> list[float]:
    """The waits until the budget is used up."""
    seconds: list[float] = []
    while True:
        started = trio.current_time()
        try:
            await budget.pause(failure)
        except UnavailableError:
            return seconds
        seconds.append(trio.current_time() - started)


async def test_waits_double_up_to_the_cap(clock: MockClock) -> None:
    timeouts, policy = (
        Timeouts(operation_seconds=1000),
        RetryPolicy(attempts=8, base_seconds=1, cap_seconds=10),
    )
    budget = Budget(timeouts, policy, random_source=lambda: 1.0)
    assert await waits(budget) == pytest.approx([1, 2, 4, 8, 10, 10, 10])


async def test_waits_are_a_random_part(clock: MockClock) -> None:
    numbers = iter([0.0, 0.5, 0.25])
    budget = Budget(
        Timeouts(), RetryPolicy(attempts=4, base_seconds=1), random_source=lambda: next(numbers, 0.0)
    )
    assert await waits(budget) == pytest.approx([0, 1, 1])


async def test_the_time_for_the_operation_ends_the_attempts(clock: MockClock) -> None:
    budget = Budget(
        Timeouts(operation_seconds=5), RetryPolicy(attempts=99, base_seconds=2), random_source=lambda: 1.0
    )
    assert await waits(budget) == pytest.approx([2])


async def test_retry_after_is_capped(clock: MockClock) -> None:
    timeouts = Timeouts(operation_seconds=1000)
    budget = Budget(timeouts, RetryPolicy(attempts=2, retry_after_cap_seconds=30), random_source=lambda: 0.0)
    busy = RetryableError(UnavailableError("busy"), "registry.example", 429, retry_after_seconds=600)
    assert await waits(budget, busy) == pytest.approx([30])


async def test_progress_starts_the_count_again(clock: MockClock) -> None:
    budget = Budget(Timeouts(), RetryPolicy(attempts=2), size=1 << 30)
    await budget.pause(FAILURE)
    budget.progressed(64 << 10)
    await budget.pause(FAILURE)
    budget.progressed(1000)
    with pytest.raises(UnavailableError):
        await budget.pause(FAILURE)


async def test_progress_renews_the_time_within_what_the_size_allows(clock: MockClock) -> None:
    timeouts = Timeouts(operation_seconds=10, minimum_bytes_per_second=65536)
    budget = Budget(timeouts, RetryPolicy(), size=65536 * 100)
    assert budget.deadline == pytest.approx(10)
    for _ in range(30):
        await trio.sleep(5)
        budget.progressed(65536)
    assert budget.deadline == pytest.approx(110)


async def test_the_consumers_time_does_not_count(clock: MockClock) -> None:
    budget = Budget(Timeouts(operation_seconds=10), RetryPolicy())
    await trio.sleep(100)
    budget.held(100)
    assert budget.deadline == pytest.approx(110)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("0", 0),
        (" 120 ", 120),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 10),
        ("Wed, 21 Oct 2015 07:27:00 GMT", 0),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("9999999999", None),
        (None, None),
    ],
)
def test_retry_after_is_parsed(text: str | None, wanted: float | None) -> None:
    assert parse_retry_after(text, None, lambda: 1445412470.0) == wanted


@pytest.mark.parametrize("ours", [0.0, 1445412470.0, 4e9])
def test_a_date_to_wait_for_is_one_by_the_hosts_clock(ours: float) -> None:
    until, now = "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 07:27:53 GMT"
    assert parse_retry_after(until, now, lambda: ours) == 7
    assert parse_retry_after("5", now, lambda: ours) == 5


def test_a_hosts_date_that_is_none_is_not_believed() -> None:
    assert parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT", "yesterday", lambda: 1445412470.0) == 10
