"""The other end of the control socket for commands that only wait.

Without trio: its import takes longer than many answers.
"""

import socket
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

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


class WaitingClient:
    """Asks the daemon behind one socket and waits for the answer; made by `connected`. Raises DaemonError."""

    def __init__(self, path: Path, address: str) -> None:
        self._path = path
        self._address = address

    def get(self, route: str, query: Mapping[str, str] | None = None) -> Json:
        """The answer to ``GET route``."""
        return document_of(self._ask(Exchange("GET", route, query, None)))

    def post(self, route: str, body: Json = None) -> Json:
        """The answer to ``POST route`` with a JSON document."""
        return document_of(self._ask(Exchange("POST", route, None, body)))

    def lines(self, method: str, route: str, body: Json = None) -> Generator[Json, None, None]:
        """The lines of a streamed answer, as they come; close the generator to make the daemon stop."""
        lines = Lines()
        with closing(self._ask(Exchange(method, route, None, body))) as parts:
            for part in parts:
                yield from lines.feed(part)

    def _ask(self, exchange: Exchange) -> Generator[bytes, None, None]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
            stream.settimeout(SEND_SECONDS)
            try:
                stream.connect(self._address)
            except OSError as error:
                raise unreachable(self._path, error) from error
            try:
                stream.sendall(exchange.request)
                stream.settimeout(None)
                while not exchange.is_complete:
                    yield from exchange.feed(stream.recv(RECEIVE_BYTES))
            except (OSError, BrokenAnswerError) as error:
                raise silent(self._path, error) from error


@contextmanager
def connected(path: Path) -> Iterator[WaitingClient]:
    """A client of the daemon that listens at `path`; it connects when it asks."""
    with reachable(path) as address:
        yield WaitingClient(path, address)
