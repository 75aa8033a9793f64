"""What holds for every test: in CI nothing is skipped, and a slow machine is no error."""

import os
from collections.abc import Generator

import pytest
from hypothesis import settings

settings.register_profile("registry-storage", deadline=None)
settings.load_profile("registry-storage")


def pytest_addoption(parser: pytest.Parser) -> None:
    """What takes longer than every run of the tests may."""
    parser.addoption(
        "--thorough",
        action="store_true",
        help="also the podman of Debian sid, whose tree is made first (90 s), and more formats with every podman",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is asked for by an option."""
    if not config.getoption("--thorough"):
        left_out = [item for item in items if item.get_closest_marker("thorough")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With CI=true a test that would be skipped, because something is missing here, fails."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}: skipped, which CI does not allow: {report.longrepr}"
    return report
