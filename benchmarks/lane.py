"""Requests and replies through the lane between the device and pyfuse3: the kernel beside its slow twin.

Socket pairs stand for the device and for libfuse, each with a process of its own at the far end; one request is
under way at a time, as for one reader. Then the same while a Python thread of the lane's process is busy.
"""

import argparse
import os
import socket
import statistics
import threading
import time
from collections.abc import Callable

from registry_storage._ext import fuse_lane
from tests.reference import slow_lane

Run = Callable[[int, int, int, int], str]
CAPACITY = (1 << 20) + 4096
REQUEST = bytes(80)
RUNS = 5


def in_child(work: Callable[[], None]) -> int:
    """Run `work` in a process of its own; its id."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


def round_trip(run: Run, reply_size: int, count: int, *, busy: bool) -> float:
    """Seconds per request and reply."""
    kernel, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    libfuse, pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    result, say = os.pipe()

    def answer() -> None:
        reply = bytes(reply_size)
        for _ in range(count):
            libfuse.recv(CAPACITY)
            libfuse.send(reply)

    def ask() -> None:
        started = time.perf_counter()
        for _ in range(count):
            kernel.send(REQUEST)
            kernel.recv(CAPACITY)
        os.write(say, str((time.perf_counter() - started) / count).encode())

    children = [in_child(answer), in_child(ask)]
    device.setblocking(False)
    stop, done = os.eventfd(0), threading.Event()
    lane = threading.Thread(target=run, args=(device.fileno(), pair.fileno(), stop, CAPACITY))
    lane.start()
    if busy:
        threading.Thread(target=lambda: [None for _ in iter(done.is_set, True)]).start()
    seconds = float(os.read(result, 100))
    done.set()
    os.eventfd_write(stop, 1)
    lane.join()
    for child in children:
        os.waitpid(child, 0)
    for end in (kernel, device, libfuse, pair):
        end.close()
    for descriptor in (stop, result, say):
        os.close(descriptor)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="round trips per sample")
    count = parser.parse_args().count
    columns = ((128, False), (64 << 10, False), (128, True))
    print(f"lane: a request of 80 bytes and its reply, µs (median of {RUNS})")
    print(f"{'':12}{'reply 128 B':>14}{'reply 64 KiB':>14}{'128 B, busy':>14}")
    runs: tuple[tuple[str, Run], ...] = (("kernel", fuse_lane.run), ("slow twin", slow_lane.run))
    for name, run in runs:
        cells = [
            statistics.median(round_trip(run, size, count, busy=busy) for _ in range(RUNS)) * 1e6
            for size, busy in columns
        ]
        print(f"{name:12}" + "".join(f"{cell:14.1f}" for cell in cells))


if __name__ == "__main__":
    main()
