"""The client of registries (OCI distribution specification)."""

import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import lru_cache
from types import TracebackType
from typing import NoReturn, Self

import httpx
import trio

from .. import traces
from ..descriptor import MAX_MANIFEST_BYTES, Descriptor
from ..digest import Digest
from ..errors import BadResponseError, InvalidDigestError, RangeNotServedError, UnavailableError, VerificationError
from ..reference import Reference
from .auth import Authorizer
from .blob import Blob
from .breaker import BreakerOpenError
from .credentials import CredentialsSource
from .hosts import Endpoint, HostStates, LinkEstimate, Registries, Way
from .manifest_types import ACCEPT, media_type_of
from .mirrors import MirroredBlob, Mirrors, ReadableBlob
from .outcomes import refuse, translate
from .redirects import REDIRECTS, host_of, redirected, same_origin
from .retry import Budget, RetryableError, RetryPolicy, Timeouts
from .routes import Routes
from .transport import Body, PoolLimits, Reply, Transport
from .ways import Ways

_MAX_REDIRECTS = 5
_REFUSALS = frozenset({401, 403})
_HASTY_SECONDS = 6.0
_HASTY_ATTEMPTS = 2



class RegistryClient:
    """Fetches from registries; an async context manager, to be used inside one trio run.

    Any number of tasks may use it at the same time.
    """

    def __init__(
        self,
        *,
        registries: Registries | None = None,
        credentials: CredentialsSource | None = None,
        routes: Routes | None = None,
        timeouts: Timeouts | None = None,
        retry_policy: RetryPolicy | None = None,
        pool: PoolLimits | None = None,
        random_source: Callable[[], float] = random.random,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """`random_source` yields numbers in [0, 1), `wall_clock` seconds since 1970."""
        self._registries = registries or Registries()
        self._timeouts = timeouts or Timeouts()
        self._retry_policy = retry_policy or RetryPolicy()
        self._random = random_source
        self._wall_clock = wall_clock
        self._states = HostStates()
        self._mirrors = Mirrors(self._states)
        self._transport = Transport(self._timeouts, pool or PoolLimits(), routes)
        self._ways = Ways(self._states, self._transport)
        self._authorizer = Authorizer(credentials, self._transport, self._timeouts, refuse=self.refuse)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._transport.aclose()

    async def fetch_manifest(self, reference: Reference, digest: Digest | None = None) -> tuple[Digest, str, bytes]:
        """(digest of the bytes, media type, bytes) of a manifest or index, at most MAX_MANIFEST_BYTES.

        `digest`: of another manifest in the repository of `reference`, such as one of an index. Mirrors are asked
        first. Raises RegistryError, and VerificationError when the bytes do not have the digest wanted.
        """
        wanted = digest or reference.digest
        version = reference.version if digest is None else str(digest)

        async def fetch(endpoint: Endpoint, hasty: bool) -> tuple[Digest, str, bytes]:
            return await self._fetch_manifest(endpoint, version, wanted, hasty)

        with traces.span("fetch manifest", reference=str(reference), version=version):
            return await self._mirrors.first(self._registries.endpoints(reference), f"manifest {version}", fetch)

    async def _fetch_manifest(
        self, endpoint: Endpoint, version: str, wanted: Digest | None, hasty: bool
    ) -> tuple[Digest, str, bytes]:
        what = f"{endpoint.host}/{endpoint.repository}: manifest {version}"
        budget = self.budget(0, hasty=hasty)
        doubted: Digest | None = None
        while True:
            try:
                async with self._opened(endpoint, f"manifests/{version}", budget, what) as reply:
                    data = await self._read(reply, budget, MAX_MANIFEST_BYTES, what)
            except RetryableError as failure:
                await budget.pause(failure)
                continue
            digest = Digest.of(data)
            # A tag says nothing of the bytes, and the registry's word counts for nothing, but where they are not what
            # it says they may have been changed on the way: then they are not the same again.
            if wanted is not None or _said_digest(reply) in (None, digest) or digest == doubted:
                break
            doubted = digest
            error = BadResponseError(f"{what}: got {digest}, which is not what the registry says")
            await budget.pause(RetryableError(error, endpoint.host))
        if wanted is not None and digest != wanted:
            raise VerificationError(what, wanted=str(wanted), got=str(digest))
        return digest, media_type_of(reply.headers.get("content-type", ""), data), data

    async def fetch_document(self, reference: Reference, descriptor: Descriptor, limit: int) -> bytes:
        """A small blob, such as an image config, of at most `limit` bytes.

        Raises RegistryError, and VerificationError when its digest is not the descriptor's.
        """
        what = f"{reference.name}: blob {descriptor.digest}"
        if descriptor.size > limit:
            raise BadResponseError(f"{what}: wanted at most {limit} bytes, got {descriptor.size}")
        data = await self.open_blob(reference, descriptor).fetch(0, descriptor.size)
        if (digest := Digest.of(data)) != descriptor.digest:
            raise VerificationError(what, wanted=str(descriptor.digest), got=str(digest))
        return data

    def open_blob(self, reference: Reference, descriptor: Descriptor) -> ReadableBlob:
        """The blob that `descriptor` points at, in the repository of `reference`. Nothing is fetched yet."""
        *mirrors, last = self._registries.endpoints(reference)
        if not mirrors:
            return Blob(self, last, descriptor)
        blobs = [Blob(self, endpoint, descriptor, hasty=True) for endpoint in mirrors]
        return MirroredBlob(self._mirrors, [*mirrors, last], [*blobs, Blob(self, last, descriptor)])

    def links(self) -> dict[str, LinkEstimate]:
        """What requests cost, by host (name and port), where it was measured."""
        return self._states.links()

    # What follows is for blob.py and upload.py.

    def budget(self, size: int, *, hasty: bool = False) -> Budget:
        """For an operation that transfers `size` bytes, from now on. `hasty`: another host has the same."""
        timeouts, policy = self._timeouts, self._retry_policy
        if hasty:
            timeouts = replace(timeouts, operation_seconds=min(timeouts.operation_seconds, _HASTY_SECONDS))
            policy = replace(policy, attempts=min(policy.attempts, _HASTY_ATTEMPTS))
        return Budget(timeouts, policy, size=size, random_source=self._random)

    def link(self, location: httpx.URL | None, endpoint: Endpoint) -> LinkEstimate:
        """The estimate for the host of `location`, else of `endpoint`."""
        return self._states.of(endpoint.host if location is None else host_of(location)).link

    def measured_body(self, reply: Reply, size: int, seconds: float) -> None:
        """`size` bytes of `reply` arrived in `seconds`."""
        state = self._states.of(reply.host)
        # What came while we were busy was there at once: count what the first byte took above the best round trip.
        late = max(0.0, reply.first_byte_seconds - state.link.round_trip_seconds)
        state.link = state.link.with_body(size, seconds + late)

    def remember_ranges(self, reply: Reply, *, served: bool, hasty: bool = False) -> None:
        """The host of `reply` serves ranges, or ignores them.

        `hasty`: it is a mirror, maybe a pull-through cache that will serve them as soon as it has the blob itself.
        """
        state = self._states.of(reply.host)
        if served:
            state.ranges_served()
        else:
            state.ranges_refused(soon=hasty)

    async def open(
        self,
        endpoint: Endpoint,
        path: str,
        headers: Mapping[str, str],
        budget: Budget,
        *,
        location: httpx.URL | None = None,
        must_serve_ranges: bool = False,
    ) -> Reply:
        """One attempt to GET `path` of the endpoint's repository, through redirects and challenges.

        `location`: where to begin instead, an earlier reply's URL. `must_serve_ranges`: ask no host that is
        known not to. The reply has any status. Raises RetryableError and RegistryError.
        """
        what = f"{endpoint.host}/{endpoint.repository}: {path}"
        host = endpoint.host if location is None else host_of(location)
        breaker, failed = self._states.of(host).breaker, False
        try:
            probe = await breaker.enter(budget.deadline)
        except BreakerOpenError:
            raise RetryableError(UnavailableError(f"{what}: {host} does not answer"), host) from None
        try:
            with trio.CancelScope(deadline=budget.deadline):
                reply = await self._follow(endpoint, path, headers, budget, location, must_serve_ranges, what)
                failed = reply.status >= httpx.codes.INTERNAL_SERVER_ERROR
                if not failed:
                    breaker.answered()
                return reply
            raise httpx.ReadTimeout("no answer in time")
        except (httpx.InvalidURL, UnicodeError):  # the latter for names that IDNA forbids
            raise UnavailableError(f"{what}: {endpoint.host} is no name of a host") from None
        except httpx.HTTPError as error:
            failed = True
            if isinstance(error, httpx.ConnectError):
                self._ways.forget(endpoint)
            raise translate(error, what, host) from error
        finally:
            if failed:
                breaker.failed(probe)
            else:
                breaker.left(probe)

    async def _follow(
        self,
        endpoint: Endpoint,
        path: str,
        headers: Mapping[str, str],
        budget: Budget,
        location: httpx.URL | None,
        must_serve_ranges: bool,
        what: str,
    ) -> Reply:
        way = await self._ways.of(endpoint, budget.deadline)
        own = _url(f"{way.scheme}://{endpoint.host}/v2/{endpoint.repository}/{path}")
        url = location or own
        for _ in range(_MAX_REDIRECTS + 1):
            state = self._states.of(host_of(url))
            if must_serve_ranges and not state.serves_ranges:
                raise RangeNotServedError(f"{what}: {host_of(url)} does not serve ranges")
            alone = not state.replies or not state.link.round_trips_measured
            if same_origin(url, own):
                reply = await self._send_authorized(url, headers, endpoint, way, budget)
            else:
                reply = await self._transport.send(
                    url, headers, verified=True, deadline=budget.deadline, registry=endpoint.registry
                )
            if alone:
                state.link = state.link.with_round_trip(reply.first_byte_seconds)
            if reply.status not in REDIRECTS:
                reply.count_in(state)
                reply.redirected = url is not own
                return reply
            await reply.finish()
            url = redirected(url, reply.headers.get("location"), what)
        raise BadResponseError(f"{what}: wanted at most {_MAX_REDIRECTS} redirects, got more")

    async def refuse(self, reply: Reply, what: str, wanted: str = "200 or 206") -> NoReturn:
        """Raise what a reply's status means, as RetryableError where another attempt may help."""
        await refuse(reply, what, wanted, self._wall_clock)

    async def send(
        self,
        endpoint: Endpoint,
        method: str,
        target: str | httpx.URL,
        headers: Mapping[str, str],
        budget: Budget,
        what: str,
        body: Body | None = None,
    ) -> Reply:
        """One attempt of a request that changes something or asks about it; redirects are not followed.

        `target`: a path in the endpoint's repository, or where an earlier reply sent us. Raises RetryableError
        and RegistryError; `what` is for their messages.
        """
        try:
            way = await self._ways.of(endpoint, budget.deadline)
            own = httpx.URL(f"{way.scheme}://{endpoint.host}/v2/{endpoint.repository}/")
            url = own.join(target) if isinstance(target, str) else target
            if same_origin(url, own):
                return await self._send_authorized(url, headers, endpoint, way, budget, method, body)
            deadline = budget.deadline
            return await self._transport.send(
                url,
                headers,
                verified=True,
                deadline=deadline,
                registry=endpoint.registry,
                method=method,
                body=body,
            )
        except (httpx.InvalidURL, UnicodeError):
            raise UnavailableError(f"{what}: {endpoint.host} is no name of a host") from None
        except httpx.HTTPError as error:
            if isinstance(error, httpx.ConnectError):
                self._ways.forget(endpoint)
            raise translate(error, what, endpoint.host) from error

    def endpoint(self, reference: Reference) -> Endpoint:
        """The registry itself, not a mirror: where to push to."""
        return self._registries.endpoints(reference)[-1]

    async def _send_authorized(
        self,
        url: httpx.URL,
        headers: Mapping[str, str],
        endpoint: Endpoint,
        way: Way,
        budget: Budget,
        method: str = "GET",
        body: Body | None = None,
    ) -> Reply:
        """Send to `url` of the endpoint itself, with what opens it; a refusal is answered once."""
        header = await self._authorizer.header(endpoint, budget.deadline)
        answered = False
        while True:
            authorized = headers if header is None else {**headers, "Authorization": header}
            reply = await self._transport.send(
                url,
                authorized,
                verified=way.verified,
                deadline=budget.deadline,
                registry=endpoint.registry,
                method=method,
                body=body,
            )
            if reply.status not in _REFUSALS:
                return reply
            reply.advice = self._authorizer.advice(endpoint)
            if answered:
                return reply
            answered = True
            await reply.finish()  # the token server may need its connection
            if not await self._authorizer.answer(endpoint, reply, header, budget.deadline):
                reply.advice = self._authorizer.advice(endpoint)
                return reply
            header = await self._authorizer.header(endpoint, budget.deadline)

    @asynccontextmanager
    async def _opened(self, endpoint: Endpoint, path: str, budget: Budget, what: str) -> AsyncIterator[Reply]:
        reply = await self.open(endpoint, path, {"Accept": ACCEPT}, budget)
        try:
            if reply.status != httpx.codes.OK:
                await self.refuse(reply, what)
            yield reply
            await reply.finish()
        except httpx.HTTPError as error:
            raise translate(error, what, reply.host) from error
        finally:
            await reply.close()

    async def _read(self, reply: Reply, budget: Budget, limit: int, what: str) -> bytes:
        encoding = reply.headers.get("content-encoding", "identity")
        if encoding.strip().lower() != "identity":
            raise BadResponseError(f"{what}: Content-Encoding: wanted identity, got {encoding[:100]!r}")
        length = reply.headers.get("content-length", "0")
        data = bytearray()
        while int(length) <= limit and len(data) <= limit:
            piece = await reply.read(budget.deadline)
            if not piece:
                return bytes(data)
            data += piece
        raise BadResponseError(f"{what}: wanted at most {limit} bytes, got more")


@lru_cache(maxsize=256)
def _url(text: str) -> httpx.URL:
    """Parsed once: the same blob is asked for again and again."""
    return httpx.URL(text)


def _said_digest(reply: Reply) -> Digest | None:
    """Docker-Content-Digest (distribution specification, "Pulling manifests"), where it is one that we know."""
    try:
        return Digest.parse(reply.headers.get("docker-content-digest", ""))
    except InvalidDigestError:
        return None
