"""Containers that read a tree of many files while something happens to the daemon below them."""

import hashlib
import io
import json
import random
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import converters, processes
from lab.podman import Podman
from lab.registry import Registry, fetch_blob, manifest_at, push_blob, push_document, push_manifest
from registry_storage.convert import LayerKind, WriteOptions, write_layer

TAG = "load/tree:1"
READER = Path(__file__).with_name("reader.py")
PATIENCE_SECONDS = 120.0
"""A reader that does nothing for so long hangs."""
RUN_SECONDS = 7200.0
"""Of a container, at most: how long it reads is the test's affair."""


def put_tree(source_host: str, registry: Registry, directory: Path, files: int) -> None:
    """Put an image into `registry`: the laboratory's python below a layer with /tree of so many files.

    `directory` gets `digests`, made from the source, for the readers.
    """
    base = converters.tag("python", "estargz")
    repository = base.rpartition(":")[0]
    manifest = manifest_at(source_host, base)
    target = TAG.rpartition(":")[0]
    config: dict[str, Any] = json.loads(fetch_blob(source_host, repository, manifest["config"]["digest"]))
    for layer in manifest["layers"]:
        push_blob(registry.host, target, layer["digest"], fetch_blob(source_host, repository, layer["digest"]))
    directory.mkdir(parents=True)
    source, blob = directory / "tree.tar", directory / "tree.blob"
    _write_tar(source, directory / "digests", files)
    with source.open("rb") as reading, blob.open("w+b") as writing:
        written = write_layer(reading, writing, WriteOptions(LayerKind.ESTARGZ))
    descriptor = written.descriptor
    push_blob(registry.host, target, str(descriptor.digest), blob.read_bytes())
    source.unlink()
    blob.unlink()
    config["rootfs"]["diff_ids"].append(str(written.diff_id))
    config.setdefault("history", []).append({"created_by": "tree"})
    manifest["config"] = push_document(
        registry.host, target, json.dumps(config).encode(), manifest["config"]["mediaType"]
    )
    manifest["layers"].append({
        "mediaType": descriptor.media_type, "digest": str(descriptor.digest), "size": descriptor.size,
        "annotations": dict(descriptor.annotations),
    })  # fmt: skip
    push_manifest(registry.host, TAG, manifest)


def _write_tar(path: Path, digests: Path, files: int) -> None:
    """Most are small, as in images; every fiftieth is up to 200 kB."""
    source = random.Random(1)
    with tarfile.open(path, "w") as tar, digests.open("w") as listed:
        for number in range(files):
            name = f"d{number // 500}/f{number}"
            data = source.randbytes(source.randrange(200_000 if number % 50 == 0 else 2_000))
            info = tarfile.TarInfo(f"tree/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
            listed.write(f"{hashlib.sha256(data).hexdigest()} {name}\n")


@dataclass(frozen=True, slots=True)
class Pause:
    """A read that took long."""

    start: float
    end: float


class Containers:
    """Readers in containers of the image; `check` is the directory that they share with us."""

    def __init__(self, podman: Podman, check: Path, count: int) -> None:
        self._podman = podman
        self._check = check
        self._count = count
        self._failures: list[str] = []
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(count)]

    @contextmanager
    def running(self) -> Iterator["Containers"]:
        """All of them; at the end they are waited for. Raises AssertionError when one does not end."""
        (self._check / "reader.py").write_bytes(READER.read_bytes())
        (self._check / "end").unlink(missing_ok=True)
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            (self._check / "end").touch()
            for thread in self._threads:
                thread.join(PATIENCE_SECONDS)
        assert not any(thread.is_alive() for thread in self._threads), "a container hangs"

    def _run(self, number: int) -> None:
        try:
            self._podman.run(
                *("run", "--rm", "--network=none", "-v", f"{self._check}:/check"),
                *(self._podman.name(TAG), "python3", "/check/reader.py", str(number)),
                timeout_seconds=RUN_SECONDS,
            )
        except processes.ProgramError as error:
            self._failures.append(str(error))

    def done(self) -> list[int]:
        """Files that each of them has read."""
        found = [self._check / f"done.{number}" for number in range(self._count)]
        return [int(path.read_bytes() or b"0") if path.exists() else 0 for path in found]

    def wait_for_all(self, more: int = 2) -> None:
        """Until each has read so many files more. Raises AssertionError when one hangs."""
        before = self.done()
        wait_until(lambda: all(now >= then + more for now, then in zip(self.done(), before, strict=True)), "reading")

    def errors(self) -> list[str]:
        """Everything that went wrong."""
        return self._failures + [line for line in self._lines() if line.startswith("error")]

    def pauses(self) -> list[Pause]:
        """Reads that took long, of all readers."""
        return [Pause(*map(float, line.split()[1:])) for line in self._lines() if line.startswith("read")]

    def all_ended(self) -> bool:
        """Each came to its own end."""
        return self._lines().count("ended") == self._count

    def _lines(self) -> list[str]:
        return [line for path in sorted(self._check.glob("said.*")) for line in path.read_text().splitlines()]


def longest_after(events: list[float], pauses: list[Pause]) -> list[float]:
    """For each event the longest read, in seconds, that ended after it and before the next event."""
    found = []
    for event, following in zip(events, [*events[1:], float("inf")], strict=True):
        found.append(max((p.end - p.start for p in pauses if event <= p.end < following), default=0.0))
    return found


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Raises AssertionError when it does not come."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not {what} within {PATIENCE_SECONDS:g} s"
        time.sleep(0.01)
