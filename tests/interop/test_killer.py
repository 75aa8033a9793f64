"""Containers go on reading while the daemon's worker is killed, replaced, and killed again; so may podman be.

By hand, with a larger tree and more of it:
`KILLS=200 UPGRADES=20 PULL_KILLS=50 TREE_FILES=100000 pytest -s tests/interop/test_killer.py`
"""

import base64
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab import converters, processes
from lab.daemon import Daemon
from lab.podman import Podman
from lab.registry import Registry
from tests.interop.load import TAG, Containers, longest_after, put_tree, wait_until
from tests.interop.stand import Laboratory

KILLS = int(os.environ.get("KILLS", "4"))
PULL_KILLS = int(os.environ.get("PULL_KILLS", "2"))
UPGRADES = int(os.environ.get("UPGRADES", "2"))
TREE_FILES = int(os.environ.get("TREE_FILES", "400"))
CONTAINERS = 8
COLD_EVERY = 10
"""After so many kills the cache is emptied, so that the next ones come while everything is fetched again."""


@pytest.fixture(scope="module")
def tree(laboratory: Laboratory) -> Iterator[tuple[Registry, Path]]:
    """A registry with the image, and the directory with the digests of its files."""
    directory = laboratory.scratch / "tree"
    with Registry(directory / "storage", directory / "registry") as registry:
        put_tree(laboratory.registry.host, registry, directory / "check", TREE_FILES)
        yield registry, directory / "check"


class Bench:
    """A daemon with everything on, and a podman that uses it."""

    def __init__(self, registry: Registry, directory: Path, *options: str) -> None:
        self.daemon = Daemon(
            directory / "root", directory / "store", registry.host, log=directory / "daemon.log", options=options
        )
        self.daemon.start()
        # A first worker that ends before it served ends the daemon: there is nothing yet that could be lost.
        wait_until(lambda: self.serving() > 0, "serving")
        self.podman = Podman(directory / "podman", registry.host, store=directory / "store")

    def worker(self) -> int:
        """The process that serves; 0 while there is none."""
        children = Path(f"/proc/{self.daemon.pid}/task/{self.daemon.pid}/children").read_text().split()
        return int(children[-1]) if children else 0

    def kill_worker(self) -> float:
        """SIGKILL to whichever worker is there, once there is one; when that was (CLOCK_MONOTONIC)."""
        wait_until(lambda: self.worker() != 0, "a worker")
        try:
            os.kill(self.worker(), signal.SIGKILL)
        except ProcessLookupError:
            return self.kill_worker()
        return time.monotonic()

    def ctl(self, *words: str) -> str:
        """`registry-storagectl words…`; what it says."""
        command = [sys.executable, "-m", "registry_storage.ctl", *words, "--root", str(self.daemon.root)]
        return processes.run(command).stdout

    def serving(self) -> int:
        """How many workers began to serve so far."""
        return self.daemon.log_text().count("serving ")

    def close(self) -> None:
        self.podman.close()
        self.daemon.stop()


@contextmanager
def bench(registry: Registry, directory: Path, *options: str) -> Iterator[Bench]:
    one = Bench(registry, directory, *options)
    try:
        yield one
    except BaseException:
        print(one.daemon.log_tail(60))
        raise
    finally:
        one.close()


def fresh(check: Path) -> Path:
    """A directory for one test's readers, with the digests."""
    for old in [*check.glob("said.*"), *check.glob("done.*")]:
        old.unlink()
    return check


def tell(what: str, pauses: list[float]) -> None:
    """The figures, for those who run it by hand."""
    ordered = sorted(pauses)
    print(
        f"\n{what}: {len(pauses)}, longest read after each: median {statistics.median(ordered):.3f} s, "
        f"90 % {ordered[len(ordered) * 9 // 10]:.3f} s, longest {ordered[-1]:.3f} s"
    )


