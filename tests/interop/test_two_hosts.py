"""Hosts on a network: each with a podman and a daemon, the registry and a mirror of it on others."""

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lab import converters, images, network
from lab.daemon import Daemon
from lab.network import Host
from lab.podman import Podman
from lab.registry import Registry
from tests.interop.stand import Laboratory

PORT = 5000
_numbers = itertools.count()
IMAGE = converters.tag("redis", "zstd-old")


class Machine:
    """A host with a podman and a daemon that serves it."""

    def __init__(self, host: Host, home: Path, registry: str, mirror: str) -> None:
        self.daemon = Daemon(
            home / "root", home / "store", registry, log=home / "daemon.log", prefix=host.prefix,
            options=("--no-background-fetch", "--no-prefetch"),
        )  # fmt: skip
        conf = f'[[registry]]\nlocation = "{registry}"\ninsecure = true\n'
        conf += f'[[registry.mirror]]\nlocation = "{mirror}"\ninsecure = true\n'
        self.daemon.registries_conf.write_text(conf)
        self.daemon.start()
        self.podman = Podman(home / "podman", registry, store=self.daemon.mountpoint, prefix=host.prefix)
        (self.podman.home / "registries.conf").write_text(conf)

    def run(self) -> None:
        """A container that reads some of its image, whose layers podman did not download."""
        assert self.podman.run_image(IMAGE, "redis-server", "--version").startswith("Redis server")
        pulled = self.podman.layers()
        assert pulled.lazy
        assert not pulled.full

    def close(self) -> None:
        self.podman.close()
        self.daemon.stop()


@pytest.fixture
def origin(laboratory: Laboratory) -> Iterator[tuple[Registry, list[Host]]]:
    """A registry on the first of four hosts."""
    with network.hosts(4) as hosts:
        first = hosts[0]
        scratch = laboratory.scratch / "origin"
        with Registry(
            images.registry_storage(), scratch, readonly=True, port=PORT, address=first.address, prefix=first.prefix
        ) as registry:
            yield registry, hosts


@pytest.fixture
def new_machine(laboratory: Laboratory) -> Iterator[Callable[..., Machine]]:
    with ExitStack() as stack:

        def new(host: Host, registry: str, mirror: str) -> Machine:
            machine = Machine(host, laboratory.scratch / f"machine{next(_numbers)}", registry, mirror)
            stack.callback(machine.close)
            return machine

        yield new


def test_what_one_host_has_read_does_not_leave_the_registry_for_another_one(
    origin: tuple[Registry, list[Host]],
    laboratory: Laboratory,
    new_machine: Callable[..., Machine],
) -> None:
    registry, (first, second, third, fourth) = origin
    data = laboratory.scratch / "cache"
    with Registry(
        data / "storage", data, port=PORT, address=second.address, upstream=registry.host, prefix=second.prefix
    ) as cache:
        sent: list[int] = []
        for host in (third, fourth):
            before = first.sent_bytes()
            new_machine(host, registry.host, cache.host).run()
            sent.append(first.sent_bytes() - before)
    assert sent[0] > 3_000_000, "it came from the registry, through the cache or past it"
    assert sent[1] < sent[0] / 20, f"the registry sent {sent[0]} bytes for one host, {sent[1]} for the next"


def test_a_mirror_that_lacks_half_of_the_blobs(
    origin: tuple[Registry, list[Host]], laboratory: Laboratory, new_machine: Callable[..., Machine]
) -> None:
    registry, (first, second, third, _) = origin
    repository = IMAGE.partition(":")[0]
    layers = [layer["digest"] for layer in laboratory.registry.manifest(IMAGE)["layers"]]
    assert len(layers) == 2
    data = laboratory.scratch / "half"
    part = f"docker/registry/v2/repositories/{repository}"
    shutil.copytree(images.registry_storage() / part, data / "storage" / part)
    (data / "storage/docker/registry/v2/blobs").symlink_to(images.registry_storage() / "docker/registry/v2/blobs")
    shutil.rmtree(data / "storage" / part / "_layers/sha256" / layers[0].removeprefix("sha256:"))
    with Registry(
        data / "storage", data, readonly=True, port=PORT, address=second.address, prefix=second.prefix
    ) as mirror:
        machine = new_machine(third, registry.host, mirror.host)
        before = [host.sent_bytes() for host in (first, second)]
        machine.run()
        sent = [host.sent_bytes() - count for host, count in zip((first, second), before, strict=True)]
    assert min(sent) > 50_000, f"each of them sent what the other lacks: {sent}"
    status = machine.podman.run("image", "inspect", machine.podman.name(IMAGE)).stdout
    assert json.loads(status)[0]["RootFS"]["Layers"]
