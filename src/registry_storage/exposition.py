"""Serves the metrics to whoever scrapes them: OpenMetrics or Prometheus' text, over TCP or a Unix socket."""

import logging
import socket
import stat
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import h11
import trio
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .errors import ConfigError

_log = logging.getLogger(__name__)
_REQUEST_SECONDS = 10.0
_MAX_CONNECTIONS = 16
_PATHS = ("/", "/metrics")


class Gauges(Collector):
    """Values that others keep, asked for at each scrape.

    Names that end in ``_total`` are counters; they began with this process, and say so (``_created``).
    """

    def __init__(self, measure: Callable[[], dict[str, tuple[str, float]]]) -> None:
        """`measure`: name to (help, value)."""
        self._measure = measure
        self._created = time.time()

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client."""
        for name, (text, value) in self._measure().items():
            if name.endswith("_total"):
                yield CounterMetricFamily(name.removesuffix("_total"), text, value=value, created=self._created)
            else:
                yield GaugeMetricFamily(name, text, value=value)


def check(address: str) -> None:
    """``host:port``, or a path that begins with a slash. Raises ConfigError."""
    if not address.startswith("/"):
        _host_and_port(address)


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    try:
        return host.strip("[]") or "127.0.0.1", int(port)
    except ValueError:
        raise ConfigError(f"metrics: wanted host:port or a path, got {address!r:.100}") from None


def listen(address: str) -> socket.socket:
    """At ``host:port`` or at a path that begins with a slash. Raises ConfigError."""
    try:
        if address.startswith("/"):
            return _listen_at_path(Path(address))
        name, port = _host_and_port(address)
        family = socket.AF_INET6 if ":" in name else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((name, port))
    except OSError as error:
        raise ConfigError(f"metrics: {address}: {error.strerror or error}") from None
    listener.listen(_MAX_CONNECTIONS)
    return listener


def _listen_at_path(path: Path) -> socket.socket:
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ConfigError(f"metrics: {path}: something else is there")
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    listener.bind(str(path))
    path.chmod(0o660)
    listener.listen(_MAX_CONNECTIONS)
    return listener


async def serve(listener: socket.socket, registry: CollectorRegistry) -> None:
    """Answer until cancelled."""
    accepting = trio.socket.from_stdlib_socket(listener)
    free = trio.Semaphore(_MAX_CONNECTIONS)
    with accepting:
        async with trio.open_nursery() as nursery:
            while True:
                await free.acquire()
                try:
                    connection, _ = await accepting.accept()
                except OSError as error:
                    free.release()
                    _log.warning("metrics: %s", error.strerror)
                    await trio.sleep(1)
                    continue
                nursery.start_soon(_converse, connection, registry, free)


async def _converse(connection: trio.socket.SocketType, registry: CollectorRegistry, free: trio.Semaphore) -> None:
    try:
        async with trio.SocketStream(connection) as stream:
            with trio.move_on_after(_REQUEST_SECONDS):
                await _answer(stream, registry)
    except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError, OSError) as error:
        _log.debug("metrics: a client left: %s", error)
    finally:
        free.release()


async def _answer(stream: trio.SocketStream, registry: CollectorRegistry) -> None:
    http = h11.Connection(h11.SERVER)
    while (event := http.next_event()) is h11.NEED_DATA:
        http.receive_data(bytes(await stream.receive_some(16 << 10)))
    if not isinstance(event, h11.Request):
        return
    headers = dict(event.headers)
    status, kind, body = 200, "text/plain", b""
    if event.target.decode("ascii", "replace").partition("?")[0] not in _PATHS:
        status, body = 404, b"the metrics are at /metrics\n"
    elif event.method not in (b"GET", b"HEAD"):
        status, body = 405, b"wanted GET\n"
    else:
        encode, kind = choose_encoder(headers.get(b"accept", b"").decode("latin-1"))
        body = encode(registry)
    fields = [("Content-Type", kind), ("Content-Length", str(len(body))), ("Connection", "close")]
    data = http.send(h11.Response(status_code=status, headers=fields)) or b""
    if event.method != b"HEAD":
        data += http.send(h11.Data(data=body)) or b""
    await stream.send_all(data)
