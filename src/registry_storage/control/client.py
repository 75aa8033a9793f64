"""The other end of the control socket, for ``registry-storagectl``."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import trio

from ..errors import DaemonError
from .address import short
from .routes import Json

_TIMEOUT = httpx.Timeout(5.0, read=None)
"""The daemon bounds its work itself; a person can interrupt."""


class ControlClient:
    """Asks the daemon behind one socket; made by `connect`. Everything raises DaemonError."""

    def __init__(self, path: Path, client: httpx.AsyncClient) -> None:
        self._path = path
        self._client = client

    async def get(self, route: str, query: Mapping[str, str] | None = None) -> Json:
        """The answer to ``GET route``."""
        return await self._ask("GET", route, query, None)

    async def post(self, route: str, body: Json = None) -> Json:
        """The answer to ``POST route`` with a JSON document."""
        return await self._ask("POST", route, None, body)

    async def lines(self, method: str, route: str, body: Json = None) -> AsyncGenerator[Json, None]:
        """The lines of a streamed answer, as they come; close the generator to make the daemon stop."""
        try:
            async with self._client.stream(method, route, json=body) as response:
                if response.status_code != httpx.codes.OK:
                    raise _error(await response.aread())
                async with _unwound(response) as received:
                    async for line in received:
                        document = json.loads(line)
                        if isinstance(document, dict) and document.keys() == {"error", "kind"}:
                            raise _error(line)
                        yield document
        except httpx.HTTPError as error:
            raise self._translate(error) from error

    async def _ask(self, method: str, route: str, query: Mapping[str, str] | None, body: Json) -> Json:
        try:
            content = {} if body is None else {"json": body}
            response = await self._client.request(method, route, params=query, **content)
        except httpx.HTTPError as error:
            raise self._translate(error) from error
        if response.status_code != httpx.codes.OK:
            raise _error(response.content)
        return response.json()

    def _translate(self, error: httpx.HTTPError) -> DaemonError:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__cause__ or cause.__context__
        if isinstance(cause, PermissionError):
            return DaemonError(f"control socket {self._path}: only root, the daemon's user and its group may ask")
        if isinstance(error, httpx.ConnectError):
            return DaemonError(f"control socket {self._path}: no daemon listens there")
        return DaemonError(f"control socket {self._path}: the daemon did not answer: {error}")


@asynccontextmanager
async def connect(path: Path) -> AsyncIterator[ControlClient]:
    """A client of the daemon that listens at `path`; it connects when it asks."""
    try:
        with short(path) as address:
            transport = httpx.AsyncHTTPTransport(uds=address)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://daemon", timeout=_TIMEOUT, trust_env=False
            ) as client:
                yield ControlClient(path, client)
    except FileNotFoundError:  # the directory of a long path
        raise DaemonError(f"control socket {path}: no daemon listens there") from None


@asynccontextmanager
async def _unwound(response: httpx.Response) -> AsyncIterator[AsyncIterator[str]]:
    """The lines of a body that may be left early; httpx nests generators and closes only the outermost."""
    received = response.aiter_lines()
    try:
        yield received
    finally:
        with trio.CancelScope(shield=True):
            await response.aclose()
            with suppress(httpx.HTTPError, httpx.StreamError):
                while await anext(received, None) is not None:
                    pass


def _error(data: bytes | str) -> DaemonError:
    try:
        document = json.loads(data)
        return DaemonError(str(document["error"]), kind=str(document["kind"]))
    except (ValueError, KeyError, TypeError):
        return DaemonError(f"the daemon answered what is not understood: {data[:200]!r}")
