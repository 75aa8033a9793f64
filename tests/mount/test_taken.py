"""Requests that a worker took with it are ended where the kernel cannot deliver them again; the kernel asks anew."""

import errno
import os
import select
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from registry_storage._ext import fuse_lane
from registry_storage.store import kernel
from tests.reference.slow_lane import (
    ATTR,
    BATCH_FORGET,
    FORGET,
    GETATTR,
    IN_HEADER,
    INTERRUPT,
    LOOKUP,
    OUT_HEADER,
)

PATIENCE_MS = 20_000


@pytest.fixture
def device(tmp_path: Path) -> Iterator[int]:
    """Of a mount that nobody serves."""
    mountpoint = tmp_path / "mnt"
    mounted = kernel.mount_and_greet(mountpoint)
    try:
        yield mounted.device
    finally:
        kernel.unmount(mountpoint)
        os.close(mounted.device)


def take(device: int, wanted: int) -> int:
    """The number of the next request of this kind; what else comes is refused."""
    while True:
        poller = select.poll()
        poller.register(device, select.POLLIN)
        assert poller.poll(PATIENCE_MS), "no request came"
        with suppress(BlockingIOError):
            _, opcode, unique, *_ = IN_HEADER.unpack_from(os.read(device, 1 << 20))
            if opcode == wanted:
                return int(unique)
            if opcode == GETATTR:
                root = ATTR.pack(1, 0, 0, *6 * [0], 0o40755, 2, 0, 0, 0, 4096, 0)
                os.write(device, OUT_HEADER.pack(OUT_HEADER.size + 16 + len(root), 0, unique) + bytes(16) + root)
            elif opcode not in (FORGET, INTERRUPT, BATCH_FORGET):
                os.write(device, OUT_HEADER.pack(OUT_HEADER.size, -errno.ENOSYS, unique))


def test_a_look_up_that_was_lost_is_asked_again(device: int, tmp_path: Path) -> None:
    errors: list[int | None] = []

    def look() -> None:
        try:
            (tmp_path / "mnt/name").lstat()
        except OSError as error:
            errors.append(error.errno)

    looker = threading.Thread(target=look)
    looker.start()
    lost = take(device, LOOKUP)
    assert fuse_lane.fail_taken(device, lost, 1 << 20, errno.ESTALE) == 0, "those below were answered"
    assert fuse_lane.fail_taken(device, lost + 2, 1 << 20, errno.ESTALE) == 1
    again = take(device, LOOKUP)
    assert again > lost
    os.write(device, OUT_HEADER.pack(OUT_HEADER.size, -errno.ENOENT, again))
    looker.join(20)
    assert errors == [errno.ENOENT]


def test_no_more_numbers_are_tried_than_were_allowed(device: int, tmp_path: Path) -> None:
    looker = threading.Thread(target=lambda: os.path.lexists(tmp_path / "mnt/name"))
    looker.start()
    lost = take(device, LOOKUP)
    assert fuse_lane.fail_taken(device, lost + 12, 5, errno.ESTALE) == 0
    assert fuse_lane.fail_taken(device, lost + 12, 6, errno.ESTALE) == 1
    os.write(device, OUT_HEADER.pack(OUT_HEADER.size, -errno.ENOENT, take(device, LOOKUP)))
    looker.join(20)
    assert not looker.is_alive()
