"""A plain layer that podman can use keeps its content, whatever needs room; what is lost comes back in one pass."""

import os

from tests.fakes import tar_images
from tests.fakes.image_stores import check_readable
from tests.fakes.images import File, build_layer
from tests.fakes.images import put_image as put_lazy_image
from tests.fakes.registry import FakeRegistry

from .conftest import Daemon
from .test_added_images import added, ctl, running, store, trees, until, uses

__all__ = ["running"]
PLAIN = {f"{number:03}": os.urandom(30_000) for number in range(100)}
"""3 MB."""
LAZY = [File(f"{number:03}", os.urandom(200_000)) for number in range(200)]
"""40 MB."""


def content_bytes(daemon: Daemon) -> int:
    return sum(path.stat().st_blocks * 512 for path in daemon.root.glob("layers/*/content"))


def add_plain(running: Daemon, registry: FakeRegistry) -> str:
    """Start the daemon again with a small budget, and add an image of PLAIN; its name."""
    running.stop()
    running.start("--cache-size", "8M", "--keep-free", "0")
    tar_images.put_image(registry, [PLAIN])
    name = f"{registry.host}/team/app:v1"
    added(running, name)
    return name


def test_what_was_added_stays_while_everything_else_comes_and_goes(running: Daemon, registry: FakeRegistry) -> None:
    name = add_plain(running, registry)
    lazy = put_lazy_image(registry, [build_layer(LAZY)], "team/lazy:v1").reference
    added(running, lazy)
    (tree,) = trees(running, lazy)
    for _ in range(2):
        for file in LAZY:
            with (tree / file.name).open("rb") as opened:
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                assert opened.read() == file.data
    assert ctl(running, "cache", "prune", "--all").returncode == 0
    until(lambda: content_bytes(running) < 4_000_000)
    registry.blobs.clear()
    (tree,) = trees(running, name)
    assert {path: (tree / path).read_bytes() for path in PLAIN} == PLAIN
    ctl(running, "remove", name)
    until(lambda: uses(running) == 1)
    assert ctl(running, "cache", "prune", "--all").returncode == 0
    until(lambda: content_bytes(running) == 0)


def test_an_image_for_which_there_is_no_room_is_refused(running: Daemon, registry: FakeRegistry) -> None:
    name = add_plain(running, registry)
    before = check_readable(store(running))
    tar_images.put_image(registry, [{"large": os.urandom(30_000_000)}], tag="large")
    said = ctl(running, "add", f"{registry.host}/team/app:large")
    assert (said.returncode, said.stderr.count("\n")) == (1, 1), said
    assert "no room: wanted at most 8388608 bytes (cache_size) that must stay" in said.stderr
    assert check_readable(store(running)) == before
    assert len(os.listdir(running.root / "layers")) == 1
    (tree,) = trees(running, name)
    registry.blobs.clear()
    assert {path: (tree / path).read_bytes() for path in PLAIN} == PLAIN


def test_an_image_for_which_the_disk_has_no_room_is_refused(running: Daemon, registry: FakeRegistry) -> None:
    running.stop()
    running.start("--keep-free", "100%")
    tar_images.put_image(registry, [PLAIN])
    said = ctl(running, "add", f"{registry.host}/team/app:v1")
    assert (said.returncode, said.stderr.count("\n")) == (1, 1), said
    assert "(keep_free) left on the disk" in said.stderr
    assert check_readable(store(running)) == {}
    assert os.listdir(running.root / "layers") == []


def test_lost_content_comes_back_in_one_pass_over_the_blob(running: Daemon, registry: FakeRegistry) -> None:
    tar_images.put_image(registry, [PLAIN, {"other": b"x" * 100_000}])
    name = f"{registry.host}/team/app:v1"
    added(running, name)
    running.stop()
    for directory in (running.root / "layers").iterdir():
        (directory / "content").unlink()
        (directory / "present").unlink()
    running.start()
    registry.log.clear()
    tree, other = trees(running, name)
    for path in sorted(PLAIN, reverse=True):
        assert (tree / path).read_bytes() == PLAIN[path]
    assert (other / "other").read_bytes() == b"x" * 100_000
    passes = [request for request in registry.log if "/blobs/" in request.path and request.method == "GET"]
    assert len(passes) == 2, "one for each layer"
