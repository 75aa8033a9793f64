"""The additional image store under load, as root: `python -m benchmarks.images cycles|kills|ends|speed`.

    cycles   100 times an image is added or removed, in random order, while four loops run and list images
    kills    50 times the worker is killed while an image is added or removed, under the same load
    ends     50 times the supervisor is killed instead, and with it the mount; four loops list images, and a container
             runs after each new start
    speed    `add` of a plain image beside podman's own pull: seconds, disk use, memory of the daemon
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab import converters, images, places
from lab.image_host import ImageHost
from lab.podman import Podman
from lab.registry import Registry

KEPT = converters.tag("python", "gzip")
OTHERS = [converters.tag(name, kind) for name in ("redis", "gcc", "odd") for kind in ("gzip", "estargz", "zstd")]


class Load:
    """Four loops of podman, of which `runs` run a command and the others list images. What fails is counted."""

    def __init__(self, podman: Podman, runs: int = 2) -> None:
        self._words = [run_words(podman)] * runs + [("images",)] * (4 - runs)
        self.count: Counter[str] = Counter()
        self.failures: list[str] = []
        self._podman = podman
        self._end = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._loop, args=words) for words in self._words]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._end.set()
            for thread in threads:
                thread.join()

    def _loop(self, *words: str) -> None:
        while not self._end.is_set():
            self.once(*words)

    def once(self, *words: str) -> None:
        """One command of podman's."""
        done = self._podman.run(*words, allow_failure=True)
        self.count[words[0]] += 1
        if done.returncode:
            self.failures.append(f"podman {words[0]}: {done.stderr.strip()[-500:]}")


def run_words(podman: Podman) -> tuple[str, ...]:
    """A container of the image that is never removed."""
    return "run", "--rm", "--pull=never", "--network=none", podman.name(KEPT), "true"


def toggle(host: ImageHost, chance: random.Random, added: set[str]) -> list[str]:
    """A command that adds an image or removes one."""
    image = chance.choice(OTHERS)
    verb = "remove" if image in added else "add"
    (added.discard if verb == "remove" else added.add)(image)
    return [verb, host.podman.name(image)]


def cycles(host: ImageHost, count: int) -> None:
    load, chance, added = Load(host.podman), random.Random(1), set[str]()
    with load.running():
        for _ in range(count):
            host.ctl(*toggle(host, chance, added))
    finish(host, load, f"{count} cycles")


def kills(host: ImageHost, count: int) -> None:
    load, chance = Load(host.podman), random.Random(2)
    with load.running():
        for _ in range(count):
            with asking(host, chance):
                for worker in Path(f"/proc/{host.daemon.pid}/task/{host.daemon.pid}/children").read_text().split():
                    os.kill(int(worker), signal.SIGKILL)
    finish(host, load, f"{count} kills of the worker")


def ends(host: ImageHost, count: int) -> None:
    load, chance = Load(host.podman, runs=0), random.Random(3)
    with load.running():
        for _ in range(count):
            with asking(host, chance):
                os.kill(host.daemon.pid, signal.SIGKILL)
            host.daemon.kill()
            host.daemon.start()
            load.once(*run_words(host.podman))
    finish(host, load, f"{count} kills of the supervisor")


@contextmanager
def asking(host: ImageHost, chance: random.Random) -> Iterator[None]:
    """Ask for something, once the daemon answers again; what is inside happens at any moment of it."""
    while True:
        try:
            host.ctl("list")
            break
        except subprocess.CalledProcessError:  # no worker yet: those that die early are followed after a pause
            time.sleep(0.1)
    words = [chance.choice(("add", "remove")), host.podman.name(chance.choice(OTHERS))]
    command = [sys.executable, "-m", "registry_storage.ctl", *words, "--root", os.fspath(host.daemon.root)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as started:
        time.sleep(chance.uniform(0.2, 1.5))
        yield
        started.wait()


def finish(host: ImageHost, load: Load, what: str) -> None:
    """Remove everything; then nothing may be left."""
    while True:
        names = [line.split("\t")[0] for line in host.ctl("list").stdout.splitlines()]
        if not names:
            break
        host.ctl("remove", *names)
    overlay, deadline = host.store / "overlay", time.monotonic() + 120
    while (left := sorted(os.listdir(overlay))) != ["l"] and time.monotonic() < deadline:
        time.sleep(0.1)
    print(f"{what}: {dict(load.count)}, {len(load.failures)} failed; left in the store: {left}")
    for failure, count in Counter(load.failures).most_common(10):
        print(f"{count} times: {failure}")


def speed(host: ImageHost, scratch: Path, registry: Registry) -> None:
    image = converters.tag("app", "gzip")
    other = Podman(scratch / "pulling", registry.host)
    try:
        pulls, adds = [], []
        for _ in range(3):
            started = time.monotonic()
            other.pull(image)
            pulls.append(time.monotonic() - started)
            unpacked = _disk_bytes(other.graph / "overlay")
            other.run("rmi", "-a", "-f")
            started = time.monotonic()
            host.ctl("add", host.podman.name(image))
            adds.append(time.monotonic() - started)
            kept = _disk_bytes(host.daemon.root / "layers")
            peak = max(_peak_kib(pid) for pid in _processes(host.daemon.pid))
            host.ctl("remove", host.podman.name(image))
            host.daemon.stop()
            shutil.rmtree(host.daemon.root)
            shutil.rmtree(host.store)
            host.daemon.start()
    finally:
        other.close()
    print(f"podman pull {sorted(pulls)[1]:.2f} s, add {sorted(adds)[1]:.2f} s (medians of 3)")
    print(f"disk: podman {unpacked / 1e6:.1f} MB, ours {kept / 1e6:.1f} MB")
    print(f"peak memory of the daemon: {peak / 1024:.0f} MiB")


def _processes(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def _peak_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def _disk_bytes(path: Path) -> int:
    return int(subprocess.run(["du", "-s", "-B1", path], capture_output=True, check=True, text=True).stdout.split()[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("cycles", "kills", "ends", "speed"))
    parser.add_argument("--count", type=int, default=0)
    given = parser.parse_args()
    with (
        places.scratch("images-benchmark") as scratch,
        Registry(images.registry_storage(), scratch / "registry", readonly=True) as registry,
    ):
        host = ImageHost(scratch, registry.host, "host", "--images-grace-seconds", "3")
        try:
            if given.what == "speed":
                speed(host, scratch, registry)
            else:
                host.ctl("add", host.podman.name(KEPT))
                run, usual = {"cycles": (cycles, 100), "kills": (kills, 50), "ends": (ends, 50)}[given.what]
                run(host, given.count or usual)
        finally:
            host.close()


if __name__ == "__main__":
    main()
