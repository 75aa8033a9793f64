"""The budget of memory in flight."""

import trio
import trio.testing

from registry_storage.layer.memory import MemoryBudget


async def test_no_more_than_the_budget_is_out_and_turns_are_kept(nursery: trio.Nursery) -> None:
    budget, order = MemoryBudget(100), list[int]()
    release = {size: trio.Event() for size in (60, 50, 10)}

    async def work(size: int) -> None:
        async with budget.hold(size):
            order.append(size)
            await release[size].wait()

    for size in release:
        nursery.start_soon(work, size)
        await trio.testing.wait_all_tasks_blocked()
    assert order == [60]  # 50 does not fit, and 10 waits behind it
    release[60].set()
    await trio.testing.wait_all_tasks_blocked()
    assert (order[0], sorted(order)) == (60, [10, 50, 60])
    release[50].set()
    release[10].set()


async def test_what_is_larger_than_everything_goes_alone() -> None:
    budget = MemoryBudget(100)
    async with budget.hold(1000):
        with trio.move_on_after(0) as scope:
            async with budget.hold(1):
                raise AssertionError("both at once")
        assert scope.cancelled_caught
    async with budget.hold(100):
        pass


async def test_one_that_gives_up_waiting_lets_the_next_in(nursery: trio.Nursery) -> None:
    budget, entered = MemoryBudget(100), trio.Event()
    scope = trio.CancelScope()

    async def give_up() -> None:
        with scope:
            async with budget.hold(90):
                raise AssertionError("never")

    async def small() -> None:
        async with budget.hold(20):
            entered.set()

    async with budget.hold(80):
        nursery.start_soon(give_up)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(small)
        await trio.testing.wait_all_tasks_blocked()
        assert not entered.is_set()
        scope.cancel()
        await entered.wait()
