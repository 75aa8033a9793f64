"""The cache stays within its budget, and a full disk fails no read."""

import hashlib
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry_storage.control.client import connect
from registry_storage.errors import DaemonError
from tests.fakes.images import BuiltImage, File, build_layer, put_image
from tests.fakes.registry import FakeRegistry

from .conftest import Daemon

MEBIBYTE = 1 << 20
FILES = {f"file{number}": os.urandom(300_000 if number % 2 else 1_000) for number in range(240)}
"""36 MB."""
SIZES = (1_000, 30_000, 500_000, 3_000_000)
MANY = 115
BUDGET = 10 * MEBIBYTE
IN_FLIGHT = 24 * MEBIBYTE
"""What was fetched within the last half second may stay: at most 16 MiB, and ranges of 8 MiB that are being written."""


@pytest.fixture
def image(registry: FakeRegistry) -> BuiltImage:
    names = list(FILES)
    layers = [build_layer([File(name, FILES[name]) for name in part]) for part in (names[:120], names[120:])]
    return put_image(registry, layers)


def read_past_the_kernel(path: Path) -> bytes:
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return file.read()


def read_all(daemon: Daemon, image: BuiltImage) -> None:
    for position in range(2):
        for path in (daemon.layer(image, position) / "diff").iterdir():
            assert read_past_the_kernel(path) == FILES[path.name], path.name


def bytes_of(number: int) -> bytes:
    """Of a file of the large image."""
    return random.Random(number).randbytes(SIZES[number % 4])


def used(daemon: Daemon) -> int:
    return sum(path.stat().st_blocks * 512 for path in daemon.root.glob("layers/*/content"))


class Watch(threading.Thread):
    """Notes the most that the cache took."""

    def __init__(self, daemon: Daemon) -> None:
        super().__init__()
        self.most = 0
        self._daemon = daemon
        self._end = threading.Event()

    def run(self) -> None:
        while not self._end.wait(0.01):
            self.most = max(self.most, used(self._daemon))

    def stop(self) -> int:
        self._end.set()
        self.join()
        return self.most


