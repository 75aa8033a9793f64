"""One HTTP request on a pooled connection: no redirect, cookie, .netrc or retry happens here."""

import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Protocol

import httpx
import trio

from .. import metrics
from .causes import cause
from .hosts import HostState
from .redirects import host_of
from .retry import Timeouts
from .routes import Route, Routes
from .wire import Wire, WireBody

for _name in ("httpx", "httpcore"):
    # They log whole URLs and headers, which hold signatures and tokens.
    logging.getLogger(_name).setLevel(logging.WARNING)

_DRAIN_BYTES = 64 << 10
_DRAIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Connections that are kept."""

    connections: int = 32
    """At most, to all hosts together; further requests wait."""
    idle_connections: int = 16
    idle_seconds: float = 30.0


class Body(Protocol):
    """What a request sends; may be read several times."""

    @property
    def size(self) -> int:
        """Bytes."""

    async def read(self, start: int) -> bytes:
        """Some bytes from `start` on, at least one. All before `start` have been taken."""

    def deadline(self) -> float:
        """On trio's clock, until when the rest must be on its way, after what has been taken."""


class _Sending(httpx.AsyncByteStream):
    """A body on its way; no generator, because nobody would close it where the connection breaks."""

    def __init__(self, body: Body, scope: trio.CancelScope) -> None:
        self._body = body
        self._scope = scope
        self._sent = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._sent >= self._body.size:
            raise StopAsyncIteration
        piece = await self._body.read(self._sent)
        self._sent += len(piece)
        self._scope.deadline = self._body.deadline()
        return piece


