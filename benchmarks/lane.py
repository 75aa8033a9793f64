"""Requests answered by the lane beside its slow twin, and beside the lane while a Python thread is busy.

A socket pair stands for the device, with a process of its own at the far end that has one request under way at a
time, as one reader does; so both pay for the same system calls. `benchmarks/serve` measures a real mount.
"""

import argparse
import json
import os
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from registry_storage.toc.index import TocIndex, build_index
from tests.fakes.lane import CAPACITY, Ends
from tests.reference.slow_lane import GETATTR, LOOKUP, READ, SlowLayer, read_body, request

RUNS = 5
FILES = 1000
NUMBER = 7
REQUESTS = {
    "lookup": request(LOOKUP, NUMBER << 32 | 1, b"file500\0"),
    "getattr": request(GETATTR, NUMBER << 32 | 2),
    "read 4 KiB": request(READ, NUMBER << 32 | 2, read_body(0, 4096)),
}


def layer() -> tuple[TocIndex, bytes]:
    """A directory of small files."""
    entries = [
        {"name": f"file{n}", "type": "reg", "size": 4096, "offset": n, "digest": "sha256:" + "1" * 64}
        for n in range(FILES)
    ]
    toc = json.dumps({"version": 1, "entries": entries}).encode()
    index = TocIndex(build_index(toc, blob_size=FILES + 100, toc_offset=FILES))
    return index, os.urandom(index.content_size)


def seconds_per_request(kernel: socket.socket, message: bytes, count: int) -> float:
    """Asked by a process of its own."""
    result, say = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            started = time.perf_counter()
            for _ in range(count):
                kernel.send(message)
                kernel.recv(CAPACITY)
            os.write(say, str((time.perf_counter() - started) / count).encode())
        finally:
            os._exit(0)
    seconds = float(os.read(result, 100))
    os.waitpid(child, 0)
    os.close(result)
    os.close(say)
    return seconds


@contextmanager
def by_the_lane(*, busy: bool) -> Iterator[socket.socket]:
    index, content = layer()
    done = threading.Event()
    with Ends() as ends:
        ends.add_layer(NUMBER, index, content, set(range(index.chunk_count)))
        if busy:
            threading.Thread(target=lambda: [None for _ in iter(done.is_set, True)]).start()
        yield ends.kernel
        done.set()


@contextmanager
def by_the_twin() -> Iterator[socket.socket]:
    index, content = layer()
    twin = SlowLayer(NUMBER, index, content, set(range(index.chunk_count)))
    kernel, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def serve() -> None:
        while message := device.recv(CAPACITY):
            device.send(twin.answer(message) or b"")

    thread = threading.Thread(target=serve)
    thread.start()
    yield kernel
    kernel.shutdown(socket.SHUT_RDWR)
    thread.join()
    kernel.close()
    device.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="requests per sample")
    count = parser.parse_args().count
    print(f"lane: one request at a time, µs (median of {RUNS})")
    print(f"{'':24}" + "".join(f"{name:>12}" for name in REQUESTS))
    rows: dict[str, Callable[[], AbstractContextManager[socket.socket]]] = {
        "lane": lambda: by_the_lane(busy=False),
        "lane, Python busy": lambda: by_the_lane(busy=True),
        "slow twin": by_the_twin,
    }
    for name, serving in rows.items():
        with serving() as kernel:
            cells = [
                statistics.median(seconds_per_request(kernel, message, count) for _ in range(RUNS)) * 1e6
                for message in REQUESTS.values()
            ]
        print(f"{name:24}" + "".join(f"{cell:12.1f}" for cell in cells))


if __name__ == "__main__":
    main()
