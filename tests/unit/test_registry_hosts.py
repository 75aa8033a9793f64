"""Which host serves a reference, how to speak to it, and what is remembered of it."""

from pathlib import Path

import pytest
import trio

from registry_storage.errors import ConfigError, RegistryError
from registry_storage.reference import Reference
from registry_storage.registry.hosts import (
    HTTPS,
    PLAIN_HTTP,
    UNVERIFIED_HTTPS,
    Endpoint,
    HostState,
    HostStates,
    LinkEstimate,
    Registries,
    is_loopback,
)
from registry_storage.registry.registries_conf import RegistriesConf, default_places


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "registries.conf"


def resolve(path: Path, text: str, name: str, directories: list[Path] | None = None) -> Endpoint:
    path.write_text(text)
    return RegistriesConf([path], directories or []).endpoints(Reference.parse(name))[0]


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:5000", "127.0.0.1", "127.9.9.9:1", "[::1]", "[::1]:5000", "LOCALHOST"]
)
def test_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["localhost.example", "128.0.0.1", "127.0.0.1.example", "[::2]", "10.0.0.1:5000", ""]
)
def test_other_machines(host: str) -> None:
    assert not is_loopback(host)


def test_hosts_have_https_and_this_machine_plain_http_first() -> None:
    (found,) = Registries().endpoints(Reference.parse("quay.io/team/app"))
    assert found == Endpoint("quay.io", "team/app", "quay.io/team/app", (HTTPS,))
    (found,) = Registries().endpoints(Reference.parse("localhost:5000/app"))
    assert found.ways == (PLAIN_HTTP, HTTPS)


def test_docker_hub_is_served_by_another_host() -> None:
    (found,) = Registries().endpoints(Reference.parse("nginx"))
    assert found == Endpoint("registry-1.docker.io", "library/nginx", "docker.io/library/nginx", (HTTPS,))


@pytest.mark.parametrize(
    ("prefix", "name", "insecure"),
    [
        ("r.example", "r.example/a/b", True),
        ("r.example", "r.example:5000/a", True),
        ("r.example:5000", "r.example:5000/a", True),
        ("r.example:5000", "r.example/a", False),
        ("r.example/a", "r.example/a/b", True),
        ("r.example/a", "r.example/ab", False),
        ("r.example/a/b", "r.example/a", False),
        ("*.example", "r.example/a", True),
        ("*.example", "x.r.example/a", True),
        ("*.example", "example/a", False),
        ("*.example", "r.example.org/a", False),
        ("*.example", "quay.io/r.example/a", False),
        ("docker.io", "nginx", True),
    ],
)
def test_insecure_by_prefix(path: Path, prefix: str, name: str, insecure: bool) -> None:
    location = "" if prefix.startswith("*.") else f'location = "{prefix}"\n'
    found = resolve(path, f'[[registry]]\nprefix = "{prefix}"\n{location}insecure = true\n', name)
    assert found.ways == ((UNVERIFIED_HTTPS, PLAIN_HTTP) if insecure else (HTTPS,))


def test_the_longest_prefix_wins(path: Path) -> None:
    text = (
        '[[registry]]\nlocation = "r.example"\ninsecure = true\n'
        '[[registry]]\nlocation = "r.example/safe"\n'
        '[[registry]]\nprefix = "*.example"\nblocked = true\n'
    )
    assert PLAIN_HTTP in resolve(path, text, "r.example/a").ways
    assert resolve(path, text, "r.example/safe/a").ways == (HTTPS,)


def test_a_blocked_registry_is_an_error(path: Path) -> None:
    with pytest.raises(RegistryError, match=r"bad\.example/a:latest: .*/registries\.conf blocks bad\.example"):
        resolve(path, '[[registry]]\nlocation = "bad.example"\nblocked = true\n', "bad.example/a")


def test_another_location_is_where_it_is_fetched_from(path: Path) -> None:
    text = (
        '[[registry]]\nprefix = "old.example/team"\nlocation = "new.example:5000/archive"\ninsecure = true\n'
    )
    assert resolve(path, text, "old.example/team/app:v1") == Endpoint(
        "new.example:5000", "archive/app", "new.example:5000/archive/app", (UNVERIFIED_HTTPS, PLAIN_HTTP)
    )


