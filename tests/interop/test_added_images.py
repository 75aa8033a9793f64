"""Images that were added run in every podman without a pull, whatever the format of their layers."""

import itertools
import json
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import converters
from lab.image_host import ImageHost
from tests.interop.stand import Generation, Laboratory

_numbers = itertools.count()
THOROUGH = pytest.mark.thorough
FORMATS_IN_PART = pytest.mark.parametrize(
    "image_format",
    ["gzip", "zstd", pytest.param("estargz", marks=THOROUGH), pytest.param("zstd-stargz", marks=THOROUGH)],
)
FORMATS = pytest.mark.parametrize("image_format", ["gzip", "estargz", "zstd", "zstd-stargz"])


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("4.3", id="podman-4.3"),
        pytest.param("5.4", id="podman-5.4"),
        pytest.param("5.", id="podman-newest", marks=THOROUGH),
    ],
)
def generation(request: pytest.FixtureRequest) -> Generation:
    """Each generation of podman in turn, those that cannot use a layer store too."""
    debians = {"5.4": "debian13", "5.": "sid"}
    inside = request.getfixturevalue(debians[request.param]) if request.param in debians else None
    return Generation(request.param, inside)


def _host(laboratory: Laboratory, generation: Generation, *options: str) -> ImageHost:
    name = f"i{next(_numbers)}"
    return ImageHost(laboratory.scratch, laboratory.link.host, name, *options, inside=generation.inside)


@pytest.fixture
def host(laboratory: Laboratory, generation: Generation) -> Iterator[ImageHost]:
    one = _host(laboratory, generation, "--no-background-fetch")
    try:
        yield one
    finally:
        one.close()


@FORMATS
def test_an_added_image_runs_and_a_pull_of_it_copies_nothing(
    host: ImageHost, laboratory: Laboratory, image_format: str
) -> None:
    laboratory.link.crossed()
    image = host.add("python", image_format)
    if image_format != "gzip":
        share = laboratory.link.crossed().down_bytes / laboratory.image_bytes(image)
        assert share < 0.1, f"{share:.0%} of the image came over the link when it was added"
    podman = host.podman
    run = ("run", "--rm", "--pull=never", "--network=none", podman.name(image))
    assert podman.run(*run, "python3", "-c", "import json, numpy; print(json.dumps(7))").stdout == "7\n"
    assert podman.run(*run, "sh", "-c", "echo again").stdout == "again\n"
    podman.pull(image)
    assert podman.layer_records() == []


@FORMATS_IN_PART
def test_what_is_built_upon_an_added_image_stores_only_what_is_new(host: ImageHost, image_format: str) -> None:
    image, podman = host.add("redis", image_format), host.podman
    name = podman.name(image)
    container = podman.run("run", "-d", "--pull=never", "--network=none", name, "sleep", "1000").stdout.strip()
    assert podman.run("exec", container, "redis-server", "--version").stdout.startswith("Redis")
    podman.run("stop", "-t", "0", container)
    podman.run("commit", "-q", container, "localhost/committed:1")
    assert podman.run("run", "--rm", "--network=none", "localhost/committed:1", "echo", "ran").stdout == "ran\n"
    context = podman.home / "context"
    context.mkdir()
    (context / "Containerfile").write_text(f"FROM {name}\nRUN echo built > /built\n")
    there = podman.inside.inside(context) if podman.inside else context
    podman.run("build", "-q", "--network=host", "--pull=never", "--isolation=chroot", "-t", "localhost/built:1", there)
    assert podman.run("run", "--rm", "--network=none", "localhost/built:1", "cat", "/built").stdout == "built\n"
    ours = {path.name for path in (host.store / "overlay").iterdir()}
    own = {record["id"] for record in podman.layer_records()}
    assert own.isdisjoint(ours)
    assert {record.get("parent") for record in podman.layer_records()} <= ours | own


def test_an_image_that_shares_a_base_stores_only_its_own_layers(host: ImageHost, laboratory: Laboratory) -> None:
    host.add("redis", "gzip")
    before = len(list((host.store / "overlay").iterdir()))
    image = host.add("python", "gzip")
    count = laboratory.layer_count(image)
    assert len(list((host.store / "overlay").iterdir())) == before + count - 1
    # And one that podman pulls itself:
    other = converters.tag("gcc", "gzip")
    host.podman.pull(other)
    assert len(host.podman.layer_records()) == laboratory.layer_count(other) - 1


@pytest.fixture
def thorough(request: pytest.FixtureRequest) -> bool:
    """What --thorough says."""
    return bool(request.config.getoption("--thorough"))


def test_a_plain_image_can_be_saved_and_pushed(host: ImageHost, laboratory: Laboratory, thorough: bool) -> None:
    _copy_out(host, laboratory, host.add("redis", "gzip"), thorough=thorough)


@pytest.mark.parametrize("image_format", ["estargz", "zstd", pytest.param("zstd-stargz", marks=THOROUGH)])
def test_a_lazy_image_can_be_saved_and_pushed_when_it_is_complete(
    laboratory: Laboratory, generation: Generation, image_format: str, thorough: bool
) -> None:
    host = _host(laboratory, generation)
    try:
        image = host.add("odd", image_format)
        deadline = time.monotonic() + 120
        while not host.ctl("list").stdout.rstrip().endswith("complete"):
            assert time.monotonic() < deadline, host.daemon.log_tail()
            time.sleep(0.2)
        _copy_out(host, laboratory, image, thorough=thorough)
    finally:
        host.close()


def _copy_out(host: ImageHost, laboratory: Laboratory, image: str, *, thorough: bool) -> None:
    """Saving and pushing read the layers in the same way: usually one generation does this, the others that."""
    podman = host.podman
    saved, pushed = podman.home / "saved", podman.home / "pushed"
    there = podman.inside.inside if podman.inside else Path
    if thorough or podman.inside:
        podman.run("save", "-q", "--format", "oci-archive", "-o", there(saved), podman.name(image))
        with tarfile.open(saved) as archive:
            index = json.load(archive.extractfile("index.json"))  # type: ignore[arg-type]
        assert index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"] == podman.name(image)
    if thorough or not podman.inside:
        podman.run("push", "-q", podman.name(image), f"dir:{there(pushed)}")
        manifest = json.loads((pushed / "manifest.json").read_text())
        assert len(manifest["layers"]) == laboratory.layer_count(image)


def test_removed_images_are_gone_and_running_containers_go_on(host: ImageHost) -> None:
    image, podman = host.add("redis", "zstd"), host.podman
    name = podman.name(image)
    container = podman.run("run", "-d", "--pull=never", "--network=none", name, "sleep", "1000").stdout.strip()
    host.ctl("remove", name)
    assert name not in podman.run("images", "--format", "{{.Repository}}:{{.Tag}}").stdout
    assert podman.run("exec", container, "redis-server", "--version").stdout.startswith("Redis")
    podman.run("restart", "-t", "0", container)
    assert container[:12] in podman.run("ps", "-q").stdout
