"""The simulated link: what it delays, limits and counts."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from benchmarks.link import BLOCK
from benchmarks.link import Link as Pipe
from lab.link import Link

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def far() -> Iterator[str]:
    """A server that sends back what it gets, then ends."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    while data := connection.recv(1 << 16):
                        connection.sendall(data)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def exchange(host: str, data: bytes) -> bytes:
    """What comes back for `data`, until the other side ends."""
    name, _, port = host.rpartition(":")
    with socket.create_connection((name, int(port)), timeout=60) as near:

        def send() -> None:
            near.sendall(data)
            near.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        parts = []
        while part := near.recv(1 << 16):
            parts.append(part)
        sender.join()
    return b"".join(parts)


@pytest.mark.parametrize(("mbit", "rtt_ms"), [(0.0, 0.0), (800.0, 4.0)])
def test_every_byte_arrives_in_order_and_is_counted(far: str, mbit: float, rtt_ms: float) -> None:
    data = REQUEST + bytes(range(256)) * 12_000 + REQUEST
    with Link(far, mbit=mbit, rtt_ms=rtt_ms) as link:
        assert exchange(link.host, data) == data
        crossed = link.crossed()
        assert (crossed.up_bytes, crossed.down_bytes) == (len(data), len(data))
        assert (crossed.connections, crossed.requests) == (1, 2)
        assert link.crossed().down_bytes == 0


def test_a_far_side_that_is_gone_ends_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with Link(f"127.0.0.1:{port}") as link:
        name, _, near_port = link.host.rpartition(":")
        with contextlib.suppress(ConnectionResetError), socket.create_connection((name, int(near_port)), 60) as near:
            assert near.recv(1) == b""
        assert link.crossed().connections == 1


def test_blocks_downstream_queue_behind_each_other_and_upstream_only_waits() -> None:
    pipe = Pipe(mbit=8.0, rtt_ms=10.0)
    assert pipe.arrival(1000, downstream=True, ready=5.0) == pytest.approx(5.006)
    assert pipe.arrival(1000, downstream=True, ready=5.0) == pytest.approx(5.007)
    assert pipe.arrival(1000, downstream=True, ready=6.0) == pytest.approx(6.006)
    assert pipe.arrival(1 << 20, downstream=False, ready=6.0) == pytest.approx(6.005)


def test_a_window_holds_what_the_pipe_needs() -> None:
    assert Pipe(mbit=1000.0, rtt_ms=20.0).window * BLOCK >= 1000e6 / 8 * 0.020
    assert Pipe(mbit=10.0, rtt_ms=1.0).window == 4
