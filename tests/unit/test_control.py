"""The control socket: who gets in, what is bounded, how answers and errors travel."""

import os
import socket
import stat
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, closing
from pathlib import Path

import pytest
import trio

from registry_storage.config import Settings
from registry_storage.control import server
from registry_storage.control.address import Access, Peer, listen, socket_path
from registry_storage.control.client import ControlClient, connect
from registry_storage.control.routes import Handler, Json, Request, Routes
from registry_storage.control.server import ControlServer
from registry_storage.control.waiting_client import WaitingClient, connected
from registry_storage.errors import ConfigError, DaemonError, NotFoundError


class Nobody(Access):
    """Admits nobody, as if the kernel had let a stranger connect."""

    def admits(self, peer: Peer) -> bool:
        return False


async def echo(request: Request) -> Json:
    return {"query": dict(request.query), "body": request.body, "uid": request.peer.uid}


async def missing(request: Request) -> Json:
    raise NotFoundError("no such thing")


async def defective(request: Request) -> Json:
    raise LookupError("nobody thought of that")


async def count(request: Request) -> AsyncGenerator[Json, None]:
    async def numbers() -> AsyncGenerator[Json, None]:
        for number in range(int(request.body)):
            yield {"number": number}
        if request.body == 2:
            raise NotFoundError("no third one")

    return numbers()


ROUTES = {"GET /echo": echo, "POST /echo": echo, "GET /missing": missing, "GET /bug": defective, "POST /count": count}


@asynccontextmanager
async def serving(path: Path, access: Access | None = None, forever: Handler = echo) -> AsyncIterator[ControlClient]:
    routes = Routes()
    for route, handler in {**ROUTES, "GET /forever": forever}.items():
        method, _, place = route.partition(" ")
        routes.add(method, place, handler)
    with ControlServer(path, access or Access(), routes) as control:
        async with trio.open_nursery() as nursery, connect(path) as client:
            nursery.start_soon(control.serve)
            yield client
            nursery.cancel_scope.cancel()


async def raw(path: Path, data: bytes) -> bytes:
    """Everything that comes back for `data` until the daemon closes."""
    stream = await trio.open_unix_socket(str(path))
    async with stream:
        await stream.send_all(data)
        return b"".join([part async for part in stream])


async def test_a_question_and_its_answer(tmp_path: Path) -> None:
    async with serving(tmp_path / "s") as daemon:
        assert await daemon.get("/echo", {"a": "1 2", "b": ""}) == {
            "query": {"a": "1 2", "b": ""}, "body": None, "uid": os.geteuid(),
        }  # fmt: skip
        assert (await daemon.post("/echo", {"deep": [1, None, "é"]}))["body"] == {"deep": [1, None, "é"]}


async def test_lines_come_as_they_are_made_and_end_with_the_error(tmp_path: Path) -> None:
    async with serving(tmp_path / "s") as daemon:
        assert [line async for line in daemon.lines("POST", "/count", 3)] == [{"number": n} for n in range(3)]
        lines = daemon.lines("POST", "/count", 2)
        assert [await anext(lines), await anext(lines)] == [{"number": 0}, {"number": 1}]
        with pytest.raises(DaemonError, match="no third one"):
            await anext(lines)


@pytest.mark.parametrize(
    ("route", "kind", "words"),
    [
        ("/missing", "NotFoundError", "no such thing"),
        ("/bug", "Defect", "a defect of the daemon"),
        ("/nothing", "Refused", "nothing answers GET /nothing"),
        ("/count", "Refused", "nothing answers GET /count"),
    ],
)
async def test_errors_arrive_with_their_words_and_their_class(
    tmp_path: Path, route: str, kind: str, words: str
) -> None:
    async with serving(tmp_path / "s") as daemon:
        with pytest.raises(DaemonError, match=words) as caught:
            await daemon.get(route)
        assert caught.value.kind == kind
        assert (await daemon.get("/echo"))["body"] is None


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"


async def test_who_only_waits_gets_the_same(tmp_path: Path) -> None:
    def ask(daemon: WaitingClient) -> None:
        assert daemon.get("/echo", {"a": "b c&d"})["query"] == {"a": "b c&d"}
        assert daemon.post("/echo", {"x": [1]})["body"] == {"x": [1]}
        assert list(daemon.lines("POST", "/count", 3)) == [{"number": n} for n in range(3)]
        lines = daemon.lines("POST", "/count", 2)
        assert [next(lines), next(lines)] == [{"number": 0}, {"number": 1}]
        with pytest.raises(DaemonError, match="no third one") as caught:
            next(lines)
        assert caught.value.kind == "NotFoundError"
        with pytest.raises(DaemonError, match="no such thing"):
            daemon.get("/missing")
        with closing(daemon.lines("POST", "/count", 1 << 30)) as left_early:
            assert next(left_early) == {"number": 0}

    path = tmp_path / ("x" * 120) / "s"
    async with serving(path):
        with connected(path) as daemon:
            await trio.to_thread.run_sync(ask, daemon)
    async with serving(tmp_path / "s", Nobody()):
        with connected(tmp_path / "s") as daemon, pytest.raises(DaemonError, match="did not answer"):
            await trio.to_thread.run_sync(daemon.get, "/echo")
    for missing_path in (tmp_path / "missing", tmp_path / ("y" * 120) / "s"):
        with pytest.raises(DaemonError, match="no daemon listens there"), connected(missing_path) as daemon:
            daemon.get("/echo")


