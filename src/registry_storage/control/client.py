"""The other end of the control socket, for ``registry-storagectl``: HTTP/1.1 by h11 on trio.

Commands wait for what they import: httpx would take longer than most answers.
"""

import errno
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from urllib.parse import urlencode

import h11
import trio

from ..errors import DaemonError
from .address import short
from .routes import Json

_SEND_SECONDS = 5.0
"""To connect and ask. The daemon bounds its work itself; a person can interrupt."""
_RECEIVE_BYTES = 64 << 10
_OK = 200


class ControlClient:
    """Asks the daemon behind one socket; made by `connect`. Everything raises DaemonError."""

    def __init__(self, path: Path, address: str) -> None:
        self._path = path
        self._address = address

    async def get(self, route: str, query: Mapping[str, str] | None = None) -> Json:
        """The answer to ``GET route``."""
        return await self._ask("GET", route, query, None)

    async def post(self, route: str, body: Json = None) -> Json:
        """The answer to ``POST route`` with a JSON document."""
        return await self._ask("POST", route, None, body)

    async def lines(self, method: str, route: str, body: Json = None) -> AsyncGenerator[Json, None]:
        """The lines of a streamed answer, as they come; close the generator to make the daemon stop."""
        left = b""
        async with aclosing(self._receive(method, route, body)) as parts:
            async for part in parts:
                *lines, left = (left + part).split(b"\n")
                for line in lines:
                    yield _document(line)
        if left:
            yield _document(left)

    async def _ask(self, method: str, route: str, query: Mapping[str, str] | None, body: Json) -> Json:
        target = f"{route}?{urlencode(query)}" if query else route
        async with aclosing(self._receive(method, target, body)) as parts:
            return _parsed(b"".join([part async for part in parts]))

    async def _receive(self, method: str, target: str, body: Json) -> AsyncGenerator[bytes, None]:
        """The pieces of the answer's body."""
        connection = h11.Connection(h11.CLIENT)
        try:
            with trio.fail_after(_SEND_SECONDS):
                stream = await trio.open_unix_socket(self._address)
        except (OSError, trio.TooSlowError) as error:
            raise self._unreachable(error) from error
        async with stream:
            try:
                with trio.fail_after(_SEND_SECONDS):
                    await stream.send_all(_request(connection, method, target, body))
                status, refusal = 0, b""
                while not isinstance(event := await _next_event(connection, stream), h11.EndOfMessage):
                    if isinstance(event, h11.Response):
                        status = event.status_code
                    elif isinstance(event, h11.Data) and status == _OK:
                        yield bytes(event.data)
                    elif isinstance(event, h11.Data):
                        refusal += event.data
            except (OSError, trio.BrokenResourceError, trio.TooSlowError, h11.RemoteProtocolError) as error:
                raise self._silent(error) from error
        if status != _OK:
            raise _error(refusal)

    def _unreachable(self, error: Exception) -> DaemonError:
        number = getattr(error, "errno", None)
        if number in (errno.EACCES, errno.EPERM):
            return DaemonError(f"control socket {self._path}: only root, the daemon's user and its group may ask")
        if number in (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR):
            return DaemonError(f"control socket {self._path}: no daemon listens there")
        return self._silent(error)

    def _silent(self, error: Exception) -> DaemonError:
        words = str(error) or type(error).__name__
        return DaemonError(f"control socket {self._path}: the daemon did not answer: {words}")


@asynccontextmanager
async def connect(path: Path) -> AsyncIterator[ControlClient]:
    """A client of the daemon that listens at `path`; it connects when it asks."""
    try:
        with short(path) as address:
            yield ControlClient(path, address)
    except FileNotFoundError:  # the directory of a long path
        raise DaemonError(f"control socket {path}: no daemon listens there") from None


def _request(connection: h11.Connection, method: str, target: str, body: Json) -> bytes:
    data = b"" if body is None else json.dumps(body).encode()
    headers = [("Host", "daemon"), ("Connection", "close")]
    if body is not None:
        headers += [("Content-Type", "application/json"), ("Content-Length", str(len(data)))]
    sent = connection.send(h11.Request(method=method, target=target, headers=headers)) or b""
    if data:
        sent += connection.send(h11.Data(data)) or b""
    return sent + (connection.send(h11.EndOfMessage()) or b"")


async def _next_event(connection: h11.Connection, stream: trio.SocketStream) -> h11.Event:
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(_RECEIVE_BYTES))
        elif isinstance(event, h11.Event) and not isinstance(event, h11.ConnectionClosed):
            return event
        else:
            raise h11.RemoteProtocolError("the connection was closed")


def _document(line: bytes) -> Json:
    document = _parsed(line)
    if isinstance(document, dict) and document.keys() == {"error", "kind"}:
        raise _error(line)
    return document


def _parsed(data: bytes) -> Json:
    try:
        return json.loads(data)
    except ValueError:
        raise _error(data) from None


def _error(data: bytes) -> DaemonError:
    try:
        document = json.loads(data)
        return DaemonError(str(document["error"]), kind=str(document["kind"]))
    except (ValueError, KeyError, TypeError):
        return DaemonError(f"the daemon answered what is not understood: {data[:200]!r}")
