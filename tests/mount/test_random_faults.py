"""Many readers of a mount while everything goes wrong on the way to the registry, by chance.

`FAULT_SECONDS=600 FAULT_SEED=7 pytest -s tests/mount/test_random_faults.py` is the long run.
"""

import base64
import errno
import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.fault_scripts import RandomFaults
from tests.fakes.images import KINDS, BuiltImage, File, build_layer, directory, put_image
from tests.fakes.registry import FakeRegistry

from .conftest import Daemon

SECONDS = float(os.environ.get("FAULT_SECONDS", "15"))
SEED = int(os.environ.get("FAULT_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
READERS = 16
HANG_SECONDS = 120.0
"""Much longer than any read may take: 5 s, and what a busy machine adds."""
RECOVERY_SECONDS = 90.0
MEMORY_BYTES = 512 << 20
"""What the supervisor and the worker may take together: 128 MiB of fetches, what is decoded, and the program."""
OPTIONS = ("--cache-size", "8M", "--read-timeout-seconds", "5", "--lookup-timeout-seconds", "5")


class Tree:
    """What the files must hold, and where they are mounted."""

    def __init__(self, daemon: Daemon, registry: FakeRegistry, chance: random.Random) -> None:
        self.files: dict[Path, bytes] = {}
        self.layers: dict[Path, Path] = {}
        """Where the layer of each file is mounted."""
        self.shown: set[Path] = set()
        """Layers of which something was read: they are there from then on."""
        self.images: list[BuiltImage] = []
        for name in ("team/app:v1", "team/other:v2"):
            layers = []
            contents: list[dict[str, bytes]] = []
            for kind in KINDS:
                files = {f"d/f{number}": chance.randbytes(int(2 ** chance.uniform(0, 19))) for number in range(60)}
                files["large"] = chance.randbytes(3_000_000)
                layers.append(build_layer([directory("d"), *(File(*item) for item in files.items())], kind))
                contents.append(files)
            image = put_image(registry, layers, name)
            self.images.append(image)
            for position, files in enumerate(contents):
                top = daemon.layer(image, position) / "diff"
                self.files |= {top / path: data for path, data in files.items()}
                self.layers |= {top / path: top for path in files}


def read(path: Path, offset: int, size: int, wanted: bytes) -> str | None:
    """Read past the kernel's own cache, to the end; what was wrong with the bytes. Raises OSError.

    Where only a later page fails, the kernel gives what is before it, and the error to who reads on.
    """
    done, descriptor = 0, os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        while part := os.pread(descriptor, size - done, offset + done):
            if part != wanted[done : done + len(part)]:
                return f"{path}: {len(part)} bytes at {offset + done} are not what was wanted"
            done += len(part)
    finally:
        os.close(descriptor)
    return None if done == len(wanted) else f"{path}: {done} bytes at {offset}, wanted {len(wanted)}"


class Reader(threading.Thread):
    """Reads anything until told to stop; counts right bytes and errors, keeps what must not happen."""

    def __init__(self, tree: Tree, seed: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.longest_seconds = 0.0
        self._tree = tree
        self._chance = random.Random(seed)
        self._stopped = stop
        self._paths = list(tree.files)

    def run(self) -> None:
        while not self._stopped.is_set():
            path = self._chance.choice(self._paths)
            data = self._tree.files[path]
            offset, size = 0, len(data) + 1
            if self._chance.random() < 0.5:
                offset = self._chance.randrange(len(data))
                size = self._chance.randrange(1, len(data) - offset + 1)
            started, layer = time.monotonic(), self._tree.layers[path]
            shown = layer in self._tree.shown
            try:
                wrong = read(path, offset, size, data[offset : offset + size])
            except OSError as error:
                self.counts[errno.errorcode[error.errno or 0]] += 1
                # A layer whose manifest came as garbage is not there, and podman pulls it: but never one that was.
                if error.errno != errno.EIO and (shown or error.errno != errno.ENOENT):
                    self.wrong.append(f"{path}: {error}")
            else:
                self.counts["right"] += 1
                self._tree.shown.add(layer)
                if wrong is not None:
                    self.wrong.append(wrong)
            self.longest_seconds = max(self.longest_seconds, time.monotonic() - started)


class Memory(threading.Thread):
    """The most that a process and its children take together, sampled."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.peak_bytes = 0
        self._pid = pid
        self._end = threading.Event()

    def run(self) -> None:
        while not self._end.wait(0.1):
            pids = [self._pid, *children(self._pid)]
            self.peak_bytes = max(self.peak_bytes, sum(map(resident_bytes, pids)))

    def stop(self) -> int:
        self._end.set()
        self.join()
        return self.peak_bytes


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:  # ended
        return []


def resident_bytes(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:  # ended
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def private() -> Iterator[FakeRegistry]:
    """Its tokens and its URLs of blobs expire."""
    private = FakeRegistry(auth="bearer", users={"me": "secret"}, token_seconds=5, redirect_blobs=True)
    with private.in_thread() as running:
        yield running


def test_every_read_gives_right_bytes_or_eio_and_afterwards_everything_is_readable(
    daemon: Daemon, private: FakeRegistry
) -> None:
    print(f"FAULT_SEED={SEED} FAULT_SECONDS={SECONDS:g}")
    chance = random.Random(SEED)
    credentials = base64.b64encode(b"me:secret").decode()
    (daemon.directory / "auth.json").write_text(json.dumps({"auths": {private.host: {"auth": credentials}}}))
    tree = Tree(daemon, private, chance)
    daemon.arguments = OPTIONS
    daemon.start("--log-level", "info")
    for position in range(len(KINDS)):  # those of the other image are opened while everything goes wrong
        (daemon.layer(tree.images[0], position) / "diff").stat()
    assert daemon.process is not None
    workers = children(daemon.process.pid)
    memory, stop = Memory(daemon.process.pid), threading.Event()
    memory.start()
    faults = private.script = RandomFaults(chance.randrange(1 << 32))
    readers = [Reader(tree, chance.randrange(1 << 32), stop) for _ in range(READERS)]
    for reader in readers:
        reader.start()
    stop.wait(SECONDS)
    stop.set()
    deadline = time.monotonic() + HANG_SECONDS
    for reader in readers:
        reader.join(max(0.0, deadline - time.monotonic()))
    assert not any(reader.is_alive() for reader in readers), "a read hangs"
    private.script = None

    assert [line for reader in readers for line in reader.wrong] == []
    counts: Counter[str] = sum((reader.counts for reader in readers), Counter())
    deadline = time.monotonic() + RECOVERY_SECONDS
    started = time.monotonic()
    for path, data in tree.files.items():
        while True:
            try:
                assert read(path, 0, len(data) + 1, data) is None
                break
            except OSError:
                assert time.monotonic() < deadline, f"{path} is still not readable\n{daemon.log_text()[-3000:]}"
                time.sleep(0.05)
    recovery, peak = time.monotonic() - started, memory.stop()
    print(
        f"reads {dict(counts)}, longest {max(reader.longest_seconds for reader in readers):.1f} s; "
        f"peak memory {peak / 1e6:.0f} MB; all {len(tree.files)} files readable within {recovery:.1f} s; "
        f"faults {dict(faults.done)}"
    )
    assert counts["right"] > 0
    assert sum(faults.done.values()) > 0
    assert peak < MEMORY_BYTES
    assert children(daemon.process.pid) == workers, "a worker died"
    log = daemon.log_text()
    assert "Traceback" not in log, log[max(0, log.index("Traceback") - 500) :][:8000]
    assert daemon.stop() == 0
