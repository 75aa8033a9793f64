"""A TCP proxy that makes loopback behave like a network link, with counters.

Every byte is delayed by half the round-trip time in each direction, and what flows from the server to the
client is limited to one shared bandwidth, as on a host with one uplink.

    python3 -m benchmarks.link --to 127.0.0.1:5000 --listen 127.0.0.1:5001 --rtt-ms 10 --mbit 100

The first line that it prints tells where it listens (port 0 takes a free one). Each line on standard input
is answered by one JSON line with the counters since the last one: `down_bytes` from the server, `up_bytes` to
it, `connections`, `requests`. The end of standard input, SIGINT or SIGTERM end the program.

A link is no part of the machine: with the privilege, this process runs before others, and a block that had to
wait until there was room in the link counts as sent when there was room, not when this process noticed.
"""

import argparse
import contextlib
import json
import math
import os
import select
import signal
import socket
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import IO

BLOCK = 64 * 1024
_UNLIMITED_WINDOW = 64
_PRIORITY = -15

_Selectable = socket.socket | IO[str]


@dataclass(slots=True)
class Counters:
    """What crossed the link since the counters were read last."""

    down_bytes: int = 0
    up_bytes: int = 0
    connections: int = 0
    requests: int = 0


class Link:
    """One shared downstream pipe: a departure time that bytes queue up behind."""

    def __init__(self, mbit: float, rtt_ms: float) -> None:
        self.bytes_per_second = mbit * 1e6 / 8
        """0: unlimited."""
        self.half_rtt_seconds = rtt_ms / 2000
        # Blocks that one connection may have under way: enough to fill the pipe, and few enough that a bulk
        # transfer does not make the others wait long behind it.
        in_pipe = 4 * self.half_rtt_seconds * self.bytes_per_second / BLOCK
        self.window = max(4, math.ceil(in_pipe)) if mbit else _UNLIMITED_WINDOW
        self.counters = Counters()
        self._free_at = 0.0

    def arrival(self, size: int, downstream: bool, ready: float) -> float:
        """When a block of `size` bytes that is ready then comes out at the far end (monotonic seconds)."""
        if downstream and self.bytes_per_second:
            self._free_at = max(self._free_at, ready) + size / self.bytes_per_second
            ready = self._free_at
        return ready + self.half_rtt_seconds

    def count(self, data: bytes, downstream: bool) -> None:
        if downstream:
            self.counters.down_bytes += len(data)
        else:
            self.counters.up_bytes += len(data)
            self.counters.requests += data.count(b" HTTP/1.1\r\n")

    def report(self) -> None:
        """Prints the counters and begins anew."""
        print(json.dumps(asdict(self.counters)), flush=True)
        self.counters = Counters()


class Way:
    """One direction of a connection: what was read from `source` reaches `sink` when it is due."""

    __slots__ = ("_link", "_queue", "_room_since", "downstream", "ended", "sink", "sink_is_full", "source")

    def __init__(self, link: Link, source: socket.socket, sink: socket.socket, downstream: bool) -> None:
        self.source = source
        self.sink = sink
        self.downstream = downstream
        self.ended = False
        """Nothing more comes from the source; what is under way still arrives."""
        self.sink_is_full = False
        self._link = link
        self._queue: deque[tuple[float, memoryview]] = deque()
        self._room_since: float | None = None

    @property
    def has_room(self) -> bool:
        return not self.ended and len(self._queue) < self._link.window

    @property
    def is_over(self) -> bool:
        return self.ended and not self._queue

    @property
    def next_due(self) -> float:
        """When something is to be given to the sink; infinite while nothing is under way or the sink is full."""
        return self._queue[0][0] if self._queue and not self.sink_is_full else math.inf

    def take(self) -> None:
        """The source is readable. Raises OSError."""
        data = self.source.recv(BLOCK)
        self._link.count(data, self.downstream)
        ready = self._room_since or time.monotonic()
        self._room_since = None
        self._queue.append((self._link.arrival(len(data), self.downstream, ready), memoryview(data)))
        self.ended = not data

    def give(self, now: float) -> None:
        """Hand over what is due, until the sink takes no more. Raises OSError."""
        self.sink_is_full = False
        while self._queue and self._queue[0][0] <= now:
            due, data = self._queue[0]
            if not data:
                self.sink.shutdown(socket.SHUT_WR)
            else:
                try:
                    sent = self.sink.send(data)
                except BlockingIOError:
                    sent = 0
                if sent < len(data):
                    self._queue[0] = due, data[sent:]
                    self.sink_is_full = True
                    return
            if len(self._queue) == self._link.window:
                self._room_since = due
            self._queue.popleft()


