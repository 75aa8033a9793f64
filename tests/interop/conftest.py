"""Fixtures: the laboratory's parts, for the session; one daemon with one podman, for each test."""

import itertools
import os
from collections.abc import Callable, Generator, Iterator

import pytest

from lab import chroot, images, install, make, places
from lab.link import Link
from lab.registry import Registry
from tests.interop.stand import Generation, Laboratory, Stand

_worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
_numbers = itertools.count()


@pytest.fixture(scope="session")
def laboratory() -> Iterator[Laboratory]:
    """The registry with every image, behind a link that counts, one for each process. Made when missing: minutes."""
    if os.geteuid() != 0:
        pytest.skip("root makes the laboratory and mounts")
    if missing := install.missing():
        pytest.fail(f"Debian packages are missing: {' '.join(missing)}")
    make.make(make.INTEROP_PARTS)
    with (
        places.scratch(f"tests-{_worker}") as scratch,
        Registry(images.registry_storage(), scratch / "registry", readonly=True) as registry,
        Link(registry.host) as link,
    ):
        yield Laboratory(scratch, registry, link)


@pytest.fixture(scope="session")
def debian13(laboratory: Laboratory) -> Iterator[chroot.RunningDebian]:
    """The second Debian with podman 5.4."""
    with chroot.running() as running:
        yield running


@pytest.fixture(scope="session")
def sid(laboratory: Laboratory) -> Iterator[chroot.RunningDebian]:
    """The newest podman that Debian has."""
    make.make(["sid"])
    with chroot.running(chroot.SID) as running:
        yield running


@pytest.fixture(scope="session", params=["4.3", "5.4"], ids=["podman-4.3", "podman-5.4"])
def generation(request: pytest.FixtureRequest) -> Generation:
    """Each generation of podman in turn."""
    inside = request.getfixturevalue("debian13") if request.param == "5.4" else None
    return Generation(request.param, inside)


@pytest.fixture
def new_stand(laboratory: Laboratory) -> Iterator[Callable[..., Stand]]:
    """Makes daemons with a podman each: `new_stand(generation, *daemon_options)`."""
    stands: list[Stand] = []

    def new(generation: Generation, *options: str) -> Stand:
        stands.append(Stand(laboratory, generation, f"{_worker}-{next(_numbers)}", options))
        return stands[-1]

    yield new
    for stand in reversed(stands):
        stand.close()


@pytest.fixture
def stand(new_stand: Callable[..., Stand], generation: Generation) -> Stand:
    """A daemon that fetches what is read and nothing else."""
    return new_stand(generation, "--no-background-fetch", "--no-prefetch")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows the end of its daemon's log."""
    report = yield
    stand = getattr(item, "funcargs", {}).get("stand")
    if report.failed and isinstance(stand, Stand):
        report.sections.append(("daemon log", stand.daemon.log_tail()))
    return report