class _HttpxBody:
    """A body that httpx brings."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._pieces: AsyncIterator[bytes] | None = None

    async def read(self) -> bytes:
        if self._pieces is None:
            self._pieces = self._response.aiter_raw()
        while (piece := await anext(self._pieces, None)) == b"":
            pass
        return piece or b""

    async def aclose(self) -> None:
        await self._response.aclose()
        if self._pieces is not None:
            # httpx nests generators and closes only the outermost; reading on from the closed
            # connection unwinds them all, where otherwise the garbage collector would have to.
            with contextlib.suppress(httpx.HTTPError, httpx.StreamError):
                while await anext(self._pieces, None) is not None:
                    pass


class Reply:
    """The headers of a reply, and its body as it arrives; must be closed, and may be repeatedly."""

    def __init__(
        self,
        status: int,
        headers: httpx.Headers,
        body: WireBody,
        url: httpx.URL,
        first_byte_seconds: float,
        stall_seconds: float,
    ) -> None:
        self.status = status
        self.headers = headers
        self.url = url
        self.redirected = False
        """Whether `url` is another than was asked for first."""
        self.first_byte_seconds = first_byte_seconds
        """From the sent request to the headers; without waiting for a connection."""
        self.advice = ""
        """After a refusal: what may help."""
        self.drained = b""
        """What `finish` found, at least the first 64 KiB of it."""
        self._body = body
        self._stall_seconds = stall_seconds
        self._state: HostState | None = None

    @property
    def host(self) -> str:
        """Name and port, for messages and for what is remembered of a host."""
        return host_of(self.url)

    async def read(self, deadline: float) -> bytes:
        """The next piece of the body, undecoded; empty at its end.

        Raises httpx.HTTPError when the connection breaks, nothing comes for too long, or `deadline` (on
        trio's clock) passes.
        """
        piece = b""
        with trio.CancelScope(deadline=min(deadline, trio.current_time() + self._stall_seconds)) as scope:
            piece = await self._body.read()
        if scope.cancelled_caught:
            raise httpx.ReadTimeout("the body stalled")
        metrics.count_bytes(self.host, len(piece))
        return piece

    async def finish(self) -> None:
        """Take the little that may be left of the body, so that the connection serves again, and close."""
        drained = bytearray()
        try:
            with trio.move_on_after(_DRAIN_SECONDS), contextlib.suppress(httpx.HTTPError, httpx.StreamError):
                while len(drained) <= _DRAIN_BYTES and (piece := await self.read(float("inf"))):
                    drained += piece
        finally:
            self.drained = self.drained or bytes(drained)
            await self.close()

    def count_in(self, state: HostState) -> None:
        """Until it is closed, this is one of the host's replies."""
        state.replies += 1
        self._state = state

    async def close(self) -> None:
        """Close; a connection in the middle of a body is cut off."""
        if self._state is not None:
            self._state.replies -= 1
            self._state = None
        with trio.CancelScope(shield=True):
            await self._body.aclose()


class Transport:
    """Sends requests; holds the connections."""

    def __init__(self, timeouts: Timeouts, pool: PoolLimits, routes: Routes | None = None) -> None:
        self._timeouts = timeouts
        self._routes = routes or Routes()
        self._limits = httpx.Limits(
            max_connections=pool.connections,
            max_keepalive_connections=pool.idle_connections,
            keepalive_expiry=pool.idle_seconds,
        )
        self._clients: dict[Route, httpx.AsyncClient] = {}
        self._wire = Wire(
            connections=pool.connections,
            idle_connections=pool.idle_connections,
            idle_seconds=pool.idle_seconds,
            connect_seconds=timeouts.connect_seconds,
        )

    async def aclose(self) -> None:
        """Close every connection."""
        await self._wire.aclose()
        while self._clients:
            _, client = self._clients.popitem()
            await client.aclose()

    async def send(
        self,
        url: httpx.URL,
        headers: Mapping[str, str],
        *,
        verified: bool,
        deadline: float,
        registry: str = "",
        form: Mapping[str, str] | None = None,
        method: str | None = None,
        body: Body | None = None,
    ) -> Reply:
        """Send a request and wait for the reply's headers: GET, POST where there is a `form`, or `method`.

        `verified`: whether a certificate must be valid. `registry`: in whose conversation (for its certificates).
        `deadline` is on trio's clock; a `body` moves it while it is taken. Raises httpx.HTTPError with words that
        say what to do, ConfigError, and what reading the body raises.
        """
        route = self._routes.route(url, registry, verified=verified)
        scope = trio.CancelScope(deadline=deadline)
        headers = {"Accept-Encoding": "identity", "User-Agent": "registry-storage", **headers}
        if form is None and method in (None, "GET") and route.proxy is None:
            return await self._get(url, headers, route, scope, registry)
        client = self._client(route)
        if body is not None:
            headers["Content-Length"] = str(body.size)
        request = client.build_request(
            method or ("GET" if form is None else "POST"),
            url,
            headers=headers,
            data=form,
            timeout=httpx.Timeout(None, connect=self._timeouts.connect_seconds),
        )
        if body is not None:
            request.stream = _Sending(body, scope)
        sent = received = trio.current_time()
        with scope:

            async def trace(event: str, _: Mapping[str, Any]) -> None:
                # The time to the first byte must count neither the connecting nor the wait for a connection.
                nonlocal sent, received
                if event == "http11.send_request_body.complete":
                    sent = trio.current_time()
                    latest = deadline if body is None else body.deadline()
                    scope.deadline = min(latest, sent + self._timeouts.first_byte_seconds)
                elif event == "http11.receive_response_headers.complete":
                    received = trio.current_time()

            request.extensions["trace"] = trace
            try:
                response = await client.send(request, stream=True, auth=None, follow_redirects=False)
            except httpx.HTTPError as error:
                raise _no_reply(type(error), cause(error, url, registry, route), url) from error
        if scope.cancelled_caught:
            raise _no_reply(httpx.ReadTimeout, "no answer in time", url)
        metrics.count_reply(host_of(url), response.status_code, received - sent)
        first_byte, stall = received - sent, self._timeouts.stall_seconds
        return Reply(response.status_code, response.headers, _HttpxBody(response), url, first_byte, stall)

    async def _get(
        self, url: httpx.URL, headers: Mapping[str, str], route: Route, scope: trio.CancelScope, registry: str
    ) -> Reply:
        with scope:
            try:
                head, seconds, body = await self._wire.get(
                    url, headers, route, scope, self._timeouts.first_byte_seconds
                )
            except httpx.HTTPError as error:
                raise _no_reply(type(error), cause(error, url, registry, route), url) from error
        if scope.cancelled_caught:
            raise _no_reply(httpx.ReadTimeout, "no answer in time", url)
        metrics.count_reply(host_of(url), head.status_code, seconds)
        received = httpx.Headers([(bytes(name), bytes(value)) for name, value in head.headers])
        return Reply(head.status_code, received, body, url, seconds, self._timeouts.stall_seconds)

    def _client(self, route: Route) -> httpx.AsyncClient:
        client = self._clients.get(route)
        if client is None:
            proxy = route.proxy
            client = self._clients[route] = httpx.AsyncClient(
                verify=route.context,
                proxy=None if proxy is None else httpx.Proxy(proxy.url, auth=proxy.authorization),
                limits=self._limits,
                trust_env=False,
                follow_redirects=False,
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            )
        return client


def _no_reply(kind: type[httpx.HTTPError], words: str, url: httpx.URL) -> httpx.HTTPError:
    """The error that says so; it knows who was asked."""
    metrics.count_no_reply(host_of(url))
    error = kind(words)
    error.request = httpx.Request("GET", url)
    return error
