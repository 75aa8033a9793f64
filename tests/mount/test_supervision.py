"""The mount outlives the process that serves it."""

import array
import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import httpx
import pytest

from tests.fakes.images import BuiltImage, File, build_layer, put_image
from tests.fakes.registry import FakeRegistry

from .conftest import Daemon

FILES = {f"d{n % 7}/f{n}": random.Random(n).randbytes(3000 * (n % 23) + 1) for n in range(300)}
PATIENCE_SECONDS = 60.0
MISTAKES = ('colour = "red"', 'metrics = "nowhere"', 'cache_size = "much"', 'control_group = "nobody-is-here"')
T = TypeVar("T")


@pytest.fixture
def image(registry: FakeRegistry) -> BuiltImage:
    return put_image(registry, [build_layer([File(name, data) for name, data in FILES.items()])])


def worker_of(daemon: Daemon) -> int:
    """The process id of the worker that serves; waits for one."""
    assert daemon.process is not None
    children = Path(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children")
    return int(eventually(lambda: children.read_text().split()[-1:])[0])


def eventually(look: Callable[[], T]) -> T:
    """What `look` finds, once it finds something."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def has_ended(pid: int) -> bool:
    """It is a process that its parent has not heard of yet."""
    return Path(f"/proc/{pid}/cmdline").read_bytes() == b""


def another_worker(daemon: Daemon, worker: int) -> None:
    """Wait until `worker` is gone and another one is there."""
    eventually(lambda: not Path(f"/proc/{worker}").exists() and worker_of(daemon) != worker)


def another_round(readers: "Readers", rounds: int) -> None:
    """Wait until one of them has read everything once more."""
    eventually(lambda: readers.rounds > rounds)


class Readers:
    """Threads that read every file again and again, past the kernel's cache, and compare."""

    def __init__(self, directory: Path) -> None:
        self.wrong: list[str] = []
        self.rounds = 0
        self._directory = directory
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._read, args=(seed,)) for seed in range(4)]

    def _read(self, seed: int) -> None:
        names = list(FILES)
        while not self._end.is_set():
            random.Random(seed).shuffle(names)
            for name in names:
                try:
                    file = os.open(self._directory / name, os.O_RDONLY)
                    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
                    data = b""
                    while part := os.read(file, 1 << 20):
                        data += part
                    os.close(file)
                    if hashlib.sha256(data).digest() != hashlib.sha256(FILES[name]).digest():
                        self.wrong.append(name)
                except OSError as error:
                    self.wrong.append(f"{name}: {error}")
            self.rounds += 1

    @contextmanager
    def running(self) -> Iterator["Readers"]:
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._end.set()
            for thread in self._threads:
                thread.join(PATIENCE_SECONDS)
                assert not thread.is_alive(), "a reader hangs"


def test_readers_do_not_notice_that_the_worker_is_killed(
    daemon: Daemon, registry: FakeRegistry, image: BuiltImage
) -> None:
    daemon.start()
    with Readers(daemon.layer(image) / "diff").running() as readers:
        for _ in range(6):
            worker, rounds = worker_of(daemon), readers.rounds
            time.sleep(random.uniform(0, 0.3))  # any moment will do
            os.kill(worker, signal.SIGKILL)
            another_worker(daemon, worker)
            another_round(readers, rounds)
    assert readers.wrong == []
    assert daemon.stop() == 0
    assert "ended by SIGKILL; the next one starts" in daemon.log_text()


def spare_of(worker: int) -> int:
    """The process id of the spare that a worker left; waits for one."""
    children = Path(f"/proc/{worker}/task/{worker}/children")
    return int(eventually(lambda: children.read_text().split()[-1:])[0])


def family(daemon: Daemon) -> set[int]:
    """The daemon's processes, ended ones that nobody has waited for included."""
    found = set()
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (directory / "cmdline").read_bytes()
            parent = int((directory / "stat").read_text().rpartition(")")[2].split()[1])
            if os.fsencode(daemon.mountpoint) in command or (daemon.process and parent == daemon.process.pid):
                found.add(int(directory.name))
    return found


