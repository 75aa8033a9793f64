"""One run for all who want the same thing at the same time."""

import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

import trio

from ..errors import RegistryStorageError

_log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Flight(Generic[V]):
    __slots__ = ("done", "error", "value")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.value: V | None = None
        self.error: Exception | None = None


class SingleFlight(Generic[K, V]):
    """Runs a function once for concurrent callers with the same key.

    The run belongs to the nursery, not to a caller: a caller that is cancelled leaves the others their result.
    Nothing is remembered: the next caller after the end starts anew.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._flights: dict[K, _Flight[V]] = {}

    async def run(self, key: K, work: Callable[[], Awaitable[V]]) -> V:
        """The result of `work`, or the RegistryStorageError or OSError that it raised."""
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight()
            self._nursery.start_soon(self._fly, key, flight, work)
        await flight.done.wait()
        if flight.error is not None:
            raise flight.error
        return flight.value  # type: ignore[return-value]  # set whenever error is not

    async def _fly(self, key: K, flight: _Flight[V], work: Callable[[], Awaitable[V]]) -> None:
        try:
            flight.value = await work()
        except (RegistryStorageError, OSError) as error:
            flight.error = error
        except Exception as error:
            _log.exception("%s failed", key)
            flight.error = RegistryStorageError(f"{key}: {error!r}")
        except BaseException:
            flight.error = RegistryStorageError("interrupted")
            raise
        finally:
            del self._flights[key]
            flight.done.set()
