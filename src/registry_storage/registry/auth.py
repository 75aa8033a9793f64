"""Authorization of requests to a registry: Basic, or Bearer tokens from the server that the registry names.

Sources: distribution's token authentication specification (``docs/content/spec/auth/{token,oauth}.md``).
"""

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

import httpx
import trio

from ..errors import BadResponseError, UnauthorizedError
from .challenge import Challenge, parse_challenges
from .credentials import Credentials, CredentialsSource
from .hosts import PLAIN_HTTP, UNVERIFIED_HTTPS, Endpoint, host_name, is_loopback
from .outcomes import translate
from .redirects import host_of
from .retry import RetryableError, Timeouts
from .transport import Reply, Transport

_MAX_TOKEN_REPLY_BYTES = 1 << 20
_DEFAULT_LIFETIME_SECONDS = 60.0
_MAX_LIFETIME_SECONDS = 86400.0
_RENEW_AT = 0.9
"""Part of its lifetime after which a token is not used for new requests."""
_REFUSALS = frozenset({400, 401, 403})
"""What token servers answer to credentials that they do not accept."""
_SENDABLE = re.compile(r"[\x21-\x7e]{1,65536}", re.ASCII)


class _Refuse(Protocol):
    async def __call__(self, reply: Reply, what: str) -> NoReturn: ...


@dataclass(slots=True)
class _Access:
    """What opens one repository."""

    lock: trio.Lock = field(default_factory=trio.Lock)
    header: str | None = None
    """The value of Authorization; None: no challenge seen yet."""
    renew_at: float = float("inf")
    expires_at: float = float("inf")
    """On trio's clock."""
    challenges: Sequence[Challenge] = ()
    origin: str | None = None
    """Where the credentials were found that it rests on; None: nowhere."""


class Authorizer:
    """Knows the Authorization header of every repository in use.

    Tasks that need the same token wait for one request for it. Credentials go to the registry that they
    belong to and to the token server which that registry names, nowhere else.
    """

    def __init__(
        self,
        source: CredentialsSource | None,
        transport: Transport,
        timeouts: Timeouts,
        *,
        refuse: _Refuse,
    ) -> None:
        """`refuse` turns a status into an error."""
        self._source = source
        self._transport = transport
        self._timeouts = timeouts
        self._refuse = refuse
        self._known: dict[Endpoint, _Access] = {}

    async def header(self, endpoint: Endpoint, deadline: float) -> str | None:
        """For a request to `endpoint`, renewed when it is about to expire; None: none is needed so far.

        `deadline` is on trio's clock. Raises as `answer`.
        """
        access = self._known.get(endpoint)
        if access is None or trio.current_time() < access.renew_at:
            return access.header if access else None
        used = access.header
        async with access.lock:
            if access.header == used:
                try:
                    await self._renew(access, endpoint, deadline)
                except RetryableError:
                    if trio.current_time() >= access.expires_at:
                        raise
        return access.header

    async def answer(self, endpoint: Endpoint, reply: Reply, used: str | None, deadline: float) -> bool:
        """After a refusal (401, 403) of a request with the header `used`: is there another to try?

        Raises UnauthorizedError and BadResponseError (by the token server), RetryableError, ConfigError.
        """
        now = trio.current_time()
        if endpoint not in self._known:
            self._known = {key: access for key, access in self._known.items() if now < access.expires_at}
            self._known[endpoint] = _Access()
        access = self._known[endpoint]
        async with access.lock:
            if access.header != used:
                return True  # another task was faster
            access.challenges = (
                parse_challenges(reply.headers.get_list("www-authenticate")) or access.challenges
            )
            await self._renew(access, endpoint, deadline)
            return access.header != used

    def advice(self, endpoint: Endpoint) -> str:
        """What may help when the registry refuses, after `answer`."""
        access = self._known.get(endpoint)
        if access is not None and access.origin is not None and (access.header or "").startswith("Bearer"):
            return f"has the user of {access.origin} access to {endpoint.name}?"
        return _login(endpoint, None if access is None else access.origin)

    async def _renew(self, access: _Access, endpoint: Endpoint, deadline: float) -> None:
        """Set the header that answers the challenges; leaves it where there is none."""
        by_scheme = {challenge.scheme: challenge for challenge in reversed(access.challenges)}
        bearer, basic = by_scheme.get("bearer"), by_scheme.get("basic")
        if bearer is None and basic is None:
            return
        credentials = await self._source.find(endpoint.name) if self._source else None
        access.origin = None if credentials is None else credentials.origin
        access.renew_at = access.expires_at = float("inf")
        if bearer is not None and credentials is not None and credentials.registry_token:
            access.header = f"Bearer {_sendable(credentials.registry_token, endpoint.name)}"
        elif bearer is not None:
            token, lifetime = await self._fetch_token(bearer, endpoint, credentials, deadline)
            now = trio.current_time()
            access.header = f"Bearer {token}"
            access.renew_at, access.expires_at = now + _RENEW_AT * lifetime, now + lifetime
        elif credentials is not None and credentials.username:
            access.header = _basic(credentials)

    async def _fetch_token(
        self, challenge: Challenge, endpoint: Endpoint, credentials: Credentials | None, deadline: float
    ) -> tuple[str, float]:
        """A token for what the endpoint is used for, and its lifetime in seconds."""
        what = f"{endpoint.host}/{endpoint.repository}"
        realm, verified = _realm(challenge, endpoint, what)
        what = f"{what}: token from {host_of(realm)}"
        # The challenge's own scope is the registry's wish; what we need is known.
        scopes = [f"repository:{endpoint.repository}:{endpoint.actions}"]
        scopes += [f"repository:{repository}:pull" for repository in endpoint.mounted]
        query: dict[str, str] = {}
        if service := challenge.parameters.get("service"):
            query["service"] = service
        headers, form = {}, None
        if credentials is not None and credentials.identity_token:
            form = {
                **query,
                "scope": " ".join(scopes),
                "grant_type": "refresh_token",
                "client_id": "registry-storage",
                "refresh_token": credentials.identity_token,
            }
        else:
            if credentials is not None and credentials.username:
                headers["Authorization"] = _basic(credentials)
                query["account"] = credentials.username
            realm = realm.copy_merge_params({**query, "scope": scopes})
        deadline = min(deadline, trio.current_time() + self._timeouts.token_seconds)
        try:
            reply = await self._transport.send(
                realm, headers, verified=verified, deadline=deadline, registry=endpoint.registry, form=form
            )
            try:
                if reply.status in _REFUSALS:
                    reply.advice = _login(endpoint, None if credentials is None else credentials.origin)
                if reply.status != httpx.codes.OK:
                    await self._refuse(reply, what)
                data = bytearray()
                while piece := await reply.read(deadline):
                    data += piece
                    if len(data) > _MAX_TOKEN_REPLY_BYTES:
                        raise BadResponseError(f"{what}: wanted at most {_MAX_TOKEN_REPLY_BYTES} bytes")
            finally:
                await reply.close()
        except httpx.HTTPError as error:
            raise translate(error, what, host_of(realm)) from error
        return _parse_token(data, what)


