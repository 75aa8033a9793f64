"""A forward proxy that leads every name to a server of the test's choice."""

import base64
from collections.abc import Mapping
from contextlib import suppress

import h11
import trio

from .answers import joined

_PIECE = 64 << 10


class FakeProxy:
    """``await nursery.start(FakeProxy({"registry.test": "127.0.0.1:5000"}).serve)``"""

    def __init__(self, hosts: Mapping[str, str], *, user: str = "") -> None:
        """`hosts`: name (with its port, unless 80 or 443) to address. `user`: ``name:password`` that it wants."""
        self.hosts = dict(hosts)
        self.user = user
        self.host = ""
        self.asked: list[str] = []
        """Names that clients were led to."""
        self.refused = 0

    async def serve(self, *, task_status: trio.TaskStatus["FakeProxy"] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.host = f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, self._serve_connection, listeners)
            task_status.started(self)

    async def _serve_connection(self, stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
            async with stream:
                connection = h11.Connection(h11.SERVER)
                while (event := connection.next_event()) is h11.NEED_DATA:
                    connection.receive_data(bytes(await stream.receive_some(_PIECE)))
                if not isinstance(event, h11.Request):
                    return
                headers = joined(event.headers)
                wanted = f"Basic {base64.b64encode(self.user.encode()).decode()}"
                if self.user and headers.get("proxy-authorization") != wanted:
                    self.refused += 1
                    await _answer(stream, connection, 407)
                    return
                method, target = event.method.decode(), event.target.decode()
                name = target if method == "CONNECT" else target.partition("://")[2].partition("/")[0]
                name = name.removesuffix(":443").removesuffix(":80")
                self.asked.append(name)
                if name not in self.hosts:
                    await _answer(stream, connection, 403)
                    return
                address, _, port = self.hosts[name].rpartition(":")
                async with await trio.open_tcp_stream(address, int(port)) as server:
                    if method == "CONNECT":
                        await stream.send_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    else:
                        path = "/" + target.partition("://")[2].partition("/")[2]
                        lines = [f"{method} {path} HTTP/1.1", *(f"{key}: {value}" for key, value in headers.items())]
                        await server.send_all("\r\n".join([*lines, "connection: close", "", ""]).encode())
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(_copy, stream, server)
                        await _copy(server, stream)
                        nursery.cancel_scope.cancel()


async def _copy(source: trio.SocketStream, sink: trio.SocketStream) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        while piece := await source.receive_some(_PIECE):
            await sink.send_all(piece)
        await sink.send_eof()


async def _answer(stream: trio.SocketStream, connection: h11.Connection, status: int) -> None:
    response = h11.Response(status_code=status, headers=[("content-length", "0"), ("connection", "close")])
    await stream.send_all((connection.send(response) or b"") + (connection.send(h11.EndOfMessage()) or b""))