def test_version_one_of_the_file(path: Path) -> None:
    text = '[registries.insecure]\nregistries = ["r.example:5000"]\n'
    assert PLAIN_HTTP in resolve(path, text, "r.example:5000/a").ways


def test_drop_ins_replace_by_prefix_in_order_of_names(path: Path, tmp_path: Path) -> None:
    directory = tmp_path / "registries.conf.d"
    directory.mkdir()
    entry = '[[registry]]\nlocation = "r.example"\ninsecure = {}\n'
    (directory / "20-b.conf").write_text(entry.format("false"))
    (directory / "10-a.conf").write_text(entry.format("true"))
    (directory / "30-c.disabled").write_text(entry.format("true"))
    assert resolve(path, entry.format("true"), "r.example/a", [directory, tmp_path / "none"]).ways == (HTTPS,)


def test_a_file_that_changes_is_read_again(path: Path) -> None:
    registries = RegistriesConf([path], [])
    reference = Reference.parse("r.example/a")
    assert registries.endpoints(reference)[0].ways == (HTTPS,)
    path.write_text('[[registry]]\nlocation = "r.example"\ninsecure = true\n')
    assert registries.endpoints(reference)[0].ways != (HTTPS,)
    path.unlink()
    assert registries.endpoints(reference)[0].ways == (HTTPS,)


@pytest.mark.parametrize(
    "text",
    [
        "[[registry",
        "registry = 5",
        "registry = [5]",
        '[[registry]]\nlocation = "a.example"\ninsecure = "yes"',
        "[[registry]]\nlocation = 5",
        "[[registry]]\ninsecure = true",
    ],
)
def test_a_broken_file_is_named(path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"registries\.conf"):
        resolve(path, text, "a.example/b")


def test_the_places() -> None:
    files, directories = default_places({"HOME": "/h"})
    assert [str(file) for file in files] == [
        "/h/.config/containers/registries.conf",
        "/etc/containers/registries.conf",
    ]
    assert [str(directory) for directory in directories] == [
        "/etc/containers/registries.conf.d",
        "/h/.config/containers/registries.conf.d",
    ]
    assert default_places({"HOME": "/h", "CONTAINERS_REGISTRIES_CONF": "/x"})[0] == [Path("/x")]


# Estimates.


def test_the_first_measurement_replaces_the_assumption() -> None:
    link = LinkEstimate().with_round_trip(0.5).with_body(1_000_000, 2.0)
    assert link.round_trip_seconds == pytest.approx(0.5)
    assert link.bytes_per_second == pytest.approx(500_000)


def test_later_measurements_move_the_average() -> None:
    link = LinkEstimate().with_round_trip(0.1).with_round_trip(0.2)
    assert 0.1 < link.round_trip_seconds < 0.2
    for _ in range(50):
        link = link.with_round_trip(0.2)
    assert link.round_trip_seconds == pytest.approx(0.2, rel=0.01)


def test_the_gap_is_what_a_round_trip_costs_within_bounds() -> None:
    assert LinkEstimate().gap_bytes == 200_000
    assert LinkEstimate(1e-6, 1e6).gap_bytes == 4096
    assert LinkEstimate(10, 1e9).gap_bytes == 4 << 20


async def test_only_so_many_hosts_are_remembered() -> None:
    states = HostStates()
    first = states.of("a.example")
    kept = states.of("b.example")
    for number in range(1022):
        states.of(f"{number}.example")
    assert states.of("b.example") is kept
    states.of("one more")
    assert states.of("a.example") is not first
    assert states.of("b.example") is kept


async def test_a_host_that_once_ignored_a_range_is_asked_again_soon_and_one_that_always_does_rarely(
    autojump_clock: trio.testing.MockClock,
) -> None:
    state, waits = HostState(), []
    for _ in range(9):
        state.ranges_refused(soon=False)
        started = trio.current_time()
        while not state.serves_ranges:
            await trio.sleep(1)
        waits.append(trio.current_time() - started)
    assert waits == pytest.approx([5, 10, 20, 40, 80, 160, 300, 300, 300], abs=1)
    state.ranges_served()
    assert state.serves_ranges
    state.ranges_refused(soon=True)
    await trio.sleep(6)
    assert state.serves_ranges


async def test_ranges_are_served_until_the_contrary_is_seen() -> None:
    state = HostStates().of("a.example")
    assert state.serves_ranges
    state.rangeless_until = trio.current_time() + 60
    assert not state.serves_ranges
