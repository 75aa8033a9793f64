"""GET requests on connections of our own: what blobs are fetched with.

Large pieces come from the socket with nothing but h11 in between, which costs a fraction of httpx's time
(docs/benchmarks.md). What h11 does not do is not done here: no proxy, no redirect, no HTTP/2. Errors are httpx's, so
that nobody needs to know which of both carried a request.
"""

import select
from collections.abc import Mapping
from typing import Protocol, TypeAlias

import h11
import httpx
import trio

from .redirects import port_of
from .routes import Route

_READ_BYTES = 120 << 10
"""Less than what the C library maps anew for each piece."""
_MAX_HEAD_BYTES = 64 << 10

_Stream: TypeAlias = trio.SocketStream | trio.SSLStream[trio.SocketStream]
_Place: TypeAlias = tuple[str, bytes, int, Route]


class WireBody(Protocol):
    """The body of a reply, and the connection that it comes over."""

    async def read(self) -> bytes:
        """The next piece, undecoded; empty at its end. Raises httpx.HTTPError."""

    async def aclose(self) -> None:
        """Give the connection back, or close it when the body was not read to its end; may be called repeatedly."""


class _Connection:
    """To one host; carries one exchange after the other."""

    def __init__(self, stream: _Stream, place: _Place) -> None:
        self.place = place
        self.idle_since = 0.0
        self._stream = stream
        self._protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD_BYTES)
        self._left: int | None = None
        """Bytes of a body of known length that are still to come; None: h11 finds its end."""
        self._serves_on = False

    async def send(self, url: httpx.URL, headers: Mapping[str, str]) -> None:
        lines = [(b"Host", url.netloc), *((name.encode(), value.encode()) for name, value in headers.items())]
        request = h11.Request(method="GET", target=url.raw_path, headers=lines)
        data = self._protocol.send(request) or b""
        data += self._protocol.send(h11.EndOfMessage()) or b""
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            raise httpx.WriteError(str(error)) from error

    async def receive_head(self) -> h11.Response:
        while True:
            event = await self._next_event()
            if isinstance(event, h11.Response):
                headers = {bytes(name): bytes(value) for name, value in event.headers}
                if b"transfer-encoding" not in headers and event.status_code not in (204, 304):
                    length = headers.get(b"content-length")
                    self._left = None if length is None else int(length)
                closes = b"close" in headers.get(b"connection", b"").lower()
                self._serves_on = event.http_version == b"1.1" and not closes
                return event
            if not isinstance(event, h11.InformationalResponse):
                raise httpx.RemoteProtocolError(f"wanted a response, got {type(event).__name__}")

    async def receive(self) -> bytes:
        """The next piece of the body; empty at its end."""
        if self._left is not None:
            return await self._receive_counted(self._left)
        while True:
            event = await self._next_event()
            if isinstance(event, h11.Data):
                if event.data:
                    return bytes(event.data)
            else:
                return b""

    async def _receive_counted(self, left: int) -> bytes:
        """Past h11, which would copy every byte twice."""
        if not left:
            return b""
        data, _ = self._protocol.trailing_data
        if data:  # came with the head
            self._protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD_BYTES)
        else:
            data = await self._receive_some(min(_READ_BYTES, left))
        if not data or len(data) > left:
            self._serves_on = False
            raise httpx.RemoteProtocolError(f"peer closed connection, or sent other bytes, {left} bytes early")
        self._left = left - len(data)
        return data

    async def _next_event(self) -> object:
        while True:
            try:
                event = self._protocol.next_event()
            except h11.RemoteProtocolError as error:
                raise httpx.RemoteProtocolError(str(error)) from error
            if event is not h11.NEED_DATA:
                return event
            data = await self._receive_some(_READ_BYTES)
            if not data and self._protocol.their_state is h11.SEND_RESPONSE:
                raise httpx.RemoteProtocolError("Server disconnected without sending a response.")
            self._protocol.receive_data(data)

    async def _receive_some(self, size: int) -> bytes:
        try:
            return bytes(await self._stream.receive_some(size))
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            raise httpx.ReadError(str(error)) from error

    @property
    def is_alive(self) -> bool:
        """An idle connection about which the other side has said nothing: it would only say that it is closed."""
        transport = self._stream.transport_stream if isinstance(self._stream, trio.SSLStream) else self._stream
        poll = select.poll()
        poll.register(transport.socket.fileno(), select.POLLIN)
        return not poll.poll(0)

    def renew(self) -> bool:
        """Whether the exchange is over and another may follow."""
        if self._left is None:
            over = self._protocol.our_state is h11.DONE and self._protocol.their_state is h11.DONE
        else:
            over = self._left == 0 and self._protocol.trailing_data[0] == b""
        if over and self._serves_on:
            self._protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD_BYTES)
            self._left = None
            return True
        return False

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self._stream)


