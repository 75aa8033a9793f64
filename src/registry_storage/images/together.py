"""Several things at once, of which the first that fails ends the others."""

from collections.abc import Awaitable, Callable, Iterable

import trio

from ..errors import RegistryStorageError


async def together(works: Iterable[Callable[[], Awaitable[object]]]) -> None:
    """Run all; raises the RegistryStorageError or OSError of the first that failed, alone."""
    failure: Exception | None = None

    async def run(work: Callable[[], Awaitable[object]]) -> None:
        nonlocal failure
        try:
            await work()
        except (RegistryStorageError, OSError) as error:
            failure = failure or error
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for work in works:
            nursery.start_soon(run, work)
    if failure is not None:
        raise failure
