"""The daemon's end of the control socket: HTTP/1.1 by h11 on trio."""

import json
import logging
import socket
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl, urlsplit

import h11
import trio

from ..errors import RegistryStorageError
from .address import Access, Peer, listen, peer_of
from .routes import Answer, Json, Request, Routes, error_document, status_of

_log = logging.getLogger(__name__)

MAX_CONNECTIONS = 64
MAX_HEADER_BYTES = 16 << 10
MAX_BODY_BYTES = 1 << 20
REQUEST_SECONDS = 10.0
"""For the whole request to arrive; also how long a connection may be idle."""
SEND_SECONDS = 30.0
"""For one piece of the answer to be taken."""
_RECEIVE_BYTES = 64 << 10


class _RefusedError(Exception):
    """A request that no handler sees."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ControlServer:
    """Listens from construction until it is closed; `serve` answers. Raises ConfigError."""

    def __init__(self, path: Path, access: Access, routes: Routes) -> None:
        self.path = path
        self._access = access
        self._routes = routes
        self._listener = trio.socket.from_stdlib_socket(listen(path, access))
        self._inode = path.stat().st_ino
        self._closed = False

    async def serve(self) -> None:
        """Answer until cancelled or closed."""
        free = trio.Semaphore(MAX_CONNECTIONS)
        async with trio.open_nursery() as nursery:
            while not self._closed:
                await self._accept(nursery, free)
            nursery.cancel_scope.cancel()

    def check(self) -> None:
        """Listen again when somebody has removed the socket. Raises ConfigError."""
        with suppress(OSError):
            if self.path.stat().st_ino == self._inode:
                return
        _log.warning("control socket %s was removed by somebody else: it is made anew", self.path)
        self._listener.close()
        self._listener = trio.socket.from_stdlib_socket(listen(self.path, self._access))
        self._inode = self.path.stat().st_ino

    async def _accept(self, nursery: trio.Nursery, free: trio.Semaphore) -> None:
        """Until the listener is closed."""
        listener = self._listener
        while True:
            await free.acquire()
            try:
                connection, _ = await listener.accept()
            except trio.ClosedResourceError:
                free.release()
                return
            except OSError as error:  # too many open files, for one
                free.release()
                _log.warning("control socket: %s", error.strerror)
                await trio.sleep(1)
                continue
            except trio.Cancelled:
                free.release()
                raise
            nursery.start_soon(self._converse, connection, free)

    def close(self) -> None:
        """Nobody can connect any more; a socket that another daemon has put there stays."""
        self._closed = True
        self._listener.close()
        with suppress(OSError):
            if self.path.stat().st_ino == self._inode:
                self.path.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def _converse(self, connection: trio.socket.SocketType, free: trio.Semaphore) -> None:
        try:
            async with trio.SocketStream(connection) as stream:
                await self._answer_all(stream, peer_of(connection))
        except* (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError, OSError) as group:
            _log.debug("control socket: a client left: %s", group.exceptions[0])
        except* h11.LocalProtocolError as group:
            _log.debug("control socket: a client broke the protocol: %s", group.exceptions[0])
        finally:
            free.release()

    async def _answer_all(self, stream: trio.SocketStream, peer: Peer) -> None:
        exchange = _Exchange(stream)
        if not self._access.admits(peer):
            _log.warning("control socket: process %d of user %d is not admitted", peer.pid, peer.uid)
            return
        while exchange.open:
            try:
                with trio.fail_after(REQUEST_SECONDS):
                    request = await exchange.receive()
                    if request is None:
                        return
                    body = await exchange.receive_body()
            except _RefusedError as error:
                await exchange.send(error.status, {"error": str(error), "kind": "Refused"})
                return
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_without, stream, nursery.cancel_scope)
                await self._answer(exchange, request, body, peer)
                nursery.cancel_scope.cancel()
            exchange.next()

    async def _answer(self, exchange: "_Exchange", request: h11.Request, body: bytes, peer: Peer) -> None:
        try:
            answer = await self._handle(request, body, peer)
        except _RefusedError as error:
            await exchange.send(error.status, {"error": str(error), "kind": "Refused"})
        except (RegistryStorageError, OSError) as error:
            await exchange.send(status_of(error), error_document(error))
        except Exception as error:
            _log.exception("a control request failed")
            await exchange.send(500, {"error": f"a defect of the daemon: {error!r}", "kind": "Defect"})
        else:
            if isinstance(answer, AsyncGenerator):
                await exchange.send_lines(answer)
            else:
                await exchange.send(200, answer)

    async def _handle(self, request: h11.Request, body: bytes, peer: Peer) -> Answer:
        method, target = request.method.decode("ascii"), urlsplit(request.target.decode("ascii", "replace"))
        handler = self._routes.find(method, target.path)
        if isinstance(handler, int):
            raise _RefusedError(handler, f"nothing answers {method} {target.path}")
        try:
            document = json.loads(body) if body else None
        except (ValueError, RecursionError):
            raise _RefusedError(400, "the body is no JSON") from None
        return await handler(Request(dict(parse_qsl(target.query, keep_blank_values=True)), document, peer))


async def _cancel_without(stream: trio.SocketStream, scope: trio.CancelScope) -> None:
    """What is done for a client that has gone away is cancelled."""
    if not await stream.socket.recv(1, socket.MSG_PEEK):
        scope.cancel()


class _Exchange:
    """Requests and answers of one connection, one after the other."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEADER_BYTES)

    @property
    def open(self) -> bool:
        """Whether another request may come."""
        return self._http.our_state is h11.IDLE

    def next(self) -> None:
        """The answer has been sent: wait for another request, unless either side closes."""
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()

    async def receive(self) -> h11.Request | None:
        """The next request's head; None at the end."""
        event = await self._event()
        return event if isinstance(event, h11.Request) else None

    async def receive_body(self) -> bytes:
        """All of it, within the limit."""
        body = bytearray()
        while isinstance(event := await self._event(), h11.Data):
            body += event.data
            if len(body) > MAX_BODY_BYTES:
                raise _RefusedError(413, f"wanted a body of at most {MAX_BODY_BYTES} bytes")
        return bytes(body)

    async def send(self, status: int, document: Json) -> None:
        """One document as the whole answer."""
        body = json.dumps(document, default=str).encode() + b"\n"
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        await self._send(h11.Response(status_code=status, headers=headers))
        await self._send(h11.Data(data=body))
        await self._send(h11.EndOfMessage())

    async def send_lines(self, lines: AsyncGenerator[Json, None]) -> None:
        """Each document as a line, at once; what goes wrong is the last line."""
        await self._send(h11.Response(status_code=200, headers=[("Content-Type", "application/x-ndjson")]))
        async with aclosing(lines):
            while True:
                try:
                    document = await anext(lines)
                except StopAsyncIteration:
                    break
                except (RegistryStorageError, OSError) as error:
                    await self._send_line(error_document(error))
                    break
                await self._send_line(document)
        await self._send(h11.EndOfMessage())

    async def _send_line(self, document: Json) -> None:
        await self._send(h11.Data(data=json.dumps(document, default=str).encode() + b"\n"))

    async def _event(self) -> h11.Event | type[h11.PAUSED]:
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                raise _RefusedError(error.error_status_hint, f"not HTTP as it should be: {error}") from None
            if event is not h11.NEED_DATA:
                return event  # type: ignore[return-value]  # h11's sentinels
            if self._http.they_are_waiting_for_100_continue:
                await self._send(h11.InformationalResponse(status_code=100, headers=[]))
            self._http.receive_data(await self._stream.receive_some(_RECEIVE_BYTES))

    async def _send(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            with trio.fail_after(SEND_SECONDS):
                await self._stream.send_all(data)
