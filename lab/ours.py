"""Our own converter, as a person runs it."""

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from lab import images, places, processes
from lab.podman import Podman
from lab.registry import fetch_blob, manifest_at, push_document, push_manifest
from lab.workloads import WORKLOADS, Workload

FORMATS: Mapping[str, str] = {
    "ours-estargz": "--estargz",
    "ours-zstd": "--zstd-chunked",
    "ours-stargz": "--zstd-chunked=stargz",
}
"""The option for each format; every kind of layer that we write."""

BENCHED = ("estargz", "estargz-optimized", "zstd", "zstd-optimized")
"""What hellobench measures: two formats, each converted only and optimized for the image's workload."""
BENCHED_VERSION = 1
"""Raised when the converter makes other images, so that the laboratory's are made anew."""
OPTIMIZED_VERSION = 2
"""The same for the optimized ones."""


def benched_tag(workload: str, image_format: str) -> str:
    """The name in the registry, without the host, of an image that hellobench runs."""
    return f"bench/{image_format}/{workload}:1"


def benched_recipe(workload: str, image_format: str) -> str:
    """What identifies the content of such an image."""
    task = WORKLOADS[workload]
    done, version = f"converted, starts {task.words}", BENCHED_VERSION
    if image_format.endswith("-optimized"):
        done, version = f"{task.words} until {task.ready!r}, starts it", OPTIMIZED_VERSION
    return f"{images.IMAGES[task.image].recipe}\n{image_format} {version}, {done}"


def make_benched(workload: str, image_format: str, registry_host: str) -> None:
    """Converts or optimizes the workload's gzip image into `benched_tag`."""
    task = WORKLOADS[workload]
    kind, _, optimized = image_format.partition("-")
    names = (
        f"{registry_host}/{images.IMAGES[task.image].tag}",
        f"{registry_host}/{benched_tag(workload, image_format)}",
    )
    option = {"estargz": "--estargz", "zstd": "--zstd-chunked"}[kind]
    with tempfile.TemporaryDirectory(prefix="ours-", dir=places.lab_directory()) as work:
        if not optimized:
            run(Path(work), "convert", option, "--oci", *names)
            _starts(registry_host, benched_tag(workload, image_format), task)
            return
        podman = Podman(Path(work) / "podman", registry_host)
        watched = ("--args", shlex.join(task.words), "--wait-on-line", task.ready, "--period", "120")
        try:
            words = command("optimize", option, "--oci", *watched, *names)
            # Of podman's configuration all but its storage, which the command makes for itself.
            settings = {"CONTAINERS_CONF", "CONTAINERS_REGISTRIES_CONF"} & podman.environment.keys()
            more = {name: podman.environment[name] for name in settings}
            processes.run(words, environment=environment(Path(work), **more))
            _starts(registry_host, benched_tag(workload, image_format), task)
        finally:
            podman.close()


def _starts(registry_host: str, tag: str, workload: Workload) -> None:
    """Has the image's config start the workload, as an application's image does."""
    repository, manifest = tag.rpartition(":")[0], manifest_at(registry_host, tag)
    config = json.loads(fetch_blob(registry_host, repository, manifest["config"]["digest"]))
    config["config"]["Cmd"] = list(workload.words)
    kind = manifest["config"]["mediaType"]
    manifest["config"] = push_document(registry_host, repository, json.dumps(config).encode(), kind)
    push_manifest(registry_host, tag, manifest)


def command(*words: str | os.PathLike[str]) -> list[str]:
    """The words that run ``registry-storagectl words…``."""
    return [sys.executable, "-m", "registry_storage.ctl", *(os.fspath(word) for word in words)]


def environment(work: Path, **more: str) -> dict[str, str]:
    """Its temporary files below `work`; loopback registries need no configuration."""
    return {"PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": os.fspath(work), **more}


def run(work: Path, *words: str | os.PathLike[str], directory: Path | None = None, **more: str) -> str:
    """What it says on standard output; raises ProgramError when it fails."""
    return processes.run(command(*words), environment=environment(work, **more), directory=directory).stdout


def stopped_after(work: Path, seconds: float, number: signal.Signals, *words: str) -> int:
    """The exit status after a signal at that moment; the end of its own accord may come first."""
    process = subprocess.Popen(
        command(*words),
        env={**os.environ, **environment(work)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
        return process.wait(30)
    finally:
        process.kill()
        process.wait()