class Connection:
    """Two ways; the far side is connected after the round trip that a handshake takes."""

    def __init__(self, link: Link, near: socket.socket) -> None:
        self.near = near
        self.far: socket.socket | None = None
        self.connect_at = time.monotonic() + 2 * link.half_rtt_seconds
        self.ways: tuple[Way, ...] = ()

    def connect(self, link: Link, address: tuple[str, int]) -> None:
        """Raises OSError."""
        self.connect_at = math.inf
        self.far = socket.create_connection(address)
        for end in (self.near, self.far):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.ways = (Way(link, self.near, self.far, False), Way(link, self.far, self.near, True))

    @property
    def is_over(self) -> bool:
        return bool(self.ways) and all(way.is_over for way in self.ways)

    def close(self) -> None:
        self.near.close()
        if self.far is not None:
            self.far.close()


class Proxy:
    """All connections, in one thread that sleeps to the microsecond (epoll would round up to milliseconds)."""

    def __init__(self, link: Link, server: socket.socket, far: tuple[str, int]) -> None:
        self._link = link
        self._server = server
        self._far = far
        self._connections: set[Connection] = set()

    def run(self) -> None:
        """Until standard input ends."""
        while True:
            readable: list[_Selectable] = [self._server, sys.stdin]
            writable: list[_Selectable] = []
            wake = math.inf
            for connection in self._connections:
                wake = min(wake, connection.connect_at)
                for way in connection.ways:
                    wake = min(wake, way.next_due)
                    if way.has_room:
                        readable.append(way.source)
                    if way.sink_is_full:
                        writable.append(way.sink)
            timeout = None if wake == math.inf else max(0.0, wake - time.monotonic())
            may_read, may_write, _ = select.select(readable, writable, [], timeout)
            if sys.stdin in may_read:
                if not sys.stdin.readline():
                    return
                self._link.report()
            if self._server in may_read:
                self._connections.add(Connection(self._link, self._server.accept()[0]))
                self._link.counters.connections += 1
            for connection in list(self._connections):
                self._serve(connection, may_read, may_write)

    def _serve(self, connection: Connection, may_read: list[_Selectable], may_write: list[_Selectable]) -> None:
        now = time.monotonic()
        try:
            if connection.connect_at <= now:
                connection.connect(self._link, self._far)
            for way in connection.ways:
                if way.source in may_read:
                    way.take()
                if way.next_due <= now or way.sink in may_write:
                    way.give(now)
            if not connection.is_over:
                return
        except OSError:  # one side has broken it off: so does the link
            pass
        connection.close()
        self._connections.remove(connection)

    def close(self) -> None:
        for connection in self._connections:
            connection.close()


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT")
    parser.add_argument("--to", required=True, metavar="HOST:PORT")
    parser.add_argument("--rtt-ms", type=float, default=0, help="round-trip time in milliseconds")
    parser.add_argument(
        "--mbit", type=float, default=0, help="downstream bandwidth in Mbit/s; 0 is unlimited"
    )
    arguments = parser.parse_args()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda number, frame: sys.exit(0))
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, _PRIORITY)
    with socket.create_server(_address(arguments.listen)) as server:
        host, port = server.getsockname()[:2]
        print(f"{host}:{port}", flush=True)
        proxy = Proxy(Link(arguments.mbit, arguments.rtt_ms), server, _address(arguments.to))
        try:
            proxy.run()
        finally:
            proxy.close()


if __name__ == "__main__":
    main()