def test_a_tenth_of_an_image_is_enough_to_read_it_three_times(daemon: Daemon, registry: FakeRegistry) -> None:
    digests = [hashlib.sha256(bytes_of(number)).digest() for number in range(MANY)]
    parts = range(MANY // 2), range(MANY // 2, MANY)
    layers = [build_layer([File(str(number), bytes_of(number)) for number in part]) for part in parts]
    whole = sum(SIZES[number % 4] for number in range(MANY))
    assert whole > 9 * BUDGET
    assert whole > 2 * (BUDGET + IN_FLIGHT), "a cache that lets nothing go would pass"
    image = put_image(registry, layers)
    daemon.start("--cache-size", str(BUDGET))
    watch = Watch(daemon)
    watch.start()
    try:
        for _ in range(3):
            for position, part in enumerate(parts):
                for number in part:
                    data = read_past_the_kernel(daemon.layer(image, position) / f"diff/{number}")
                    assert hashlib.sha256(data).digest() == digests[number], number
    finally:
        most = watch.stop()
    assert most <= BUDGET + IN_FLIGHT
    assert "error:" not in daemon.log_text()


@pytest.fixture
def small_disk(daemon: Daemon, tmp_path: Path) -> Iterator[Path]:
    """The daemon's root is on a disk of its own, with room for 16 MB."""
    daemon.root.mkdir()
    with (tmp_path / "disk").open("wb") as disk:
        disk.truncate(20 * MEBIBYTE)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", tmp_path / "disk"], check=True)
    subprocess.run(["mount", "-o", "loop", tmp_path / "disk", daemon.root], check=True)
    try:
        daemon.root.chmod(0o700)
        room = os.statvfs(daemon.root)
        assert 12 * MEBIBYTE < room.f_bavail * room.f_frsize < 18 * MEBIBYTE
        yield daemon.root
    finally:
        if daemon.process is not None:
            daemon.stop()
        subprocess.run(["umount", "-l", daemon.root], check=True)


def fill(disk: Path) -> None:
    """To the last byte."""
    with pytest.raises(OSError, match="No space"), (disk / "filler").open("wb", buffering=0) as filler:  # noqa: PT012
        while True:
            filler.write(bytes(MEBIBYTE))


def test_a_disk_that_is_too_small_for_the_budget_shrinks_the_cache(
    daemon: Daemon, image: BuiltImage, small_disk: Path
) -> None:
    daemon.start("--cache-size", "1G", "--keep-free", "0")
    for _ in range(2):
        read_all(daemon, image)
    assert "error:" not in daemon.log_text()


def test_a_disk_that_others_fill_to_the_last_byte_fails_no_read(
    daemon: Daemon, image: BuiltImage, small_disk: Path
) -> None:
    daemon.start("--cache-size", "1G", "--keep-free", "0")
    for position in range(2):
        (daemon.layer(image, position) / "diff").stat()
    fill(small_disk)
    read_all(daemon, image)
    assert "readers are served from memory" in daemon.log_text()
    assert used(daemon) < MEBIBYTE
    (small_disk / "filler").unlink()
    read_all(daemon, image)
    assert used(daemon) > MEBIBYTE


def test_a_disk_that_others_fill_in_the_middle_of_reading_fails_no_read(
    daemon: Daemon, image: BuiltImage, small_disk: Path
) -> None:
    daemon.start("--cache-size", "1G", "--keep-free", "0")
    for round_ in range(2):
        paths = [path for position in range(2) for path in (daemon.layer(image, position) / "diff").iterdir()]
        for number, path in enumerate(paths):
            if number == len(paths) // 4:
                assert used(daemon) > MEBIBYTE
                fill(small_disk)
            if number == len(paths) * 3 // 4:
                (small_disk / "filler").unlink()
            assert read_past_the_kernel(path) == FILES[path.name], (round_, path.name)
    assert "error:" not in daemon.log_text()


def ctl(daemon: Daemon, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "registry_storage.ctl", *words, "--root", str(daemon.root)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


async def test_prune_spares_what_is_pinned_and_verify_finds_what_is_damaged(
    daemon: Daemon, registry: FakeRegistry
) -> None:
    images = [
        put_image(registry, [build_layer([File("file", os.urandom(200_000))])], f"team/{name}:v1") for name in "ab"
    ]
    daemon.start()
    for one in images:
        (daemon.layer(one) / "diff/file").read_bytes()
        with pytest.raises(FileNotFoundError):
            (daemon.layer(one) / "use").touch()
    async with connect(daemon.root / "control.sock") as client:
        await client.post("/v1/cache/pin", {"reference": images[0].reference})
        with pytest.raises(DaemonError, match="no such image here"):
            await client.post("/v1/cache/pin", {"reference": "localhost/nothing:1"})
        listed = ctl(daemon, "cache", "ls").stdout
        assert f"{images[0].reference}  pinned\n" in listed
        assert f"{images[1].reference}\n" in listed
        assert ctl(daemon, "cache", "prune", "--all").stdout.strip().endswith("MB freed")
        assert 200_000 <= used(daemon) < 400_000
        cache = await client.get("/v1/cache")
        assert cache["pinned"] == [images[0].reference]
        assert cache["evicted_bytes"] >= 200_000
        (content,) = (path for path in daemon.root.glob("layers/*/content") if path.stat().st_blocks)
        data = bytearray(content.read_bytes())
        data[100_000] ^= 1
        content.write_bytes(data)
        damaged = ctl(daemon, "cache", "verify")
        assert damaged.returncode == 1
        assert "1 damaged" in damaged.stdout
        assert [line["damaged"] async for line in client.lines("POST", "/v1/cache/verify") if "done" in line] == [0, 0]
        await client.post("/v1/cache/unpin", {"reference": images[0].reference})
        await client.post("/v1/cache/prune", {"all": True})
    assert used(daemon) == 0
