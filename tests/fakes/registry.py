"""A registry that misbehaves as it is told, alone or as a front of a real one.

In a test: ``await nursery.start(FakeRegistry().serve)``, or ``with FakeRegistry().in_thread():``.
As a process: ``python -m tests.fakes.registry --to 127.0.0.1:5000 --fault '{"kind": "status"}'``; faults are
then read and changed with GET, POST and DELETE of ``/_fake/faults``, the log is ``/_fake/log``; POST and DELETE of
``/_fake/script`` begin (``{"seed": 1}``) and end random faults.

Three listeners: ``host`` (the registry), ``storage_host`` (where blobs are redirected to, by URLs that
expire) and ``token_host`` (Bearer tokens).
"""

import argparse
import base64
import json
import re
import socket
import ssl
import struct
import threading
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager, suppress
from typing import Any
from urllib.parse import parse_qs, urlsplit

import h11
import trio

from registry_storage.descriptor import OCI_MANIFEST, Descriptor
from registry_storage.digest import Digest

from .answers import Answer, BrokenError, LoggedRequest, ask, joined, refusal
from .fault_scripts import RandomFaults, Script
from .faults import Fault
from .uploads import Uploads

_PIECE = 64 << 10


class FakeRegistry:
    """The server and what it serves; everything may be changed while it runs."""

    def __init__(
        self,
        *,
        auth: str | None = None,
        users: Mapping[str, str] | None = None,
        identity_tokens: Mapping[str, str] | None = None,
        token_seconds: float = 300.0,
        redirect_blobs: bool = False,
        upstream: str | None = None,
        port: int = 0,
        address: str = "127.0.0.1",
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """`auth`: None, ``basic`` or ``bearer``; without `users` (name: password) and `identity_tokens`
        anonymous tokens are good enough. `upstream`: host:port to get everything from."""
        self.auth = auth
        self.users = dict(users or {})
        self.identity_tokens = dict(identity_tokens or {})
        self.token_seconds = token_seconds
        self.redirect_blobs = redirect_blobs
        self.upstream = upstream
        self.faults: list[Fault] = []
        self.script: Script | None = None
        """Chooses more faults for each request."""
        self.log: list[LoggedRequest] = []
        self.blobs: dict[tuple[str, str], bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.tokens: dict[str, float] = {}
        self.scopes: list[list[str]] = []
        """Of each request for a token."""
        self.challenge: str | None = None
        """Instead of the usual WWW-Authenticate."""
        self.host = self.storage_host = self.token_host = ""
        self.uploads = Uploads(self.blobs, self.manifests)
        self.connections = 0
        """Accepted so far, by all listeners."""
        self.round_trips = 0
        """The longest chain of requests of which each came after the one before it was answered; may be set to 0."""
        self.token_scheme = "http"
        self._signature = 0
        self._oldest_signature = 0
        self._port = port
        self._address = address
        self._ssl_context = ssl_context

    # What it serves.

    def put_blob(
        self, repository: str, data: bytes, media_type: str = "application/octet-stream"
    ) -> Descriptor:
        """Its descriptor."""
        digest = Digest.of(data)
        self.blobs[repository, str(digest)] = data
        return Descriptor(media_type, digest, len(data))

    def put_manifest(self, repository: str, tag: str, data: bytes, media_type: str = OCI_MANIFEST) -> Digest:
        """Its digest, by which it is served too."""
        digest = Digest.of(data)
        self.manifests[repository, tag] = self.manifests[repository, str(digest)] = media_type, data
        return digest

    def inject(self, kind: str, **settings: Any) -> Fault:
        """Add a fault."""
        fault = Fault(kind, **settings)
        self.faults.append(fault)
        return fault

    def expire_signatures(self) -> None:
        """URLs on `storage_host` that were given out are answered 403 from now on."""
        self._oldest_signature = self._signature + 1

    def revoke_tokens(self) -> None:
        """Tokens that were given out are answered 401 from now on."""
        self.tokens.clear()

    def requests(self, path: str = "", listener: str = ".*") -> list[LoggedRequest]:
        """The log's entries whose path and listener match."""
        return [
            entry
            for entry in self.log
            if re.search(path, entry.path) and re.fullmatch(listener, entry.listener)
        ]

    # Running it.

    async def serve(self, *, task_status: trio.TaskStatus["FakeRegistry"] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            for name, port in (("registry", self._port), ("storage", 0), ("token", 0)):
                listeners = await trio.open_tcp_listeners(port, host=self._address)
                number = listeners[0].socket.getsockname()[1]
                host = f"{self._address}:{number}"
                if name == "registry":
                    self.host, self._port = host, number
                elif name == "storage":
                    self.storage_host = host
                else:
                    self.token_host = host
                nursery.start_soon(trio.serve_listeners, self._handler(name), listeners)
            task_status.started(self)
            await trio.sleep_forever()

    @contextmanager
    def in_thread(self) -> Iterator["FakeRegistry"]:
        """For tests that do not run trio."""
        ready = threading.Event()
        stop: list[Any] = []

        async def main() -> None:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.serve)
                token, scope = trio.lowlevel.current_trio_token(), nursery.cancel_scope
                stop.append(lambda: trio.from_thread.run_sync(scope.cancel, trio_token=token))
                ready.set()

        thread = threading.Thread(target=trio.run, args=(main,), name="fake registry", daemon=True)
        thread.start()
        if not ready.wait(10):
            raise RuntimeError("the fake registry did not start")
        try:
            yield self
        finally:
            stop[0]()
            thread.join()

    # Serving.

    def _handler(self, listener: str) -> Any:
        async def handle(stream: trio.SocketStream) -> None:
            self.connections += 1
            transport: trio.abc.Stream = stream
            if self._ssl_context is not None:
                transport = trio.SSLStream(stream, self._ssl_context, server_side=True, https_compatible=True)
            try:
                await self._serve_connection(listener, transport)
            except h11.RemoteProtocolError:
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await stream.send_all(b"HTTP/1.0 400 Bad Request\r\n\r\n")
            except trio.BrokenResourceError:
                if isinstance(transport, trio.SSLStream):
                    # After a failed handshake trio keeps the alert that says why.
                    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                        await stream.send_all(transport._outgoing.read())
            except (BrokenError, OSError):
                pass
            finally:
                with trio.move_on_after(1, shield=True):
                    await trio.aclose_forcefully(stream)

        return handle

    async def _serve_connection(self, listener: str, stream: trio.abc.Stream) -> None:
        connection = h11.Connection(h11.SERVER)
        while True:
            request, body = await self._receive(connection, stream, listener)
            if request is None:
                return
            headers = joined(request.headers)
            logged = LoggedRequest(listener, request.method.decode(), request.target.decode(), headers, body)
            trip = self.round_trips + 1
            if logged.path.startswith("/_fake/"):
                answer, faults = self._control(logged), []
            else:
                self.log.append(logged)
                faults = [
                    fault
                    for fault in list(self.faults)
                    if fault.kind != "cut" and fault.strikes(listener, logged.method, logged.path)
                ]
                if self.script is not None:
                    faults += self.script(logged)
                answer = await self._prepare(logged, faults, stream)
            await self._send(connection, stream, answer, faults, logged.method)
            self.round_trips = max(self.round_trips, trip)
            if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                return
            connection.start_next_cycle()

    async def _receive(
        self, connection: h11.Connection, stream: trio.abc.Stream, listener: str
    ) -> tuple[h11.Request | None, bytes]:
        request, body, cut = None, bytearray(), None
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                if connection.they_are_waiting_for_100_continue:
                    await stream.send_all(
                        connection.send(h11.InformationalResponse(status_code=100, headers=[])) or b""
                    )
                connection.receive_data(bytes(await stream.receive_some(_PIECE)))
            elif isinstance(event, h11.Request):
                request = event
                method, target = event.method.decode(), event.target.decode()
                cuts = [
                    fault
                    for fault in self.faults
                    if fault.kind == "cut" and fault.strikes(listener, method, target)
                ]
                cut = cuts[0].at if cuts else None
            elif isinstance(event, h11.Data):
                body += event.data
                if cut is not None and len(body) >= cut and request is not None:
                    headers = joined(request.headers)
                    logged = LoggedRequest(listener, method, target, headers, bytes(body[:cut]))
                    self.log.append(logged)
                    self.uploads.answer(logged)
                    raise BrokenError
            elif isinstance(event, h11.EndOfMessage):
                return request, bytes(body)
            else:
                return None, b""

    async def _prepare(self, request: LoggedRequest, faults: list[Fault], stream: trio.abc.Stream) -> Answer:
        """The answer, after the faults that strike before its headers."""
        kinds = {fault.kind: fault for fault in faults}
        if fault := kinds.get("delay"):
            await trio.sleep(fault.seconds)
        if "disconnect" in kinds:
            raise BrokenError
        if "garbage" in kinds:
            await stream.send_all(b"\x16\x03\x01 this is no HTTP \r\n\r\n" * 20)
            raise BrokenError
        if "expire" in kinds:
            self.revoke_tokens()
            self.expire_signatures()
        if (fault := kinds.get("stall")) and fault.at is None:
            await _wait_for_the_end(stream)
        if fault := kinds.get("status"):
            kept = {name: value for name, value in fault.headers.items() if value is not None}
            return Answer(fault.status, kept, fault.body)
        if fault := kinds.get("redirect"):
            return Answer(307, {"location": fault.location})
        headers = dict(request.headers)
        asked = re.fullmatch(r"bytes=([0-9]+)-([0-9]+)", headers.get("range", ""))
        if "ignore-range" in kinds:
            headers.pop("range", None)
        elif asked and ("wrong-range" in kinds or "shift" in kinds):
            headers["range"] = f"bytes={int(asked[1]) + 1}-{int(asked[2]) + 1}"
        answer = await self._route(
            LoggedRequest(request.listener, request.method, request.path, headers, request.body)
        )
        if asked and "shift" in kinds:
            total = answer.headers.get("content-range", "/0").rpartition("/")[2]
            answer.headers["content-range"] = f"bytes {asked[1]}-{asked[2]}/{total}"
        return answer

    async def _route(self, request: LoggedRequest) -> Answer:
        path = urlsplit(request.path).path
        if request.listener == "token":
            return self._token(request)
        if request.listener == "storage":
            return await self._storage(request)
        if self.auth is not None and (refused := self._authorize(request)) is not None:
            return refused
        uploaded = self.uploads.answer(request) if self.upstream is None else None
        if uploaded is not None:
            return uploaded
        blob = re.fullmatch(r"/v2/(.+)/blobs/(sha256:[0-9a-f]{64})", path)
        if blob and self.redirect_blobs and request.method == "GET":
            self._signature += 1
            location = f"http://{self.storage_host}/{blob[1]}/{blob[2]}?signature={self._signature}"
            return Answer(307, {"location": location})
        if self.upstream is not None:
            return await ask(self.upstream, request)
        if path == "/v2/":
            return Answer(200, {"content-type": "application/json"}, b"{}")
        if blob:
            return self._blob(request, blob[1], blob[2])
        if match := re.fullmatch(r"/v2/(.+)/manifests/([^/]+)", path):
            found = self.manifests.get((match[1], match[2]))
            if found is None:
                return refusal(404, "MANIFEST_UNKNOWN")
            digest = str(Digest.of(found[1]))
            return Answer(200, {"content-type": found[0], "docker-content-digest": digest}, found[1])
        return refusal(404, "NOT_FOUND")

    def _blob(self, request: LoggedRequest, repository: str, digest: str) -> Answer:
        data = self.blobs.get((repository, digest))
        if data is None:
            return refusal(404, "BLOB_UNKNOWN")
        headers = {"content-type": "application/octet-stream", "accept-ranges": "bytes"}
        asked = request.headers.get("range")
        if asked is None:
            return Answer(200, headers, data)
        match = re.fullmatch(r"bytes=([0-9]*)-([0-9]*)", asked)
        if not match or (not match[1] and not match[2]):
            return refusal(400, "UNSUPPORTED")
        first = int(match[1]) if match[1] else max(0, len(data) - int(match[2]))
        last = min(int(match[2]) if match[1] and match[2] else len(data) - 1, len(data) - 1)
        if first > last:
            return Answer(416, {"content-range": f"bytes */{len(data)}"})
        headers["content-range"] = f"bytes {first}-{last}/{len(data)}"
        return Answer(206, headers, data[first : last + 1], first)

    async def _storage(self, request: LoggedRequest) -> Answer:
        """As object stores do, it accepts a signature or an Authorization, not both."""
        parts = urlsplit(request.path)
        if "authorization" in request.headers:
            return Answer(400, {}, b"<Error>only one auth mechanism allowed</Error>")
        if int(parse_qs(parts.query).get("signature", ["0"])[0]) < self._oldest_signature:
            return Answer(403, {}, b"<Error>expired</Error>")
        repository, _, digest = parts.path.strip("/").rpartition("/")
        if self.upstream is None:
            return self._blob(request, repository, digest)
        path = f"/v2/{repository}/blobs/{digest}"
        return await ask(self.upstream, LoggedRequest("registry", request.method, path, request.headers))

    def _authorize(self, request: LoggedRequest) -> Answer | None:
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        if self.auth == "basic":
            challenge = 'Basic realm="fake"'
            if scheme.lower() == "basic" and self._user(value):
                return None
        else:
            path = urlsplit(request.path).path
            match = re.fullmatch(r"/v2/(.+)/(?:manifests|blobs)/.*", path)
            scope = f',scope="repository:{match[1]}:pull"' if match else ""
            challenge = f'Bearer realm="{self.token_scheme}://{self.token_host}/token",service="fake"{scope}'
            if scheme.lower() == "bearer" and self.tokens.get(value, float("-inf")) > trio.current_time():
                return None
        refused = refusal(401, "UNAUTHORIZED")
        refused.headers["www-authenticate"] = self.challenge or challenge
        return refused

    def _user(self, encoded: str) -> bool:
        name, _, password = base64.b64decode(encoded).decode().partition(":")
        return name in self.users and self.users[name] == password

    def _token(self, request: LoggedRequest) -> Answer:
        if request.method == "POST":
            form = parse_qs(request.body.decode())
            if form.get("refresh_token", [""])[0] not in self.identity_tokens.values():
                return Answer(401, {})
        else:
            scheme, _, value = request.headers.get("authorization", "").partition(" ")
            if (scheme or self.users or self.identity_tokens) and not (
                scheme.lower() == "basic" and self._user(value)
            ):
                return Answer(401, {})
        token = f"token-{len(self.log)}"
        asked = parse_qs(urlsplit(request.path).query) | parse_qs(request.body.decode())
        self.scopes.append(asked.get("scope", []))
        self.tokens[token] = trio.current_time() + self.token_seconds
        document = {"token": token, "access_token": token, "expires_in": int(self.token_seconds)}
        return Answer(200, {"content-type": "application/json"}, json.dumps(document).encode())

    def _control(self, request: LoggedRequest) -> Answer:
        document: object = [
            {"kind": fault.kind, "path": fault.path, "times": fault.times, "hits": fault.hits}
            for fault in self.faults
        ]
        if request.path == "/_fake/log":
            document = [{"method": entry.method, "path": entry.path} for entry in self.log]
        elif request.path == "/_fake/script":
            self.script = RandomFaults(**json.loads(request.body)) if request.method == "POST" else None
        elif request.path != "/_fake/faults":
            return refusal(404, "NOT_FOUND")
        elif request.method == "POST":
            self.faults.append(Fault.from_json(json.loads(request.body)))
        elif request.method == "DELETE":
            self.faults.clear()
        return Answer(200, {"content-type": "application/json"}, json.dumps(document).encode())

    # Sending.

    async def _send(
        self,
        connection: h11.Connection,
        stream: trio.abc.Stream,
        answer: Answer,
        faults: list[Fault],
        method: str,
    ) -> None:
        if isinstance(answer.body, bytes) and "content-length" not in answer.headers and answer.status != 204:
            answer.headers["content-length"] = str(len(answer.body))
        for fault in faults:
            if fault.kind == "headers":
                for name, value in fault.headers.items():
                    answer.headers.pop(name.lower(), None)
                    if value is not None:
                        answer.headers[name.lower()] = value
            elif fault.kind in ("unframed", "chunked"):
                answer.headers.pop("content-length", None)
                framing = {"unframed": ("connection", "close"), "chunked": ("transfer-encoding", "chunked")}
                answer.headers.update([framing[fault.kind]])
            elif fault.kind == "length" and isinstance(answer.body, bytes):
                await _lie(stream, answer, answer.body, fault)
        response = h11.Response(status_code=answer.status, headers=list(answer.headers.items()))
        await stream.send_all(connection.send(response) or b"")
        sent = 0
        if method == "HEAD":
            answer.body = b""
        for fault in faults:
            if fault.kind in ("corrupt", "swap") and isinstance(answer.body, bytes) and answer.body:
                answer.body = _changed(answer.body, fault)
        async with aclosing(_pieces(answer.body)) as pieces:
            async for whole in pieces:
                piece = _flip(whole, answer.blob_offset + sent, faults)
                for fault in faults:
                    if fault.kind in ("truncate", "unframed", "reset", "stall") and fault.at is not None:
                        if sent + len(piece) >= fault.at:
                            rest = piece[: fault.at - sent]
                            await stream.send_all(connection.send(h11.Data(data=rest)) or b"")
                            await _break(stream, fault.kind)
                    elif fault.kind == "drip":
                        for start in range(0, len(piece), fault.at or 1):
                            await trio.sleep(fault.seconds)
                            part = piece[start : start + (fault.at or 1)]
                            await stream.send_all(connection.send(h11.Data(data=part)) or b"")
                        piece = b""
                        sent += len(whole)
                if piece:
                    await stream.send_all(connection.send(h11.Data(data=piece)) or b"")
                    sent += len(piece)
        await stream.send_all(connection.send(h11.EndOfMessage()) or b"")


async def _lie(stream: trio.abc.Stream, answer: Answer, body: bytes, fault: Fault) -> None:
    """Past h11, which would not."""
    answer.headers["content-length"] = str(max(0, len(body) + (fault.at or 0)))
    lines = [f"HTTP/1.1 {answer.status} As told", *(f"{name}: {value}" for name, value in answer.headers.items())]
    await stream.send_all("\r\n".join([*lines, "", ""]).encode() + body)
    raise BrokenError


def _changed(body: bytes, fault: Fault) -> bytes:
    if fault.kind == "swap":
        middle = len(body) // 2
        return body[middle:] + body[:middle]
    changed = bytearray(body)
    changed[(fault.at or 0) % len(body)] ^= 1
    return bytes(changed)


def _flip(piece: bytes, offset: int, faults: list[Fault]) -> bytes:
    wrong = [at - offset for fault in faults if fault.kind == "flip" for at in fault.offsets]
    if not any(0 <= at < len(piece) for at in wrong):
        return piece
    changed = bytearray(piece)
    for at in wrong:
        if 0 <= at < len(changed):
            changed[at] ^= 1
    return bytes(changed)


async def _pieces(body: bytes | AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    if isinstance(body, bytes):
        for start in range(0, len(body) or 1, _PIECE):
            yield body[start : start + _PIECE]
        return
    async with aclosing(body):
        async for piece in body:
            yield piece


async def _break(stream: trio.abc.Stream, kind: str) -> None:
    if kind == "stall":
        await _wait_for_the_end(stream)
    if kind == "reset":
        lowest = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
        assert isinstance(lowest, trio.SocketStream)
        lowest.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raise BrokenError


async def _wait_for_the_end(stream: trio.abc.Stream) -> None:
    while await stream.receive_some(_PIECE):
        pass
    raise BrokenError


def main(arguments: Sequence[str] | None = None) -> None:
    """The process; prints its addresses as JSON in one line, then serves until it is ended."""
    parser = argparse.ArgumentParser(prog="python -m tests.fakes.registry", description=__doc__)
    parser.add_argument("--to", metavar="HOST:PORT", help="a real registry; without it, an empty one")
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--redirect-blobs", action="store_true", help="to URLs that expire, on another port")
    parser.add_argument("--auth", choices=("basic", "bearer"))
    parser.add_argument("--user", action="append", default=[], metavar="NAME:PASSWORD")
    parser.add_argument("--token-seconds", type=float, default=300.0)
    parser.add_argument("--random-faults", type=int, metavar="SEED", help="for each request, see fault_scripts.py")
    parser.add_argument("--fault", action="append", default=[], metavar="JSON", help="see faults.py")
    given = parser.parse_args(arguments)
    fake = FakeRegistry(
        auth=given.auth,
        users=dict(user.split(":", 1) for user in given.user),
        token_seconds=given.token_seconds,
        redirect_blobs=given.redirect_blobs,
        upstream=given.to,
        port=given.port,
        address=given.address,
    )
    if given.random_faults is not None:
        fake.script = RandomFaults(given.random_faults)
    fake.faults += [Fault.from_json(json.loads(fault)) for fault in given.fault]

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(fake.serve)
            hosts = {"host": fake.host, "storage": fake.storage_host, "token": fake.token_host}
            print(json.dumps(hosts), flush=True)

    with suppress(KeyboardInterrupt):
        trio.run(run)


if __name__ == "__main__":
    main()