def test_the_spare_serves_when_the_worker_dies_and_leaves_the_next_one(daemon: Daemon, image: BuiltImage) -> None:
    daemon.start()
    diff = daemon.layer(image) / "diff"
    assert daemon.process is not None
    for _ in range(3):
        worker = worker_of(daemon)
        spare = spare_of(worker)
        os.kill(worker, signal.SIGKILL)
        another_worker(daemon, worker)
        assert worker_of(daemon) == spare
        assert (diff / "d1/f1").read_bytes() == FILES["d1/f1"]
    assert family(daemon) == {daemon.process.pid, spare, spare_of(spare)}
    assert daemon.stop() == 0
    assert family(daemon) == set()


def test_without_a_spare_the_next_worker_is_loaded(daemon: Daemon, image: BuiltImage) -> None:
    daemon.start()
    worker = worker_of(daemon)
    spare = spare_of(worker)
    os.kill(spare, signal.SIGKILL)
    eventually(partial(has_ended, spare))
    os.kill(worker, signal.SIGKILL)
    another_worker(daemon, worker)
    assert (daemon.layer(image) / "diff/d1/f1").read_bytes() == FILES["d1/f1"]
    assert worker_of(daemon) != spare


def test_an_upgrade_leaves_no_spare_of_the_old_version(daemon: Daemon) -> None:
    daemon.start()
    assert daemon.process is not None
    worker = worker_of(daemon)
    spare = spare_of(worker)
    daemon.process.send_signal(signal.SIGHUP)
    another_worker(daemon, worker)
    eventually(lambda: not Path(f"/proc/{spare}").exists())
    new = worker_of(daemon)
    assert family(daemon) == {daemon.process.pid, new, spare_of(new)}


def test_all_processes_are_told_to_end_at_once_as_systemd_does(daemon: Daemon) -> None:
    for _ in range(4):
        daemon.start()
        assert daemon.process is not None
        spare = spare_of(worker_of(daemon))
        os.kill(daemon.process.pid, signal.SIGSTOP)  # so that it hears of everything in one go
        for pid in family(daemon) - {daemon.process.pid}:
            os.kill(pid, signal.SIGTERM)
        eventually(partial(has_ended, spare))
        daemon.process.send_signal(signal.SIGTERM)
        os.kill(daemon.process.pid, signal.SIGCONT)
        assert daemon.process.wait(20) == 0
        assert "Traceback" not in daemon.log_text()
        assert daemon.stop() == 0


def test_a_supervisor_that_dies_takes_the_spare_along(daemon: Daemon) -> None:
    daemon.start()
    assert daemon.process is not None
    spare = spare_of(worker_of(daemon))
    daemon.process.kill()
    daemon.process.wait()
    eventually(lambda: not Path(f"/proc/{spare}").exists())


def test_the_read_ahead_is_set_without_asking_the_mount(daemon: Daemon) -> None:
    """A killed worker that waits for its own answer would never end, and the next one waits for that end."""
    daemon.start()
    worker, device = worker_of(daemon), daemon.mountpoint.stat().st_dev
    setting = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    os.kill(worker, signal.SIGSTOP)
    try:
        program = "import sys, pathlib; from registry_storage.store import kernel\n"
        program += "kernel.set_read_ahead(pathlib.Path(sys.argv[1]), 2048)"
        subprocess.run([sys.executable, "-c", program, daemon.mountpoint], check=True, timeout=PATIENCE_SECONDS)
    finally:
        os.kill(worker, signal.SIGCONT)
    assert setting.read_text() == "2048\n"


def test_a_new_worker_takes_over_without_an_error(daemon: Daemon, image: BuiltImage) -> None:
    daemon.start()
    assert daemon.process is not None
    with Readers(daemon.layer(image) / "diff").running() as readers:
        for _ in range(3):
            worker, rounds = worker_of(daemon), readers.rounds
            daemon.process.send_signal(signal.SIGHUP)
            another_worker(daemon, worker)
            another_round(readers, rounds)
    assert readers.wrong == []
    assert "not as the last worker left it" not in daemon.log_text()
    assert daemon.stop() == 0


def upgrade(daemon: Daemon) -> subprocess.CompletedProcess[str]:
    """`registry-storagectl upgrade`."""
    words = [sys.executable, "-m", "registry_storage.ctl", "upgrade", "--root", str(daemon.root)]
    return subprocess.run(words, env=daemon.environment(), capture_output=True, text=True, check=False)


