"""What the daemon asks the registry for, and when."""

import time
from collections.abc import Callable

from tests.fakes.images import File, build_layer, put_image
from tests.fakes.registry import FakeRegistry

from .conftest import Daemon


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_whoever_asks_for_one_layer_has_all_of_them_opened_and_the_config_fetched(
    daemon: Daemon, registry: FakeRegistry
) -> None:
    image = put_image(registry, [build_layer([File(f"file{number}", b"x" * 100)]) for number in range(4)])
    daemon.start()
    daemon.layer(image, 2).joinpath("diff").stat()
    until(lambda: daemon.log_text().count("layer is served lazily") == 4)
    until(lambda: len(registry.requests("/blobs/")) == 5)
    for number in range(4):
        assert (daemon.layer(image, number) / "diff" / f"file{number}").stat().st_size == 100
        assert (daemon.layer(image, number) / "info").read_bytes()
    assert len(registry.requests("/manifests/")) == 1
    assert len(registry.requests("/blobs/")) == 5
