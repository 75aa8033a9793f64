"""One blob of one repository, read by ranges as its bytes arrive."""

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

import httpx
import trio

from ..descriptor import Descriptor
from ..errors import BadResponseError, RangeNotServedError, RegistryError
from .hosts import Endpoint, LinkEstimate
from .outcomes import translate
from .ranges import parse_content_range, range_header
from .retry import Budget, RetryableError
from .transport import Reply

if TYPE_CHECKING:
    from .client import RegistryClient

_MEASURED_BYTES = 128 << 10
"""Shorter bodies say more about the round trip than about the bandwidth."""
_EXPIRED = frozenset({400, 401, 403, 404, 410})
"""With these a place that we were redirected to refuses a signature that it took before."""
_REFUSED_RANGE = frozenset({400, 416, 501})
"""What hosts were seen to answer to a valid range that they do not want to serve."""


class Blob:
    """Remembers where the registry redirected it to, until that place refuses; nothing else.

    Any number of tasks may read at the same time.
    """

    def __init__(
        self, client: "RegistryClient", endpoint: Endpoint, descriptor: Descriptor, *, hasty: bool = False
    ) -> None:
        """`hasty`: give up early, because another host has the same blob."""
        self.size = descriptor.size
        """Bytes, as the descriptor says; every reply must agree."""
        self._client = client
        self._endpoint = endpoint
        self._path = f"blobs/{descriptor.digest}"
        self._what = f"{endpoint.host}/{endpoint.repository}: blob {descriptor.digest}"
        self._location: httpx.URL | None = None
        self._hasty = hasty

    @property
    def link(self) -> LinkEstimate:
        """What requests to the host that serves this blob cost."""
        return self._client.link(self._location, self._endpoint)

    async def fetch(self, offset: int, size: int) -> bytes:
        """`size` bytes at `offset`. Raises as `stream`."""
        return b"".join([piece async for piece in self.stream(offset, size)])

    async def stream(self, offset: int, size: int) -> AsyncGenerator[bytes, None]:
        """Exactly `size` bytes at `offset`, in order, piece by piece.

        A broken connection is taken up where it broke off. Close the generator (``contextlib.aclosing``)
        when leaving early. Raises ValueError outside the blob, RegistryError (a range of a host that is
        known to serve none fails at once with RangeNotServedError).
        """
        if offset < 0 or size < 0 or offset + size > self.size:
            raise ValueError(f"{self._what}: wanted bytes in 0 to {self.size}, got {size} at {offset}")
        end = offset + size
        budget = self._client.budget(size, hasty=self._hasty)
        while offset < end:
            reply: Reply | None = None
            try:
                reply = await self._open(offset, end - offset, budget)
                first, reading, holding = offset, 0.0, 0.0
                while offset < end:
                    started = trio.current_time()
                    piece = (await reply.read(budget.deadline))[: end - offset]
                    if not piece:
                        raise httpx.ReadError(f"the body ended {end - offset} bytes early")
                    offset += len(piece)
                    budget.progressed(len(piece))
                    taken = trio.current_time()
                    reading += taken - started
                    if offset == end:
                        # Before the last piece is handed out: its taker need not come back.
                        if end - first >= _MEASURED_BYTES and holding <= reading:
                            self._client.measured_body(reply, end - first, reading)
                        if reply.status == httpx.codes.PARTIAL_CONTENT or end == self.size:
                            await reply.finish()
                        else:
                            await reply.close()
                    yield piece
                    held = trio.current_time() - taken
                    holding += held
                    budget.held(held)
            except httpx.HTTPError as error:
                self._location = None
                host = self._endpoint.host if reply is None else reply.host
                await budget.pause(translate(error, self._what, host))
            except RetryableError as failure:
                self._location = None
                await budget.pause(failure)
            except RegistryError:
                self._location = None
                raise
            finally:
                if reply is not None:
                    await reply.close()

    async def _open(self, offset: int, size: int, budget: Budget) -> Reply:
        """A reply whose body begins with the `size` bytes at `offset`."""
        ranged = size < self.size
        headers = {"Range": range_header(offset, size)} if ranged else {}
        location = self._location
        reply = await self._client.open(
            self._endpoint, self._path, headers, budget, location=location, must_serve_ranges=offset > 0
        )
        if location is not None and reply.status in _EXPIRED:
            await reply.finish()
            self._location = None
            reply = await self._client.open(
                self._endpoint, self._path, headers, budget, must_serve_ranges=offset > 0
            )
        what = f"{self._what}: bytes {offset} to {offset + size} from {reply.host}"
        try:
            if not ranged and reply.status == httpx.codes.OK:
                _check_length(reply, self.size, what)
            elif ranged and reply.status == httpx.codes.PARTIAL_CONTENT:
                self._check_range(reply, offset, size, what)
                self._client.remember_ranges(reply, served=True)
            elif ranged and reply.status == httpx.codes.OK:
                self._client.remember_ranges(reply, served=False, hasty=self._hasty)
                if offset:
                    raise RangeNotServedError(f"{what}: wanted a range (206), got the whole blob (200)")  # noqa: TRY301
                _check_length(reply, self.size, what)
            elif ranged and reply.status in _REFUSED_RANGE:
                # Only 501 speaks of the host; 400 and 416 may come of a wrong size in one descriptor.
                if reply.status == httpx.codes.NOT_IMPLEMENTED:
                    self._client.remember_ranges(reply, served=False, hasty=self._hasty)
                raise RangeNotServedError(f"{what}: wanted a range (206), got HTTP {reply.status}")  # noqa: TRY301
            else:
                await self._client.refuse(reply, what)
        except BaseException:
            await reply.close()
            raise
        self._location = reply.url if reply.redirected else None
        return reply

    def _check_range(self, reply: Reply, offset: int, size: int, what: str) -> None:
        _check_length(reply, size, what)
        text = reply.headers.get("content-range", "")
        got = parse_content_range(text)
        if got not in ((offset, size, self.size), (offset, size, None)):
            wanted = f"bytes {offset}-{offset + size - 1}/{self.size}"
            raise BadResponseError(f"{what}: Content-Range: wanted {wanted}, got {text[:100]!r}")


def _check_length(reply: Reply, wanted: int, what: str) -> None:
    encoding = reply.headers.get("content-encoding", "identity")
    if encoding.strip().lower() != "identity":
        raise BadResponseError(f"{what}: Content-Encoding: wanted identity, got {encoding[:100]!r}")
    length = reply.headers.get("content-length")
    if length is not None and length.strip() != str(wanted):
        raise BadResponseError(f"{what}: Content-Length: wanted {wanted}, got {length[:100]}")