class _Body:
    def __init__(self, wire: "Wire", connection: _Connection) -> None:
        self._wire = wire
        self._connection: _Connection | None = connection

    async def read(self) -> bytes:
        if self._connection is None:
            return b""
        return await self._connection.receive()

    async def aclose(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await self._wire.give_back(connection)


class Wire:
    """The connections: a bounded number, idle ones kept for a while."""

    def __init__(self, *, connections: int, idle_connections: int, idle_seconds: float, connect_seconds: float) -> None:
        self._limit = trio.Semaphore(connections)
        self._idle: list[_Connection] = []
        self._idle_connections = idle_connections
        self._idle_seconds = idle_seconds
        self._connect_seconds = connect_seconds

    async def aclose(self) -> None:
        """Close every idle connection."""
        while self._idle:
            await self._idle.pop().aclose()

    async def get(
        self,
        url: httpx.URL,
        headers: Mapping[str, str],
        route: Route,
        scope: trio.CancelScope,
        first_byte_seconds: float,
    ) -> tuple[h11.Response, float, WireBody]:
        """(the head of the reply, the seconds until it came, its body, to be closed).

        The request waits for a connection, and then for the first byte, within `scope`, whose deadline is moved.
        """
        connection = await self._take(url, route)
        try:
            await connection.send(url, headers)
            sent = trio.current_time()
            scope.deadline = min(scope.deadline, sent + first_byte_seconds)
            head = await connection.receive_head()
        except BaseException:
            with trio.CancelScope(shield=True):
                await self._drop(connection)
            raise
        return head, trio.current_time() - sent, _Body(self, connection)

    async def _take(self, url: httpx.URL, route: Route) -> _Connection:
        await self._limit.acquire()
        try:
            place = (url.scheme, url.raw_host, port_of(url), route)
            found, useless = self._find(place)
            with trio.CancelScope(shield=True):
                for connection in useless:
                    await connection.aclose()
            return found or await self._connect(url, place)
        except BaseException:
            self._limit.release()
            raise

    def _find(self, place: _Place) -> tuple[_Connection | None, list[_Connection]]:
        """The idle connection that was used last, and those that are to be closed: too old, or ended over there."""
        useless, oldest = [], trio.current_time() - self._idle_seconds
        while self._idle and self._idle[0].idle_since < oldest:
            useless.append(self._idle.pop(0))
        for at in range(len(self._idle) - 1, -1, -1):
            if self._idle[at].place == place:
                connection = self._idle.pop(at)
                if connection.is_alive:
                    return connection, useless
                useless.append(connection)
        return None, useless

    async def _connect(self, url: httpx.URL, place: _Place) -> _Connection:
        host = url.raw_host.decode("ascii").strip("[]")
        stream: _Stream | None = None
        try:
            with trio.fail_after(self._connect_seconds):
                stream = await trio.open_tcp_stream(host, port_of(url))
            if url.scheme == "https":
                with trio.fail_after(self._connect_seconds):
                    stream = trio.SSLStream(stream, place[3].context, server_hostname=host, https_compatible=True)
                    await stream.do_handshake()
        except trio.TooSlowError as error:
            await _close(stream)
            raise httpx.ConnectTimeout("") from error
        except (OSError, trio.BrokenResourceError) as error:
            await _close(stream)
            raise httpx.ConnectError(_words(error)) from error
        except BaseException:
            await _close(stream)
            raise
        return _Connection(stream, place)

    async def give_back(self, connection: _Connection) -> None:
        """The exchange is over, or given up."""
        if not connection.renew() or len(self._idle) >= self._idle_connections:
            with trio.CancelScope(shield=True):
                await self._drop(connection)
            return
        self._limit.release()
        connection.idle_since = trio.current_time()
        self._idle.append(connection)

    async def _drop(self, connection: _Connection) -> None:
        self._limit.release()
        await connection.aclose()


async def _close(stream: _Stream | None) -> None:
    if stream is not None:
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(stream)


def _words(error: BaseException) -> str:
    """trio says only that every address failed; the first of them says why."""
    beneath: BaseException | None = error
    while beneath is not None:
        if isinstance(beneath, BaseExceptionGroup):
            beneath = beneath.exceptions[0]
        elif isinstance(beneath, OSError) and beneath.strerror:
            return str(beneath)
        else:
            beneath = beneath.__cause__
    return str(error)
