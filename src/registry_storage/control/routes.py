"""What can be asked over the control socket: a table of handlers."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import (
    CacheError,
    InvalidInputError,
    NoSuchNodeError,
    NotFoundError,
    NotLazyError,
    RegistryError,
    RegistryStorageError,
    UnauthorizedError,
    UnavailableError,
)
from .address import Peer

Json = Any
"""What `json` reads and writes."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request that was admitted."""

    query: Mapping[str, str]
    """The URL's parameters; one that is repeated has its last value."""
    body: Json
    """The JSON document that was sent; None without one."""
    peer: Peer


Answer = Json | AsyncGenerator[Json, None]
"""One document, or lines as they come; the generator is closed when the client leaves."""
Handler = Callable[[Request], Awaitable[Answer]]

STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (InvalidInputError, 400),
    (NotFoundError, 404),
    (NoSuchNodeError, 404),
    (NotLazyError, 422),
    (UnauthorizedError, 502),
    (UnavailableError, 504),
    (RegistryError, 502),
    (CacheError, 507),
    (RegistryStorageError, 500),
    (OSError, 500),
)


def status_of(error: Exception) -> int:
    """The HTTP status of an error of ours, or of the operating system's."""
    return next(status for kind, status in STATUSES if isinstance(error, kind))


def error_document(error: Exception) -> Json:
    """What the client gets instead of an answer."""
    return {"error": str(error), "kind": type(error).__name__}


class Routes:
    """Handlers by method and path. Register before the server starts."""

    def __init__(self) -> None:
        self._handlers: dict[str, dict[str, Handler]] = {}

    def add(self, method: str, path: str, handler: Handler) -> None:
        """`method` is GET where nothing changes, else POST. Raises ValueError for a route that is taken."""
        methods = self._handlers.setdefault(path, {})
        if method in methods:
            raise ValueError(f"{method} {path} has a handler already")
        methods[method] = handler

    def find(self, method: str, path: str) -> Handler | int:
        """The handler, or the HTTP status of its absence."""
        methods = self._handlers.get(path)
        if methods is None:
            return 404
        return methods.get(method, 405)
