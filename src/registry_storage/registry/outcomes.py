"""What a broken exchange or an unwanted status means, in the package's own errors."""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NoReturn

import httpx

from ..errors import BadResponseError, NotFoundError, RegistryError, UnauthorizedError, UnavailableError
from .causes import advice, explain
from .redirects import host_of
from .retry import RetryableError, parse_retry_after
from .transport import Reply

_TRANSPORT_ERRORS: tuple[tuple[type[httpx.HTTPError], type[RegistryError], str], ...] = (
    (httpx.ConnectTimeout, UnavailableError, "no connection in time"),
    (httpx.ConnectError, UnavailableError, "no connection"),
    (httpx.TimeoutException, UnavailableError, "no answer in time"),
    (httpx.NetworkError, UnavailableError, "the connection broke"),
    (httpx.RemoteProtocolError, BadResponseError, "not HTTP as it should be"),
    (httpx.HTTPError, UnavailableError, "failed"),
)
_STATUS_ERRORS: Mapping[int, type[RegistryError]] = {
    401: UnauthorizedError,
    403: UnauthorizedError,
    404: NotFoundError,
    410: NotFoundError,
}
_RETRIED_CLIENT_ERRORS = frozenset({408, 425, 429})


def translate(error: httpx.HTTPError, what: str, host: str) -> RetryableError:
    """What a broken exchange means; another attempt may help. `host`: where the error does not say who was asked."""
    translated, words = next(
        (translated, words) for kind, translated, words in _TRANSPORT_ERRORS if isinstance(error, kind)
    )
    text = explain(error)
    if translated is BadResponseError and ("disconnected" in text or "closed connection" in text):
        translated, words = UnavailableError, "the connection broke"
    with suppress(RuntimeError):
        host = host_of(error.request.url)
    failure = RetryableError(translated(f"{what}: {words}: {text}"), host)
    failure.__cause__ = error
    return failure


async def refuse(reply: Reply, what: str, wanted: str, wall_clock: Callable[[], float]) -> NoReturn:
    """Raise what a reply's status means, as RetryableError where another attempt may help.

    `wanted`: the statuses that would have been right; `wall_clock` yields seconds since 1970.
    """
    status = reply.status
    codes = await _error_codes(reply)
    message = f"{what}: wanted HTTP {wanted}, got {status}{codes}{advice(reply)}"
    if status >= 500 or status in _RETRIED_CLIENT_ERRORS:
        headers = reply.headers
        wait = parse_retry_after(headers.get("retry-after"), headers.get("date"), wall_clock)
        raise RetryableError(UnavailableError(message), reply.host, status, wait)
    raise _STATUS_ERRORS.get(status, BadResponseError)(message)


async def _error_codes(reply: Reply) -> str:
    """For messages: the codes of the error document (distribution specification, "Error Codes")."""
    await reply.finish()
    try:
        codes = [error["code"] for error in json.loads(reply.drained)["errors"]]
        text = ", ".join(code for code in codes[:4] if re.fullmatch(r"[A-Z_]{1,40}", code, re.ASCII))
    except (ValueError, KeyError, TypeError, RecursionError):
        text = ""
    return f" ({text})" if text else ""
