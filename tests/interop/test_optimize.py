"""An optimized image begins with what its workload reads, and hardly anything else is fetched to run it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab import images, make
from lab.daemon import Daemon
from lab.link import Crossed, Link
from lab.podman import Podman
from lab.registry import Registry, registry_of
from registry_storage.descriptor import Manifest
from registry_storage.formats.prefetch_ranges import PREFETCH_ANNOTATION, BlobRange, parse_ranges
from tests.interop.stand import Laboratory

MOST_OF_NEEDED = 1.3
MORE_REQUESTS = 5
"""For what is read this time and was not when it was recorded."""
LARGE = 256 << 10


@dataclass(frozen=True)
class Case:
    """An image and what it is for."""

    image: str
    command: tuple[str, ...]
    until: str | None = None
    """A line of the output that says that it is ready; None: it ends by itself."""


PYTHON = Case("python", ("python3", "-c", "import json, numpy; print(numpy.arange(5).sum())"))
NODE = Case("node", ("node", "-e", "console.log(JSON.stringify(require('os').constants.errno).length)"))
SERVER = Case("redis", ("redis-server", "--save", "", "--port", "7777"), "Ready to accept connections")
CASES = (PYTHON, NODE, SERVER)


@pytest.fixture(scope="module")
def writable(laboratory: Laboratory) -> Iterator[Registry]:
    """A registry of our own with the gzip images that are optimized."""
    make.make([f"image/{case.image}" for case in CASES])
    own = laboratory.scratch / "optimized"
    with registry_of(own / "storage", own / "registry") as registry:
        for case in CASES:
            source = f"docker://{laboratory.registry.host}/{images.IMAGES[case.image].tag}"
            copy = ["skopeo", "copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false"]
            subprocess.run([*copy, source, f"docker://{registry.host}/{case.image}:gz"], check=True)
        yield registry


def control(registry: Registry, scratch: Path, *words: str) -> None:
    """`registry-storagectl` with the lab's configuration of podman; it leaves nothing behind."""
    podman = Podman(scratch, registry.host)
    environment = os.environ | {
        key: value
        for key, value in podman.environment.items()
        if key.startswith("CONTAINERS_") and key != "CONTAINERS_STORAGE_CONF"
    }
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    work = scratch / "work"
    work.mkdir()
    environment["TMPDIR"] = str(work)
    done = subprocess.run(
        [sys.executable, "-m", "registry_storage.ctl", *words],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(work.iterdir()) == []


def crossed(registry: Registry, home: Path, image: str, case: Case | None) -> Crossed:
    """What it takes to pull an image lazily and to run it until it is ready; without a case, only to pull it."""
    options = ("--no-background-fetch", *(() if case else ("--no-prefetch",)))
    with Link(registry.host) as link:
        with Daemon(home / "root", home / "mnt", link.host, log=home / "log", options=options):
            podman = Podman(home / "podman", link.host, store=home / "mnt")
            try:
                podman.pull(image)
                assert not podman.layers().full
                if case is not None:
                    _run_until_ready(podman, image, case)
            finally:
                podman.close()
        return link.crossed()


def _run_until_ready(podman: Podman, image: str, case: Case) -> None:
    if case.until is None:
        podman.run_image(image, *case.command)
        return
    podman.run("run", "-d", "--network=none", "--name=server", podman.name(image), *case.command)
    for _ in range(200):
        if case.until in podman.run("logs", "server").stdout:
            return
    raise AssertionError("the server never became ready")


def contents(registry: Registry, home: Path, image: str, case: Case) -> tuple[int, int]:
    """Requests and bytes for contents: what running needs beyond manifests, configs, TOCs and what podman asks."""
    run, pull = crossed(registry, home / "run", image, case), crossed(registry, home / "pull", image, None)
    return run.requests - pull.requests, run.down_bytes - pull.down_bytes


def needed_ranges(registry: Registry, image: str) -> list[BlobRange]:
    """What the image's annotations say."""
    inspected = subprocess.run(
        ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{registry.host}/{image}"],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    layers = Manifest.parse(inspected, image).layers
    texts = [(layer.annotations.get(PREFETCH_ANNOTATION), layer.size) for layer in layers]
    return [part for text, blob in texts if text for part in parse_ranges(text, blob)]


def part_read(line: dict[str, Any], size: int) -> float:
    """Which part of a file is read, at least: pages that are read twice count once."""
    pages = {page for start, length in line["ranges"] for page in range(start // 4096, -(-(start + length) // 4096))}
    return len(pages) * 4096 / size


@pytest.mark.parametrize(
    ("case", "option"),
    [
        pytest.param(PYTHON, "--zstd-chunked", id="python"),
        pytest.param(NODE, "--zstd-chunked", id="node", marks=pytest.mark.thorough),
        pytest.param(SERVER, "--estargz", id="server"),
    ],
)
def test_an_optimized_image_needs_what_it_says_and_hardly_more(
    writable: Registry, laboratory: Laboratory, tmp_path: Path, case: Case, option: str
) -> None:
    source, record = f"{writable.host}/{case.image}:gz", tmp_path / "record"
    plain, optimized = f"{case.image}:plain{option}", f"{case.image}:opt{option}"
    control(writable, tmp_path / "a", "convert", option, "--oci", source, f"{writable.host}/{plain}")
    words = ["--args", " ".join(f"'{word}'" for word in case.command), "--record-out", str(record)]
    words += ["--wait-on-line", case.until] if case.until else []
    control(writable, tmp_path / "b", "optimize", option, "--oci", *words, source, f"{writable.host}/{optimized}")

    recorded = [json.loads(line) for line in record.read_text().splitlines()]
    listed = subprocess.run(
        [sys.executable, "-m", "registry_storage.ctl", "inspect", "--toc", f"{writable.host}/{optimized}"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for position, toc in enumerate(tocs(listed)):
        sizes = {
            entry["name"].removeprefix("./"): entry["size"]
            for entry in toc["entries"]
            if entry["type"] == "reg" and entry.get("size")
        }
        names = list(sizes)
        lines = {line["path"]: line for line in recorded if line["layerIndex"] == position and line["path"] in sizes}
        landmark = names.index(".prefetch.landmark")
        small = [path for path in lines if sizes[path] < LARGE]
        assert [name for name in names[:landmark] if name in small] == small
        for name in names[landmark:]:
            assert name not in lines or part_read(lines[name], sizes[name]) < 0.51

    requests, bytes_before = contents(writable, tmp_path / "plain", plain, case)
    after, size = contents(writable, tmp_path / "optimized", optimized, case)
    ranges = needed_ranges(writable, optimized)
    needed = sum(length for _, length in ranges)
    print(
        f"{case.image}: {requests} requests for contents and {bytes_before / 1e6:.2f} MB as converted, {after} and "
        f"{size / 1e6:.2f} MB optimized, {len(ranges)} and {needed / 1e6:.2f} MB of them foreseen"
    )
    assert after <= len(ranges) + MORE_REQUESTS
    assert size <= min(MOST_OF_NEEDED * needed, bytes_before)


def tocs(text: str) -> list[dict[str, list[dict[str, Any]]]]:
    """The JSON documents in what `inspect --toc` prints."""
    decoder, found, at = json.JSONDecoder(), [], 0
    while (at := text.find("{", at)) >= 0:
        try:
            document, at = decoder.raw_decode(text, at)
        except ValueError:
            at += 1
            continue
        if "entries" in document:
            found.append(document)
    return found
