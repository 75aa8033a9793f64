"""Pushing blobs and manifests into one repository (OCI distribution specification, "Push")."""

import enum
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

import httpx
import trio

from ..descriptor import Descriptor
from ..digest import Digest
from ..errors import BadResponseError, RegistryError
from ..reference import Reference
from .client import RegistryClient
from .hosts import Endpoint
from .redirects import REDIRECTS, redirected
from .retry import Budget, RetryableError
from .transport import Reply

_PIECE_BYTES = 1 << 20
_MONOLITHIC_BYTES = 1 << 20
"""Up to this size a blob goes in the body of the request that completes the upload: one round trip less."""
_ABORT_SECONDS = 5.0
_RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,15})", re.ASCII)


class BlobSource(Protocol):
    """The bytes of a blob on this side."""

    async def read_at(self, offset: int, size: int) -> bytes:
        """Exactly these bytes."""


class Outcome(enum.Enum):
    """How a blob came to be where it should be."""

    EXISTING = "existing"
    MOUNTED = "mounted"
    UPLOADED = "uploaded"


def _ignore_progress(_: int) -> None:
    pass


class _Part:
    """The rest of a blob from `offset` on, as the body of a request."""

    def __init__(
        self, source: BlobSource, offset: int, end: int, budget: Budget, progress: Callable[[int], None]
    ) -> None:
        self.size = end - offset
        self._source = source
        self._offset = offset
        self._end = end
        self._budget = budget
        self._progress = progress
        self._taken = 0

    def deadline(self) -> float:
        return self._budget.deadline

    async def read(self, start: int) -> bytes:
        self._budget.sent(start - self._taken)
        self._taken = start
        at = self._offset + start
        self._progress(at)
        return await self._source.read_at(at, min(_PIECE_BYTES, self._end - at))


class _Document:
    """A few bytes, as the body of a request."""

    def __init__(self, data: bytes, budget: Budget) -> None:
        self.size = len(data)
        self._data = data
        self._budget = budget

    def deadline(self) -> float:
        return self._budget.deadline

    async def read(self, start: int) -> bytes:
        return self._data[start:]


