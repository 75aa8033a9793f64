"""A TCP proxy that makes loopback behave like a network link, with counters.

Every byte is delayed by half the round-trip time in each direction, and what flows from the server to the
client is limited to one shared bandwidth, as on a host with one uplink.

    python3 -m benchmarks.link --to 127.0.0.1:5000 --listen 127.0.0.1:5001 --rtt-ms 10 --mbit 100

The first line that it prints tells where it listens (port 0 takes a free one). Each line on standard input
is answered by one JSON line with the counters since the last one: `down_bytes` from the server, `up_bytes` to
it, `connections`, `requests`. The end of standard input, SIGINT or SIGTERM end the program.
"""

import argparse
import asyncio
import contextlib
import json
import math
import selectors
import signal
import sys
import time
from dataclasses import asdict, dataclass

BLOCK = 64 * 1024
_UNLIMITED_WINDOW = 64

Queue = asyncio.Queue[tuple[float, bytes] | None]


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

    def arrival(self, size: int, downstream: bool) -> float:
        """When a block of `size` bytes that is ready now comes out at the far end (monotonic seconds)."""
        now = time.monotonic()
        if downstream and self.bytes_per_second:
            self._free_at = max(self._free_at, now) + size / self.bytes_per_second
            now = self._free_at
        return now + self.half_rtt_seconds

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


async def _take(reader: asyncio.StreamReader, queue: Queue, link: Link, downstream: bool) -> None:
    while data := await reader.read(BLOCK):
        await queue.put((link.arrival(len(data), downstream), data))
    await queue.put(None)


async def _give(queue: Queue, writer: asyncio.StreamWriter, link: Link, downstream: bool) -> None:
    while item := await queue.get():
        due, data = item
        if (wait := due - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        link.count(data, downstream)
        writer.write(data)
        await writer.drain()
    writer.write_eof()


async def _carry(
    link: Link, near: tuple[asyncio.StreamReader, asyncio.StreamWriter], far_host: str, far_port: int
) -> None:
    """One connection, until both sides have ended it or one has broken it off."""
    near_reader, near_writer = near
    link.counters.connections += 1
    writers = [near_writer]
    try:
        await asyncio.sleep(2 * link.half_rtt_seconds)  # the handshake of the far connection
        far_reader, far_writer = await asyncio.open_connection(far_host, far_port)
        writers.append(far_writer)
        async with asyncio.TaskGroup() as group:  # an error on one side ends both directions
            ways = ((near_reader, far_writer, False), (far_reader, near_writer, True))
            for source, sink, downstream in ways:
                queue: Queue = asyncio.Queue(link.window)
                group.create_task(_take(source, queue, link, downstream))
                group.create_task(_give(queue, sink, link, downstream))
    except* OSError:
        pass
    finally:
        for writer in writers:
            with contextlib.suppress(OSError):
                writer.close()


async def _serve(arguments: argparse.Namespace) -> None:
    link = Link(arguments.mbit, arguments.rtt_ms)
    far_host, far_port = _address(arguments.to)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _carry(link, (reader, writer), far_host, far_port)

    near_host, near_port = _address(arguments.listen)
    server = await asyncio.start_server(accept, near_host, near_port)
    end = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, end.set)

    def command() -> None:
        if sys.stdin.readline():
            link.report()
        else:
            end.set()

    loop.add_reader(sys.stdin, command)
    async with server:
        host, port = server.sockets[0].getsockname()[:2]
        print(f"{host}:{port}", flush=True)
        await end.wait()


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def _precise_loop() -> asyncio.AbstractEventLoop:
    """An event loop that sleeps to the microsecond; epoll would round up to milliseconds."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


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
    with asyncio.Runner(loop_factory=_precise_loop) as runner:
        runner.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
