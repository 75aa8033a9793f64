"""Answers of the fake registry, among them those of a real one behind it."""

import json
import re
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass

import h11
import trio

_PIECE = 64 << 10


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """A request as it came in."""

    listener: str
    method: str
    path: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes = b""


@dataclass(slots=True)
class Answer:
    """An answer before its faults."""

    status: int
    headers: dict[str, str]
    body: bytes | AsyncGenerator[bytes, None] = b""
    blob_offset: int = 0
    """Where in the blob the body begins."""


class BrokenError(Exception):
    """The connection is to end here."""


async def ask(upstream: str, request: LoggedRequest) -> Answer:
    """What the registry at `upstream` (host:port) answers to `request`."""
    host, _, port = upstream.rpartition(":")
    stream = await trio.open_tcp_stream(host, int(port))
    try:
        connection = h11.Connection(h11.CLIENT)
        dropped = ("connection", "transfer-encoding", "content-length", "expect", "te")
        headers = [(name, value) for name, value in request.headers.items() if name not in dropped]
        headers += [("connection", "close"), ("content-length", str(len(request.body)))]
        start = h11.Request(method=request.method, target=request.path, headers=headers)
        await stream.send_all(connection.send(start) or b"")
        await stream.send_all(connection.send(h11.Data(data=request.body)) or b"")
        await stream.send_all(connection.send(h11.EndOfMessage()) or b"")
        event = await _next_event(connection, stream)
        while not isinstance(event, h11.Response):
            event = await _next_event(connection, stream)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    got = joined(event.headers)
    got.pop("connection", None)
    first = re.match(r"bytes ([0-9]+)-", got.get("content-range", ""))
    return Answer(event.status_code, got, _body(connection, stream), int(first[1]) if first else 0)


def joined(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers by name, repeated ones (Go's clients send one Accept per type) as one list."""
    together: dict[str, str] = {}
    for name, value in headers:
        key, text = name.decode(), value.decode("latin-1")
        together[key] = f"{together[key]}, {text}" if key in together else text
    return together


def refusal(status: int, code: str) -> Answer:
    """An answer with the specification's error document."""
    document = {"errors": [{"code": code, "message": "as it was told"}]}
    return Answer(status, {"content-type": "application/json"}, json.dumps(document).encode())


async def _body(connection: h11.Connection, stream: trio.SocketStream) -> AsyncGenerator[bytes, None]:
    try:
        while isinstance(event := await _next_event(connection, stream), h11.Data):
            yield bytes(event.data)
    finally:
        await trio.aclose_forcefully(stream)


async def _next_event(connection: h11.Connection, stream: trio.SocketStream) -> h11.Event:
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(await stream.receive_some(_PIECE))
    if event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
        raise BrokenError
    return event  # type: ignore[return-value]