class Uploader:
    """Pushes into the repository of one reference; any number of tasks may use it at the same time."""

    def __init__(self, client: RegistryClient, reference: Reference, *, mount_from: Sequence[str] = ()) -> None:
        """`mount_from`: repositories on the same host that may hold blobs already, most likely first."""
        self._client = client
        endpoint = client.endpoint(reference)
        mounts = tuple(name for name in dict.fromkeys(mount_from) if name != endpoint.repository)
        self._endpoint = replace(endpoint, actions="pull,push")
        self._mounting = replace(self._endpoint, mounted=mounts)
        self._name = f"{endpoint.host}/{endpoint.repository}"

    async def has_blob(self, digest: Digest) -> bool:
        """Whether the repository has the blob. Raises RegistryError."""
        what = f"{self._name}: blob {digest}"
        budget = self._client.budget(0)
        while True:
            try:
                reply = await self._send("HEAD", f"blobs/{digest}", budget, what)
                if reply.status == httpx.codes.NOT_FOUND:
                    return False
                # Who redirects to where the blob is has looked for it.
                if reply.status == httpx.codes.OK or reply.status in REDIRECTS:
                    return True
                await self._client.refuse(reply, what, "200 or 404")
            except RetryableError as failure:
                await budget.pause(failure)

    async def find_blob(self, digest: Digest) -> Outcome | None:
        """Whether the repository has the blob, or can mount it; None: neither. Raises RegistryError."""
        outcome, location = await self._find(digest, self._client.budget(0))
        if location is not None:
            await self._abort(location)
        return outcome

    async def _find(self, digest: Digest, budget: Budget) -> tuple[Outcome | None, httpx.URL | None]:
        """And an upload, where the registry began one instead of mounting."""
        if await self.has_blob(digest):
            return Outcome.EXISTING, None
        what = f"{self._name}: blob {digest}"
        location = None
        for repository in self._mounting.mounted:
            if location is not None:
                await self._abort(location)
            location = await self._mount(digest, repository, budget, what)
            if location is None:
                return Outcome.MOUNTED, None
        return None, location

    async def upload_blob(
        self, descriptor: Descriptor, source: BlobSource, *, progress: Callable[[int], None] = _ignore_progress
    ) -> Outcome:
        """Make the repository have the blob: nothing is sent where it is there, or can be mounted.

        `progress` is called with the bytes sent so far, which fall back when a connection breaks. What was
        begun and fails is cancelled at the registry. Raises RegistryError, and OSError of `source`.
        """
        what = f"{self._name}: blob {descriptor.digest}"
        budget = self._client.budget(descriptor.size)
        found, location = await self._find(descriptor.digest, budget)
        if found is not None:
            return found
        offset = confirmed = 0
        try:
            while True:
                try:
                    if location is None:
                        location, offset = await self._begin(budget, what), 0
                    if descriptor.size > _MONOLITHIC_BYTES and offset < descriptor.size:
                        part = _Part(source, offset, descriptor.size, budget, progress)
                        location = await self._append(location, part, offset, budget, what)
                        offset = descriptor.size
                        progress(offset)
                    part = _Part(source, offset, descriptor.size, budget, progress)
                    await self._complete(location, descriptor.digest, part, budget, what)
                    location = None
                except RetryableError as failure:
                    await budget.pause(failure)
                    if location is not None:
                        location, offset = await self._resume(location, descriptor, budget, what)
                        budget.progressed(max(0, offset - confirmed))
                        confirmed = max(offset, confirmed)
                        progress(offset)
                else:
                    return Outcome.UPLOADED
        finally:
            if location is not None:
                await self._abort(location)

    async def put_manifest(self, data: bytes, media_type: str, tag: str | None = None) -> Digest:
        """Store a manifest or index, as `tag` or else by its digest alone. Raises RegistryError."""
        digest = Digest.of(data)
        version = tag or str(digest)
        what = f"{self._name}: manifest {version}"
        budget = self._client.budget(len(data))
        while True:
            try:
                reply = await self._client.send(
                    self._endpoint,
                    "PUT",
                    f"manifests/{version}",
                    {"Content-Type": media_type},
                    budget,
                    what,
                    _Document(data, budget),
                )
                await reply.finish()
                if reply.status != httpx.codes.CREATED:
                    await self._client.refuse(reply, what, "201")
                _check_digest(reply, digest, what)
            except RetryableError as failure:
                await budget.pause(failure)
            else:
                return digest

    async def _mount(self, digest: Digest, repository: str, budget: Budget, what: str) -> httpx.URL | None:
        """None: mounted. Otherwise an upload has begun, which nothing was sent to."""
        target = f"blobs/uploads/?mount={digest}&from={repository}"
        while True:
            try:
                reply = await self._send("POST", target, budget, what, self._mounting)
                if reply.status == httpx.codes.CREATED:
                    return None
                if reply.status == httpx.codes.ACCEPTED:
                    return _location(reply, what)
                await self._client.refuse(reply, what, "201 or 202")
            except RetryableError as failure:
                await budget.pause(failure)

    async def _begin(self, budget: Budget, what: str) -> httpx.URL:
        reply = await self._send("POST", "blobs/uploads/", budget, what)
        if reply.status != httpx.codes.ACCEPTED:
            await self._client.refuse(reply, what, "202")
        return _location(reply, what)

    async def _append(
        self, location: httpx.URL, part: _Part, offset: int, budget: Budget, what: str
    ) -> httpx.URL:
        """Send everything that is missing; the upload's new place."""
        headers = {"Content-Type": "application/octet-stream"}
        if offset:
            headers["Content-Range"] = f"{offset}-{offset + part.size - 1}"
        reply = await self._client.send(self._endpoint, "PATCH", location, headers, budget, what, part)
        await reply.finish()
        _check_forgotten(reply, what)
        if reply.status not in (httpx.codes.ACCEPTED, httpx.codes.NO_CONTENT):
            await self._client.refuse(reply, what, "202")
        return _location(reply, what)

    async def _complete(
        self, location: httpx.URL, digest: Digest, part: _Part, budget: Budget, what: str
    ) -> None:
        query = b"&".join(filter(None, (location.query, f"digest={digest}".encode())))
        url = location.copy_with(query=query)
        headers = {"Content-Type": "application/octet-stream"}
        reply = await self._client.send(self._endpoint, "PUT", url, headers, budget, what, part)
        await reply.finish()
        _check_forgotten(reply, what)
        if reply.status != httpx.codes.CREATED:
            await self._client.refuse(reply, what, "201")
        _check_digest(reply, digest, what)

    async def _resume(
        self, location: httpx.URL, descriptor: Descriptor, budget: Budget, what: str
    ) -> tuple[httpx.URL | None, int]:
        """The place of a broken upload, and how many bytes the registry has; None: begin anew."""
        try:
            reply = await self._client.send(self._endpoint, "GET", location, {}, budget, what)
            await reply.finish()
        except RetryableError:
            return None, 0
        if reply.status not in (httpx.codes.NO_CONTENT, httpx.codes.ACCEPTED):
            return None, 0
        match = _RANGE.fullmatch(reply.headers.get("range", ""))
        # Of an upload without bytes some say 0-0, which is one byte as well.
        offset = int(match[1]) + 1 if match and match[1] != "0" else 0
        if not 0 < offset <= descriptor.size:
            await self._abort(location)
            return None, 0
        try:
            return _location(reply, what), offset
        except BadResponseError:
            return location, offset

    async def _abort(self, location: httpx.URL) -> None:
        """Tell the registry to forget an upload; whether it does is its affair."""
        with trio.move_on_after(_ABORT_SECONDS, shield=True), suppress(RegistryError, RetryableError):
            reply = await self._client.send(self._endpoint, "DELETE", location, {}, self._client.budget(0), self._name)
            await reply.finish()

    async def _send(
        self, method: str, target: str, budget: Budget, what: str, endpoint: Endpoint | None = None
    ) -> Reply:
        reply = await self._client.send(endpoint or self._endpoint, method, target, {}, budget, what)
        await reply.finish()
        return reply


def _location(reply: Reply, what: str) -> httpx.URL:
    """Where the upload goes on; may be relative, and at another host."""
    return redirected(reply.url, reply.headers.get("location"), what, "an upload")


def _check_forgotten(reply: Reply, what: str) -> None:
    """Uploads that the registry forgot or took further than we know may be taken up, or begun anew."""
    if reply.status in (httpx.codes.NOT_FOUND, httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE):
        message = f"{what}: the registry lost track of the upload (HTTP {reply.status})"
        raise RetryableError(BadResponseError(message), reply.host, reply.status)


def _check_digest(reply: Reply, digest: Digest, what: str) -> None:
    got = reply.headers.get("docker-content-digest")
    if got is not None and got != str(digest):
        raise BadResponseError(f"{what}: Docker-Content-Digest: wanted {digest}, got {got[:100]!r}")