def test_a_new_worker_that_does_not_come_up_leaves_the_old_one_serving(
    daemon: Daemon, image: BuiltImage, tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    config.write_text("")
    daemon.start("--config", str(config))
    assert daemon.process is not None
    path = daemon.layer(image) / "diff" / "d1/f1"
    assert path.read_bytes() == FILES["d1/f1"]
    worker = worker_of(daemon)
    for number, mistake in enumerate(MISTAKES):
        config.write_text(mistake + "\n")
        failed = upgrade(daemon)
        assert failed.returncode == 1, mistake
        assert "the new version did not come up" in failed.stderr
        assert daemon.log_text().count("before it was ready: the old one goes on") == number + 1
        assert worker_of(daemon) == worker
    assert (path.parent / "f8").read_bytes() == FILES["d1/f8"]
    config.write_text("")
    done = upgrade(daemon)
    assert (done.returncode, done.stderr) == (0, "")
    assert " serves (it was " in done.stdout
    assert worker_of(daemon) != worker
    assert (path.parent / "f15").read_bytes() == FILES["d1/f15"]


def lane_count(daemon: Daemon, name: str) -> int:
    """A counter of the lane that serves now."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(daemon.root / "control.sock"))) as client:
        return int(client.get("http://daemon/v1/activity").raise_for_status().json()["lane"][name])


def first_byte(path: Path) -> int:
    """Past the kernel's cache."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        return os.pread(file, 1, 0)[0]
    finally:
        os.close(file)


def test_what_was_verified_is_not_hashed_again_by_the_next_worker(daemon: Daemon, image: BuiltImage) -> None:
    daemon.start("--log-level", "info")  # debug lets Python see each file's first read
    directory = daemon.layer(image) / "diff"
    for name in ("d1/f22", "d2/f2"):
        assert (directory / name).read_bytes() == FILES[name]
    worker = worker_of(daemon)
    os.kill(worker, signal.SIGKILL)
    another_worker(daemon, worker)
    assert first_byte(directory / "d1/f22") == FILES["d1/f22"][0]  # the layer is open from here on
    parked = lane_count(daemon, "parked")
    assert first_byte(directory / "d2/f2") == FILES["d2/f2"][0]
    assert lane_count(daemon, "parked") == parked, "the lane answered alone: the chunk counts as verified"
    assert "not as the last worker left it" not in daemon.log_text()


def test_what_somebody_wrote_between_two_workers_is_not_served(daemon: Daemon, image: BuiltImage) -> None:
    daemon.start()
    path = daemon.layer(image) / "diff" / "d1/f22"
    assert path.read_bytes() == FILES["d1/f22"]
    worker = worker_of(daemon)
    os.kill(worker, signal.SIGSTOP)  # nobody of ours looks from here on
    (content,) = daemon.root.glob("layers/*/content")
    before = content.stat()
    with content.open("r+b") as file:
        at = file.read().index(FILES["d1/f22"])
        file.seek(at)
        file.write(bytes([FILES["d1/f22"][0] ^ 1]))
    os.utime(content, ns=(before.st_atime_ns, before.st_mtime_ns))  # as if nothing had been written
    os.kill(worker, signal.SIGKILL)
    another_worker(daemon, worker)
    assert first_byte(path) == FILES["d1/f22"][0]
    assert path.read_bytes() == FILES["d1/f22"]
    assert daemon.log_text().count("content is not as the last worker left it: it is hashed again") == 1


@pytest.fixture
def kept_by_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], dict[str, int]]]:
    """Descriptors that a daemon which has just started gave to its descriptor store, by name."""
    kept: dict[str, int] = {}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(PATIENCE_SECONDS)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))

        def take() -> dict[str, int]:
            while True:
                text, rights, _, _ = systemd.recvmsg(300, socket.CMSG_SPACE(4))
                if text.startswith(b"READY=1"):
                    return kept
                if rights:
                    name = dict(line.split("=", 1) for line in text.decode().splitlines())["FDNAME"]
                    kept[name] = array.array("i", rights[0][2])[0]

        yield take
    for descriptor in kept.values():
        with suppress(OSError):
            os.close(descriptor)


def stop_for_good(daemon: Daemon, kept: dict[str, int]) -> None:
    """As systemd drops the descriptors of a service that is stopped."""
    for descriptor in kept.values():
        os.close(descriptor)
    assert daemon.stop() == 0
    assert not os.path.ismount(daemon.mountpoint)


