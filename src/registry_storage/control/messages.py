"""A question over the control socket and its answer, whoever carries the bytes (HTTP/1.1 by h11)."""

import errno
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import h11

from ..errors import DaemonError
from .address import short
from .routes import Json

SEND_SECONDS = 5.0
"""To connect and ask. The daemon bounds its work itself; a person can interrupt."""
RECEIVE_BYTES = 64 << 10
_OK = 200


class BrokenAnswerError(Exception):
    """What came is no answer, or ended in the middle of one."""


class Exchange:
    """Send `request`; feed what comes until `is_complete`."""

    def __init__(self, method: str, route: str, query: Mapping[str, str] | None, body: Json) -> None:
        self.is_complete = False
        self._connection = h11.Connection(h11.CLIENT)
        self._status = 0
        self._refusal = b""
        data = b"" if body is None else json.dumps(body).encode()
        headers = [("Host", "daemon"), ("Connection", "close")]
        if body is not None:
            headers += [("Content-Type", "application/json"), ("Content-Length", str(len(data)))]
        target = f"{route}?{urlencode(query)}" if query else route
        events = [h11.Request(method=method, target=target, headers=headers), h11.Data(data), h11.EndOfMessage()]
        self.request = b"".join(self._connection.send(event) or b"" for event in events if event != h11.Data(b""))

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What it adds to the answer's body; `data` is empty at the end of the connection.

        Raises DaemonError where the daemon refused, and BrokenAnswerError.
        """
        try:
            self._connection.receive_data(data)
            while (event := self._connection.next_event()) is not h11.NEED_DATA:
                if isinstance(event, h11.Response):
                    self._status = event.status_code
                elif isinstance(event, h11.Data) and self._status == _OK:
                    yield bytes(event.data)
                elif isinstance(event, h11.Data):
                    self._refusal += event.data
                elif isinstance(event, h11.EndOfMessage):
                    break
                else:
                    raise BrokenAnswerError("the connection was closed")
            else:
                return
        except h11.RemoteProtocolError as error:
            raise BrokenAnswerError(str(error)) from error
        if self._status != _OK:
            raise error_of(self._refusal)
        self.is_complete = True


class Lines:
    """Cuts what arrives into JSON documents of a line each."""

    def __init__(self) -> None:
        self._left = b""

    def feed(self, data: bytes) -> Iterator[Json]:
        """Those that are complete. Raises DaemonError, also for one that says so."""
        *lines, self._left = (self._left + data).split(b"\n")
        for line in lines:
            document = document_of([line])
            if isinstance(document, dict) and document.keys() == {"error", "kind"}:
                raise error_of(line)
            yield document


def document_of(parts: Iterable[bytes]) -> Json:
    """The JSON document. Raises DaemonError."""
    data = b"".join(parts)
    try:
        return json.loads(data)
    except ValueError:
        raise error_of(data) from None


def error_of(data: bytes) -> DaemonError:
    """What the daemon says instead of an answer."""
    try:
        document = json.loads(data)
        return DaemonError(str(document["error"]), kind=str(document["kind"]))
    except (ValueError, KeyError, TypeError):
        return DaemonError(f"the daemon answered what is not understood: {data[:200]!r}")


@contextmanager
def reachable(path: Path) -> Iterator[str]:
    """What to connect to for the socket at `path`, however long that is. Raises DaemonError."""
    try:
        with short(path) as address:
            yield address
    except (FileNotFoundError, NotADirectoryError) as error:  # the directory of a long path
        raise unreachable(path, error) from None


def unreachable(path: Path, error: Exception) -> DaemonError:
    """Nothing could be asked."""
    number = getattr(error, "errno", None)
    if number in (errno.EACCES, errno.EPERM):
        return DaemonError(f"control socket {path}: only root, the daemon's user and its group may ask")
    if number in (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR):
        return DaemonError(f"control socket {path}: no daemon listens there")
    return silent(path, error)


def silent(path: Path, error: Exception) -> DaemonError:
    """The answer did not come."""
    return DaemonError(f"control socket {path}: the daemon did not answer: {str(error) or type(error).__name__}")