@pytest.mark.parametrize(
    "answer",
    [b"", HEAD % 9 + b"{", b"SSH-2.0\r\n", HEAD % 1 + b"{"],
    ids=["nothing", "half", "another protocol", "no JSON"],
)
async def test_what_is_no_answer_is_said_so(tmp_path: Path, answer: bytes) -> None:
    async def answer_and_go(stream: trio.SocketStream) -> None:
        await stream.receive_some(1000)
        await stream.send_all(answer)
        await stream.aclose()

    listener = trio.SocketListener(trio.socket.from_stdlib_socket(listen(tmp_path / "s", Access())))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, answer_and_go, [listener])
        async with connect(tmp_path / "s") as asking:
            with pytest.raises(DaemonError, match=r"did not answer|not understood"):
                await asking.get("/echo")
        with connected(tmp_path / "s") as waiting, pytest.raises(DaemonError, match=r"did not answer|not under"):
            await trio.to_thread.run_sync(waiting.get, "/echo")
        nursery.cancel_scope.cancel()


async def test_lines_may_be_left_early(tmp_path: Path) -> None:
    async with serving(tmp_path / "s") as daemon:
        async with aclosing(daemon.lines("POST", "/count", 1 << 30)) as lines:
            async for line in lines:
                if line["number"] == 10:
                    break
        assert (await daemon.get("/echo"))["body"] is None


async def test_a_client_that_leaves_cancels_its_handler(tmp_path: Path) -> None:
    started, cancelled = trio.Event(), trio.Event()

    async def forever(request: Request) -> Json:
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    async with serving(tmp_path / "s", forever=forever) as daemon:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(daemon.get, "/forever")
            await started.wait()
            nursery.cancel_scope.cancel()
        with trio.fail_after(20):
            await cancelled.wait()


async def test_one_who_is_not_admitted_gets_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path / "s", Nobody()) as daemon:
        with pytest.raises(DaemonError, match="did not answer"):
            await daemon.get("/echo")


def test_root_the_daemon_and_its_group_are_admitted() -> None:
    me, group = os.geteuid(), 4711
    assert Access().admits(Peer(1, 0, frozenset()))
    assert Access().admits(Peer(1, me, frozenset()))
    assert not Access().admits(Peer(1, me + 1, frozenset({group})))
    assert Access(group).admits(Peer(1, me + 1, frozenset({5, group})))
    assert not Access(group).admits(Peer(1, me + 1, frozenset({5})))
    assert (Access().mode, Access(group).mode) == (0o600, 0o660)


def test_a_group_must_exist_and_be_able_to_reach_the_socket(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs a control_socket"):
        Access.of(Settings(control_group="root"))
    with pytest.raises(ConfigError, match="no group is called"):
        Access.of(Settings(control_group="no-such-group", control_socket=tmp_path / "s"))
    assert Access.of(Settings(control_group="root", control_socket=tmp_path / "s")).gid == 0


def test_the_socket_is_private_and_replaces_a_stale_one(tmp_path: Path) -> None:
    path = tmp_path / "run" / "s"
    listen(path, Access()).close()  # nobody listens any more, the file stays
    with listen(path, Access()):
        found = path.stat()
        assert stat.S_ISSOCK(found.st_mode)
        assert stat.S_IMODE(found.st_mode) == 0o600
        with pytest.raises(ConfigError, match="another daemon listens there"):
            listen(path, Access())


def test_a_file_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("precious")
    with pytest.raises(ConfigError, match="something else is there"):
        listen(tmp_path / "s", Access())
    assert (tmp_path / "s").read_text() == "precious"


async def test_a_path_may_be_longer_than_an_address(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 120) / "s"
    async with serving(path) as daemon:
        assert (await daemon.get("/echo"))["body"] is None
    assert not path.exists()


async def test_nobody_there_is_said_so(tmp_path: Path) -> None:
    async with connect(tmp_path / "s") as daemon:
        with pytest.raises(DaemonError, match="no daemon listens there"):
            await daemon.get("/v1/status")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x00\xff garbage\r\n\r\n", b"400"),
        (b"GET /" + b"x" * (server.MAX_HEADER_BYTES + 1), b"431"),
        (b"POST /echo HTTP/1.1\r\nHost: d\r\nContent-Length: 2000000\r\n\r\n" + b" " * 1_500_000, b"413"),
        (b"POST /echo HTTP/1.1\r\nHost: d\r\nContent-Length: 3\r\nConnection: close\r\n\r\n{[}", b"400"),
    ],
    ids=["garbage", "long head", "long body", "no JSON"],
)
async def test_what_is_too_large_or_no_request_is_refused(tmp_path: Path, data: bytes, status: bytes) -> None:
    async with serving(tmp_path / "s") as daemon:
        try:
            reply = await raw(tmp_path / "s", data)
        except trio.BrokenResourceError:  # refused before all of it was taken
            reply = b"HTTP/1.1 " + status
        assert reply.split()[1] == status
        assert (await daemon.get("/echo"))["body"] is None


async def test_a_request_that_does_not_arrive_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.1)
    async with serving(tmp_path / "s"):
        assert await raw(tmp_path / "s", b"GET /echo HTTP/1.1\r\nHost:") == b""


async def test_idle_connections_cannot_shut_everybody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.5)
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 2)
    async with serving(tmp_path / "s") as daemon:
        idle = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for one in idle:
            one.connect(str(tmp_path / "s"))
        assert (await daemon.get("/echo"))["body"] is None
        for one in idle:
            one.close()


def test_the_socket_is_in_the_root_unless_it_is_set(tmp_path: Path) -> None:
    assert socket_path(Settings(root=tmp_path)) == tmp_path / "control.sock"
    assert socket_path(Settings(root=tmp_path, control_socket=Path("/run/x.sock"))) == Path("/run/x.sock")
