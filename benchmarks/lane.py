"""Requests and replies through the lane between the device and pyfuse3: the kernel beside its slow twin.

A socket pair stands for the device; one request is under way at a time, as for one reader.
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

CAPACITY = (1 << 20) + 4096
RUNS = 5


def round_trips(run: Callable[[int, int, int, int], str], reply_size: int, count: int) -> float:
    """Seconds per request and reply."""
    kernel, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    libfuse, pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    device.setblocking(False)
    stop = os.eventfd(0)
    thread = threading.Thread(target=run, args=(device.fileno(), pair.fileno(), stop, CAPACITY))
    thread.start()
    request, reply = bytes(80), bytes(reply_size)
    started = time.perf_counter()
    for _ in range(count):
        kernel.send(request)
        libfuse.recv(CAPACITY)
        libfuse.send(reply)
        kernel.recv(CAPACITY)
    seconds = (time.perf_counter() - started) / count
    os.eventfd_write(stop, 1)
    thread.join()
    for end in (kernel, device, libfuse, pair):
        end.close()
    os.close(stop)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=3000, help="round trips per sample")
    count = parser.parse_args().count
    print(f"a request of 80 bytes and its reply, µs (median of {RUNS})")
    print(f"{'':24}{'reply 128 B':>14}{'reply 64 KiB':>14}")
    for name, run in (("kernel", fuse_lane.run), ("slow twin", slow_lane.run)):
        cells = [
            statistics.median(round_trips(run, size, count) for _ in range(RUNS)) * 1e6 for size in (128, 64 << 10)
        ]
        print(f"{name:24}" + "".join(f"{cell:14.1f}" for cell in cells))


if __name__ == "__main__":
    main()
