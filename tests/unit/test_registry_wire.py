"""Our own connections: kept while they are good, and every way in which a body may end."""

from collections.abc import Awaitable
from typing import Protocol

import httpx
import pytest
import trio

from registry_storage.registry.routes import Routes
from registry_storage.registry.wire import Wire, WireBody

OK = b"HTTP/1.1 200 OK\r\n"
ROUTES = Routes()


class Server:
    """Answers the requests of each connection in turn with what the test wants to be sent."""

    def __init__(self, *answers: list[bytes], closes: bool = True) -> None:
        self._answers = list(answers)
        self._closes = closes
        self.connections = 0
        self.heads: list[bytes] = []
        self.url = httpx.URL()

    async def serve(self, task_status: trio.TaskStatus["Server"]) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.url = httpx.URL(f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/blob?x=1")
        task_status.started(self)
        await trio.serve_listeners(self._talk, listeners)

    async def _talk(self, stream: trio.SocketStream) -> None:
        answers = self._answers[self.connections]
        self.connections += 1
        for answer in answers:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                more = await stream.receive_some()
                if not more:
                    return
                head += more
            self.heads.append(head)
            for part in answer.split(b"|"):
                await stream.send_all(part)
                await trio.sleep(0)
        if not self._closes:
            await trio.sleep_forever()
        await stream.aclose()


class Start(Protocol):
    def __call__(self, *answers: list[bytes], closes: bool = True) -> Awaitable[Server]: ...


@pytest.fixture
def start(nursery: trio.Nursery) -> Start:
    async def starting(*answers: list[bytes], closes: bool = True) -> Server:
        server: Server = await nursery.start(Server(*answers, closes=closes).serve)
        return server

    return starting


def wire(connections: int = 4, connect_seconds: float = 5.0) -> Wire:
    return Wire(connections=connections, idle_connections=4, idle_seconds=60, connect_seconds=connect_seconds)


async def get(client: Wire, url: httpx.URL) -> tuple[int, WireBody]:
    route = ROUTES.route(url, "", verified=False)
    with trio.fail_after(20) as scope:
        head, _, body = await client.get(url, {"Range": "bytes=0-9"}, route, scope, 10)
        return head.status_code, body
    raise AssertionError


async def read(body: WireBody) -> bytes:
    data = b""
    with trio.fail_after(20):
        while piece := await body.read():
            data += piece
        await body.aclose()
    return data


async def get_and_read(client: Wire, url: httpx.URL) -> bytes:
    _, body = await get(client, url)
    try:
        return await read(body)
    finally:
        await body.aclose()


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (OK + b"Content-Length: 10\r\n\r\n0123456789", True),
        (OK + b"Content-Length: 10\r\n\r\n|01234|56789", True),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n|" + OK + b"Content-Length: 10\r\n\r\n0123456789", True),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\n0123\r\n|6\r\n456789\r\n0\r\n\r\n", True),
        (OK + b"Connection: close\r\nContent-Length: 10\r\n\r\n0123456789", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 10\r\n\r\n0123456789", False),
        (OK + b"\r\n01234|56789", False),
    ],
)
async def test_a_body_ends_where_it_ends_and_the_connection_serves_again_when_it_can(
    start: Start, answer: bytes, kept: bool
) -> None:
    answers = [[answer, answer]] if kept else [[answer], [answer]]
    server = await start(*answers)
    client = wire()
    for _ in range(2):
        status, body = await get(client, server.url)
        assert (status, await read(body)) == (200, b"0123456789")
    assert server.connections == (1 if kept else 2)
    assert all(head.startswith(b"GET /blob?x=1 HTTP/1.1\r\n") for head in server.heads)
    assert all(b"Range: bytes=0-9\r\n" in head for head in server.heads)
    await client.aclose()


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Content-Length: 10\r\n\r\n01234",
        OK + b"Content-Length: 10\r\n\r\n",
        OK + b"Content-Length: 10\r\n\r\n0123456789more",
        OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\n0123\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nno number",
        OK + b"Content-Length: ten\r\n\r\n0123456789",
        b"not HTTP\r\n\r\n",
        b"",
    ],
)
async def test_what_is_no_whole_reply_is_an_error_and_the_connection_is_not_used_again(
    start: Start, answer: bytes
) -> None:
    whole = OK + b"Content-Length: 2\r\n\r\nok"
    server = await start([answer], [whole])
    client = wire(connections=1)
    with pytest.raises(httpx.RemoteProtocolError):
        await get_and_read(client, server.url)
    _, body = await get(client, server.url)
    assert await read(body) == b"ok"
    await client.aclose()


async def test_an_idle_connection_that_the_server_closed_is_not_used(start: Start) -> None:
    whole = OK + b"Content-Length: 2\r\n\r\nok"
    server = await start([whole], [whole])
    client = wire()
    for connections in (1, 2):
        _, body = await get(client, server.url)
        assert await read(body) == b"ok"
        assert server.connections == connections
        with trio.fail_after(20):
            while client._idle and client._idle[0].is_alive:
                await trio.sleep(0.001)
    await client.aclose()


async def test_connections_that_the_server_closed_are_forgotten_while_others_look_for_one(start: Start) -> None:
    reply = OK + b"Content-Length: 2\r\n\r\nok"
    server = await start(*[[reply]] * 8)
    client = wire()
    bodies = [(await get(client, server.url))[1] for _ in range(4)]
    for body in bodies:
        assert await read(body) == b"ok"
        await body.aclose()
    with trio.fail_after(20):
        while any(connection.is_alive for connection in client._idle):
            await trio.sleep(0.001)
    assert len(client._idle) == 4
    bodies.clear()

    async def one() -> None:
        bodies.append((await get(client, server.url))[1])

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(one)
    for body in bodies:
        assert await read(body) == b"ok"
        await body.aclose()
    assert server.connections == 8
    await client.aclose()


async def test_a_body_that_is_left_early_closes_its_connection_and_frees_its_place(
    start: Start,
) -> None:
    server = await start([OK + b"Content-Length: 10\r\n\r\n01234"], [OK + b"Content-Length: 2\r\n\r\nok"], closes=False)
    client = wire(connections=1)
    _, body = await get(client, server.url)
    assert await body.read() == b"01234"
    await body.aclose()
    await body.aclose()
    _, body = await get(client, server.url)
    assert await read(body) == b"ok"
    assert server.connections == 2
    await client.aclose()


async def test_no_connection_is_an_error_that_says_why() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    await listeners[0].aclose()
    client = wire(connections=1)
    for _ in range(2):
        with pytest.raises(httpx.ConnectError, match="refused"):
            await get(client, httpx.URL(f"http://127.0.0.1:{port}/"))


async def test_a_request_that_is_cancelled_frees_its_place(start: Start) -> None:
    server = await start([b""], [OK + b"Content-Length: 2\r\n\r\nok"], closes=False)
    client = wire(connections=1)
    with trio.move_on_after(0.1):
        await get(client, server.url)
    _, body = await get(client, server.url)
    assert await read(body) == b"ok"
    await client.aclose()
