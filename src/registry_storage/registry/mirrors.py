"""The same thing at several hosts: the first that gives it."""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Protocol, TypeVar

import trio

from ..errors import ConfigError, NotFoundError, RegistryError, UnavailableError, VerificationError
from .hosts import Endpoint, HostStates, LinkEstimate

_log = logging.getLogger(__name__)
RESTING_SECONDS = 30.0
"""How long a host that did not answer is asked last."""

T = TypeVar("T")


class ReadableBlob(Protocol):
    """A blob that can be read by ranges; see `blob.Blob`."""

    size: int

    @property
    def link(self) -> LinkEstimate:
        """What requests to the host that is asked first cost."""

    async def fetch(self, offset: int, size: int) -> bytes:
        """`size` bytes at `offset`."""

    def stream(self, offset: int, size: int) -> AsyncGenerator[bytes, None]:
        """The same as they arrive."""


class Mirrors:
    """Decides in which order hosts are asked, and says when one had to be passed over."""

    def __init__(self, states: HostStates) -> None:
        self._states = states

    def order(self, endpoints: Sequence[Endpoint]) -> list[int]:
        """Positions in `endpoints`: as configured, but those that did not answer of late come last."""
        return sorted(range(len(endpoints)), key=lambda at: self._states.of(endpoints[at].host).is_resting)

    async def first(
        self, endpoints: Sequence[Endpoint], what: str, fetch: Callable[[Endpoint, bool], Awaitable[T]]
    ) -> T:
        """What ``fetch(endpoint, hasty)`` gives for the first endpoint with which it does not fail.

        Raises the error of the registry itself, which is the last endpoint.
        """
        errors: dict[int, Exception] = {}
        order = self.order(endpoints)
        for place, at in enumerate(order):
            try:
                return await fetch(endpoints[at], place + 1 < len(order))
            except (RegistryError, ConfigError, VerificationError) as error:
                errors[at] = error
                self.failed(endpoints[at], what, error, last=place + 1 == len(order))
        raise errors[len(endpoints) - 1]

    def failed(self, endpoint: Endpoint, what: str, error: Exception, *, last: bool = False) -> None:
        """The endpoint did not give what it was asked for."""
        state = self._states.of(endpoint.host)
        if isinstance(error, UnavailableError):
            state.resting_until = trio.current_time() + RESTING_SECONDS
        if not last:
            # A mirror that has only some of the blobs is nothing unusual.
            level = logging.DEBUG if isinstance(error, NotFoundError) else logging.WARNING
            _log.log(level, "%s: %s: asking the next host: %s", endpoint.host, what, error)


class MirroredBlob:
    """One blob at several hosts. Any number of tasks may read at the same time."""

    def __init__(self, mirrors: Mirrors, endpoints: Sequence[Endpoint], blobs: Sequence[ReadableBlob]) -> None:
        """`blobs` are the same one at each of `endpoints`; the last is the registry's own."""
        self.size = blobs[0].size
        self._mirrors = mirrors
        self._endpoints = tuple(endpoints)
        self._blobs = tuple(blobs)
        self._lacking: set[int] = set()
        """Who said that they do not have it; they are asked last."""

    @property
    def link(self) -> LinkEstimate:
        """What requests to the host that is asked first cost."""
        return self._blobs[self._order()[0]].link

    async def fetch(self, offset: int, size: int) -> bytes:
        """See Blob."""
        return b"".join([piece async for piece in self.stream(offset, size)])

    async def stream(self, offset: int, size: int) -> AsyncGenerator[bytes, None]:
        """See Blob; where one host breaks off, the next goes on."""
        errors: dict[int, RegistryError | ConfigError] = {}
        order = self._order()
        for place, at in enumerate(order):
            try:
                async with aclosing(self._blobs[at].stream(offset, size)) as pieces:
                    async for piece in pieces:
                        offset, size = offset + len(piece), size - len(piece)
                        yield piece
            except (RegistryError, ConfigError) as error:
                errors[at] = error
                if isinstance(error, NotFoundError):
                    self._lacking.add(at)
                self._mirrors.failed(self._endpoints[at], "blob", error, last=place + 1 == len(order))
                continue
            self._lacking.discard(at)
            return
        raise errors[len(self._blobs) - 1]

    def _order(self) -> list[int]:
        return sorted(self._mirrors.order(self._endpoints), key=lambda at: at in self._lacking)
