"""The other end of the control socket, on trio."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import trio

from .messages import (
    RECEIVE_BYTES,
    SEND_SECONDS,
    BrokenAnswerError,
    Exchange,
    Lines,
    document_of,
    reachable,
    silent,
    unreachable,
)
from .routes import Json


class ControlClient:
    """Asks the daemon behind one socket; made by `connect`. Everything raises DaemonError."""

    def __init__(self, path: Path, address: str) -> None:
        self._path = path
        self._address = address

    async def get(self, route: str, query: Mapping[str, str] | None = None) -> Json:
        """The answer to ``GET route``."""
        async with aclosing(self._ask(Exchange("GET", route, query, None))) as parts:
            return document_of([part async for part in parts])

    async def post(self, route: str, body: Json = None) -> Json:
        """The answer to ``POST route`` with a JSON document."""
        async with aclosing(self._ask(Exchange("POST", route, None, body))) as parts:
            return document_of([part async for part in parts])

    async def lines(self, method: str, route: str, body: Json = None) -> AsyncGenerator[Json, None]:
        """The lines of a streamed answer, as they come; close the generator to make the daemon stop."""
        lines = Lines()
        async with aclosing(self._ask(Exchange(method, route, None, body))) as parts:
            async for part in parts:
                for document in lines.feed(part):
                    yield document

    async def _ask(self, exchange: Exchange) -> AsyncGenerator[bytes, None]:
        try:
            with trio.fail_after(SEND_SECONDS):
                stream = await trio.open_unix_socket(self._address)
        except (OSError, trio.TooSlowError) as error:
            raise unreachable(self._path, error) from error
        async with stream:
            try:
                with trio.fail_after(SEND_SECONDS):
                    await stream.send_all(exchange.request)
                while not exchange.is_complete:
                    for part in exchange.feed(await stream.receive_some(RECEIVE_BYTES)):
                        yield part
            except (OSError, trio.BrokenResourceError, trio.TooSlowError, BrokenAnswerError) as error:
                raise silent(self._path, error) from error


@asynccontextmanager
async def connect(path: Path) -> AsyncIterator[ControlClient]:
    """A client of the daemon that listens at `path`; it connects when it asks."""
    with reachable(path) as address:
        yield ControlClient(path, address)