def test_containers_do_not_notice_that_the_worker_is_killed(tree: tuple[Registry, Path], tmp_path: Path) -> None:
    registry, check = tree
    chance = random.Random()
    with bench(registry, tmp_path) as one:
        kills = [one.kill_worker()]
        pulling = threading.Thread(target=one.podman.pull, args=(TAG,))
        pulling.start()
        for _ in range(KILLS // 8):  # while podman looks for layers, and they are opened
            time.sleep(chance.uniform(0, 1.0))
            kills.append(one.kill_worker())
        pulling.join()
        with Containers(one.podman, fresh(check), CONTAINERS).running() as readers:
            for _ in range(KILLS // 8):  # while the containers start
                time.sleep(chance.uniform(0, 1.0))
                kills.append(one.kill_worker())
            readers.wait_for_all()
            measured: list[float] = []
            while len(kills) + len(measured) < KILLS:
                if len(measured) % COLD_EVERY == 0:
                    one.ctl("cache", "prune", "--all")
                time.sleep(chance.uniform(0, 2.0))  # any moment will do
                served = one.serving()
                measured.append(one.kill_worker())
                wait_until(lambda served=served: one.serving() > served, "serving again")  # type: ignore[misc]
                readers.wait_for_all()
        assert readers.errors() == []
        assert readers.all_ended()
        tell("kills", longest_after(measured, readers.pauses()))
        print(f"{len(kills)} more while podman pulled and the containers started; {sum(readers.done())} files read")
        one.podman.remove_everything()


def test_containers_do_not_notice_upgrades(tree: tuple[Registry, Path], tmp_path: Path) -> None:
    registry, check = tree
    with bench(registry, tmp_path) as one:
        one.podman.pull(TAG)
        with Containers(one.podman, fresh(check), CONTAINERS).running() as readers:
            readers.wait_for_all()
            upgrades = []
            for _ in range(UPGRADES):
                upgrades.append(time.monotonic())
                one.ctl("upgrade")
                readers.wait_for_all()
        assert readers.errors() == []
        assert readers.all_ended()
        tell("upgrades", longest_after(upgrades, readers.pauses()))
        one.podman.remove_everything()


PULLED = [converters.tag(name, "estargz") for name in ("redis", "python", "gcc")]
"""They share their base, and the last one all that the second has."""


def kill_a_pull(podman: Podman, image: str, after_seconds: float) -> bool:
    """SIGKILL to podman and all that it started, so long after it began to pull; False: it had ended before."""
    command = ["podman", "pull", "-q", podman.name(image)]
    with subprocess.Popen(
        command, env=os.environ | podman.environment, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as pulling:  # fmt: skip
        try:
            pulling.wait(after_seconds)
        except subprocess.TimeoutExpired:
            os.killpg(pulling.pid, signal.SIGKILL)
            return True
    return False


def used_in(graph: Path) -> Counter[tuple[str, str]]:
    """(reference, digest) of the layers of ours that a graph root has, and how often."""
    found = [Path(marker.read_text()) for marker in graph.glob("overlay/*/additionallayer")]
    return Counter((base64.b64decode(path.parent.name).decode(), path.name) for path in found)


def counted(daemon: Daemon) -> Counter[tuple[str, str]]:
    """The same as the daemon has counted it."""
    counts: Counter[tuple[str, str]] = Counter()
    for reference, digest, count in daemon.uses():
        counts[reference, digest] += count
    return counts


def left_on_disk(root: Path) -> list[str]:
    """Whatever a root holds beside its lock and its socket: files, and records of images and layers."""
    files = [path for part in ("layers", "documents", "blobs") for path in (root / part).iterdir()]
    records = (line.partition(" ")[2] for line in (root / "ledger").read_text().splitlines())
    named = [record for record in records if {"image", "link"} & json.loads(record).keys()]
    return [str(path) for path in files] + named


def test_podman_is_killed_in_the_middle_of_pulls(laboratory: Laboratory, tmp_path: Path) -> None:
    chance = random.Random()
    with bench(laboratory.registry, tmp_path, "--keep-unused-hours", "0") as one:
        podman = one.podman
        started = time.monotonic()
        podman.pull(PULLED[-1])
        seconds = time.monotonic() - started
        podman.remove_everything()
        one.ctl("cache", "prune", "--all")
        killed, wrong = 0, 0
        while killed < PULL_KILLS:
            image = chance.choice(PULLED)
            if kill_a_pull(podman, image, chance.uniform(0, 1.1 * seconds)):
                killed += 1
                wrong += counted(one.daemon) != used_in(podman.graph)
            else:
                podman.run("rmi", podman.name(image))
        for image in PULLED:
            podman.pull(image)
        report = json.loads(one.ctl("repair", "--nobody-pulls", "--json"))["repair"]
        used = used_in(podman.graph)
        assert len(used) >= 4
        assert counted(one.daemon) == used
        assert podman.run_image(PULLED[1], "python3", "-c", "print(6 * 7)") == "42\n"
        print(f"\n{killed} pulls killed; counts were wrong after {wrong} of them; the last repair: {report}")
        podman.remove_everything()
        assert podman.run("images", "-a", "-q").stdout == ""
        assert used_in(podman.graph) == Counter()
        one.ctl("repair", "--nobody-pulls")
        one.daemon.restart()  # the directory of a layer that was open goes with its daemon
        wait_until(lambda: one.serving() > 1, "serving again")
        one.ctl("repair", "--nobody-pulls")
        assert left_on_disk(one.daemon.root) == []
