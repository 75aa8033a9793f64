"""The lane carries every message, whole and in order; a socket pair stands for the device here."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry_storage._ext import fuse_lane
from tests.reference import slow_lane

Run = Callable[[int, int, int, int], str]
CAPACITY = 1 << 16
messages = st.lists(st.binary(min_size=1, max_size=2000), max_size=60)


class Ends:
    """The kernel's end, libfuse's end, and the lane between them in a thread."""

    def __init__(self, run: Run) -> None:
        self.kernel, self.device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.libfuse, self.pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.stop = os.eventfd(0)
        self.device.setblocking(False)
        self.pair.setblocking(False)
        self.ending = ""
        self._thread = threading.Thread(target=self._carry, args=(run,))
        self._thread.start()

    def _carry(self, run: Run) -> None:
        self.ending = run(self.device.fileno(), self.pair.fileno(), self.stop, CAPACITY)

    def join(self) -> str:
        self._thread.join(20)
        assert not self._thread.is_alive()
        return self.ending

    def close(self) -> None:
        os.eventfd_write(self.stop, 1)
        self.join()
        for end in (self.kernel, self.device, self.libfuse, self.pair):
            end.close()
        os.close(self.stop)


@contextmanager
def lane(run: Run) -> Iterator[Ends]:
    ends = Ends(run)
    try:
        yield ends
    finally:
        ends.close()


both = pytest.mark.parametrize("run", [fuse_lane.run, slow_lane.run], ids=["kernel", "slow twin"])


@both
@settings(deadline=None, max_examples=40)
@given(requests=messages, replies=messages)
def test_what_goes_in_comes_out_whole_and_in_order(run: Run, requests: list[bytes], replies: list[bytes]) -> None:
    with lane(run) as ends:
        got: list[bytes] = []

        def answer() -> None:
            got.extend(ends.libfuse.recv(CAPACITY) for _ in requests)

        receiver = threading.Thread(target=answer)
        receiver.start()
        for request in requests:
            ends.kernel.send(request)
        for reply in replies:
            ends.libfuse.send(reply)
        assert [ends.kernel.recv(CAPACITY) for _ in replies] == replies
        receiver.join(20)
        assert got == requests


@both
def test_a_slow_reader_of_requests_does_not_hold_up_replies(run: Run) -> None:
    with lane(run) as ends:
        ends.kernel.setblocking(False)
        sent = 0
        try:
            while True:  # until every buffer on the way is full
                ends.kernel.send(sent.to_bytes(4, "little") * 250)
                sent += 1
        except BlockingIOError:
            pass
        ends.kernel.setblocking(True)
        ends.libfuse.send(b"reply")
        assert ends.kernel.recv(CAPACITY) == b"reply"
        for number in range(sent):
            assert ends.libfuse.recv(CAPACITY) == number.to_bytes(4, "little") * 250


@both
def test_it_says_what_ended_it(run: Run) -> None:
    for end, ending in (("kernel", "unmounted"), ("libfuse", "closed")):
        with lane(run) as ends:
            getattr(ends, end).shutdown(socket.SHUT_RDWR)
            assert ends.join() == ending
    with lane(run) as ends:
        os.eventfd_write(ends.stop, 1)
        assert ends.join() == "stopped"