def _parse_token(data: bytes | bytearray, what: str) -> tuple[str, float]:
    try:
        document = json.loads(data)
        token = document.get("token") or document["access_token"]
        lifetime = document.get("expires_in") or _DEFAULT_LIFETIME_SECONDS
        lifetime = min(max(float(lifetime), 1.0), _MAX_LIFETIME_SECONDS)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise BadResponseError(f"{what}: wanted JSON with a token, got something else") from None
    return _sendable(token, what), lifetime


def _sendable(token: object, what: str) -> str:
    if not isinstance(token, str) or not _SENDABLE.fullmatch(token):
        raise BadResponseError(f"{what}: the token holds what no header may")
    return token


def _login(endpoint: Endpoint, origin: str | None) -> str:
    login = f"podman login {endpoint.registry}"
    if origin is None:
        return f"no credentials for {endpoint.name} are known here: {login}"
    return f"the credentials from {origin} are not accepted (any more): {login}"


def _basic(credentials: Credentials) -> str:
    pair = f"{credentials.username}:{credentials.password}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"


def _realm(challenge: Challenge, endpoint: Endpoint, what: str) -> tuple[httpx.URL, bool]:
    """The token server's URL, and whether its certificate must be valid.

    Raises UnauthorizedError for one that must not get credentials: plain HTTP is for the registry's own host
    where that may use it, and among the servers of this machine.
    """
    text = challenge.parameters.get("realm", "")
    try:
        realm = httpx.URL(text)
    except (httpx.InvalidURL, ValueError):
        realm = httpx.URL("")
    if realm.scheme not in ("http", "https") or not realm.raw_host or realm.userinfo:
        raise BadResponseError(f"{what}: a Bearer challenge without a usable realm")
    same_host = host_name(host_of(realm)) == host_name(endpoint.host).lower()
    local = is_loopback(endpoint.host) and is_loopback(host_of(realm))
    if realm.scheme == "http" and not (PLAIN_HTTP in endpoint.ways and (same_host or local)):
        raise UnauthorizedError(f"{what}: wanted a token server with https, got http at {host_of(realm)}")
    return realm, not (same_host and UNVERIFIED_HTTPS in endpoint.ways)