def test_the_mount_outlives_the_supervisor_where_systemd_keeps_its_descriptors(
    daemon: Daemon, image: BuiltImage, kept_by_systemd: Callable[[], dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.start()
    kept = kept_by_systemd()
    path = daemon.layer(image) / "diff" / "d2/f2"
    # After one FLUSH the kernel knows that there is none; a child that closes its copy of the file must not wait.
    assert (path.parent / "f16").read_bytes() == FILES["d2/f16"]
    with path.open("rb") as file:
        daemon.stop(signal.SIGKILL)
        restart_as_systemd_does(daemon, kept, monkeypatch)
        assert file.read() == FILES["d2/f2"], "a file that was open all the time"
    assert "the mount of an earlier daemon goes on" in daemon.log_text()
    assert (path.parent / "f9").read_bytes() == FILES["d2/f9"]
    stop_for_good(daemon, kept)


def test_a_restart_by_systemd_keeps_the_mount_and_a_stop_does_not(
    daemon: Daemon, image: BuiltImage, kept_by_systemd: Callable[[], dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    program, jobs = daemon.directory / "bin/systemctl", daemon.directory / "jobs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n[ $1 = list-jobs ] && cat {jobs}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("REGISTRY_STORAGE_UNIT", "ours.service")
    daemon.start()
    kept = kept_by_systemd()
    path = daemon.layer(image) / "diff" / "d2/f2"
    assert (path.parent / "f16").read_bytes() == FILES["d2/f16"]
    jobs.write_text("7 other.service stop running\n8 ours.service restart running\n")
    with path.open("rb") as file:
        assert daemon.stop() == 0
        assert "the mount stays for the next daemon" in daemon.log_text()
        restart_as_systemd_does(daemon, kept, monkeypatch)
        assert file.read() == FILES["d2/f2"], "a file that was open all the time"
    jobs.write_text("9 other.service restart waiting\n10 ours.service stop running\n")
    stop_for_good(daemon, kept)


def test_a_daemon_that_cannot_start_leaves_the_mount_to_the_next_one(
    daemon: Daemon, image: BuiltImage, kept_by_systemd: Callable[[], dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.start()
    kept = kept_by_systemd()
    path = daemon.layer(image) / "diff" / "d2/f2"
    assert (path.parent / "f16").read_bytes() == FILES["d2/f16"]
    with path.open("rb") as file:
        daemon.stop(signal.SIGKILL)
        right, daemon.arguments = daemon.arguments, (*daemon.arguments, "--metrics", "nowhere")
        with pytest.raises(AssertionError, match="wanted host:port"):
            restart_as_systemd_does(daemon, kept, monkeypatch)
        daemon.arguments = right
        restart_as_systemd_does(daemon, kept, monkeypatch)
        assert file.read() == FILES["d2/f2"]
    for descriptor in kept.values():
        os.close(descriptor)
    assert daemon.stop() == 0


def restart_as_systemd_does(daemon: Daemon, kept: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Descriptors from 3 on, named in the environment of exactly this process (sd_listen_fds(3))."""
    moves = "; ".join(f"exec {3 + number}<&{descriptor}" for number, descriptor in enumerate(kept.values()))
    script = f"{moves}; export LISTEN_PID=$$ LISTEN_FDS={len(kept)}; exec \"$@\""
    monkeypatch.setenv("LISTEN_FDNAMES", ":".join(kept))
    real = subprocess.Popen

    def with_descriptors(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        return real(["bash", "-c", script, "bash", *command], pass_fds=tuple(kept.values()), **options)  # type: ignore[call-overload,no-any-return]

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", with_descriptors)
        daemon.start()


def test_a_worker_that_is_killed_before_any_served_is_followed_by_the_next_one(
    daemon: Daemon, image: BuiltImage
) -> None:
    starting = threading.Thread(target=daemon.start)
    starting.start()
    eventually(lambda: daemon.process)
    os.kill(worker_of(daemon), signal.SIGKILL)
    starting.join()
    assert "ended by SIGKILL; the next one starts in 0 s" in daemon.log_text()
    assert (daemon.layer(image) / "diff" / "d1/f1").read_bytes() == FILES["d1/f1"]
    assert daemon.stop() == 0
