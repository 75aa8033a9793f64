"""Mirrors: asked first, passed over blob by blob, left alone for a while when they do not answer."""

import hashlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from registry_storage.descriptor import Descriptor
from registry_storage.digest import Digest
from registry_storage.errors import NotFoundError, UnavailableError, VerificationError
from registry_storage.reference import Reference
from registry_storage.registry.client import RegistryClient
from registry_storage.registry.registries_conf import RegistriesConf
from tests.fakes.registry import FakeRegistry
from tests.fakes.registry_world import DATA

pytest_plugins = ["tests.fakes.registry_fixtures"]

MANIFEST = b'{"schemaVersion": 2, "layers": []}'
REFERENCE = Reference.parse("origin.example/team/app:v1")


@pytest.fixture
async def mirror(nursery: trio.Nursery) -> FakeRegistry:
    registry: FakeRegistry = await nursery.start(FakeRegistry().serve)
    return registry


@pytest.fixture
async def origin(nursery: trio.Nursery) -> FakeRegistry:
    registry: FakeRegistry = await nursery.start(FakeRegistry().serve)
    registry.put_manifest("team/app", "v1", MANIFEST)
    return registry


@pytest.fixture
async def client(mirror: FakeRegistry, origin: FakeRegistry, tmp_path: Path) -> AsyncIterator[RegistryClient]:
    path = tmp_path / "registries.conf"
    path.write_text(
        f'[[registry]]\nprefix = "origin.example"\nlocation = "{origin.host}"\n'
        f'[[registry.mirror]]\nlocation = "{mirror.host}/copy"\n'
    )
    async with RegistryClient(registries=RegistriesConf([path], [])) as client:
        yield client


def asked(fake: FakeRegistry, path: str = "/blobs/") -> int:
    return len(fake.requests(path))


async def test_the_mirror_is_asked_and_the_registry_is_not(
    client: RegistryClient, mirror: FakeRegistry, origin: FakeRegistry
) -> None:
    mirror.put_manifest("copy/team/app", "v1", MANIFEST)
    descriptor = mirror.put_blob("copy/team/app", DATA)
    assert (await client.fetch_manifest(REFERENCE))[2] == MANIFEST
    assert await client.open_blob(REFERENCE, descriptor).fetch(5, 10) == DATA[5:15]
    assert origin.log == []


async def test_what_the_mirror_does_not_have_comes_from_the_registry(
    client: RegistryClient, mirror: FakeRegistry, origin: FakeRegistry
) -> None:
    assert (await client.fetch_manifest(REFERENCE))[2] == MANIFEST
    blob = client.open_blob(REFERENCE, origin.put_blob("team/app", DATA))
    for offset in (5, 100, 500):
        assert await blob.fetch(offset, 10) == DATA[offset : offset + 10]
    assert asked(mirror) == 1
    assert asked(origin) == 3


async def test_a_mirror_may_have_half_of_the_blobs(
    client: RegistryClient, mirror: FakeRegistry, origin: FakeRegistry
) -> None:
    blobs = [hashlib.sha256(b"%d" % number).digest() * 100 for number in range(8)]
    descriptors = [origin.put_blob("team/app", data) for data in blobs]
    for data in blobs[::2]:
        mirror.put_blob("copy/team/app", data)
    for data, descriptor in zip(blobs, descriptors, strict=True):
        blob = client.open_blob(REFERENCE, descriptor)
        assert await blob.fetch(0, 3200) == data
        assert await blob.fetch(7, 20) == data[7:27]
    assert asked(mirror) == 4 * 2 + 4
    assert asked(origin) == 4 * 2


async def test_where_a_mirror_breaks_off_the_registry_goes_on(
    client: RegistryClient, mirror: FakeRegistry, origin: FakeRegistry, clock: MockClock
) -> None:
    descriptor = origin.put_blob("team/app", DATA)
    mirror.put_blob("copy/team/app", DATA)
    mirror.inject("truncate", path="/blobs/", at=1000)
    mirror.inject("disconnect", path="/blobs/", times=None, skip=1)
    assert await client.open_blob(REFERENCE, descriptor).fetch(0, 50_000) == DATA[:50_000]
    assert asked(mirror) == 2
    (request,) = origin.requests("/blobs/")
    assert request.headers["range"] == "bytes=1000-49999"


async def test_a_mirror_that_serves_no_ranges_is_passed_over(
    client: RegistryClient, mirror: FakeRegistry, origin: FakeRegistry
) -> None:
    descriptor = origin.put_blob("team/app", DATA)
    mirror.put_blob("copy/team/app", DATA)
    mirror.inject("ignore-range", path="/blobs/", times=None)
    assert await client.open_blob(REFERENCE, descriptor).fetch(700, 10) == DATA[700:710]


async def test_a_pull_through_cache_that_answers_the_first_range_with_everything_is_asked_again_soon(
    client: RegistryClient, mirror: FakeRegistry, origin: FakeRegistry, clock: MockClock
) -> None:
    descriptor = origin.put_blob("team/app", DATA)
    mirror.put_blob("copy/team/app", DATA)
    mirror.inject("ignore-range", path="/blobs/")
    blob = client.open_blob(REFERENCE, descriptor)
    assert await blob.fetch(700, 10) == DATA[700:710]
    await trio.sleep(11)
    for offset in (5, 700):
        assert await blob.fetch(offset, 10) == DATA[offset : offset + 10]
    assert asked(origin) == 1
    assert asked(mirror) == 3


async def test_a_mirror_that_does_not_answer_costs_seconds_once(
    client: RegistryClient,
    mirror: FakeRegistry,
    origin: FakeRegistry,
    clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    descriptor = origin.put_blob("team/app", DATA)
    mirror.inject("stall", at=None, times=None)
    started = trio.current_time()
    assert (await client.fetch_manifest(REFERENCE))[2] == MANIFEST
    assert trio.current_time() - started < 10
    again = trio.current_time()
    assert await client.open_blob(REFERENCE, descriptor).fetch(5, 10) == DATA[5:15]
    assert trio.current_time() - again < 1
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert f"{mirror.host}: manifest v1: asking the next host: " in warnings[0]
    mirror.faults.clear()
    mirror.put_blob("copy/team/app", DATA)
    await trio.sleep(31)
    before = asked(origin)
    assert await client.open_blob(REFERENCE, descriptor).fetch(5, 10) == DATA[5:15]
    assert asked(origin) == before


async def test_the_registry_is_down_and_the_mirror_is_not(
    client: RegistryClient, mirror: FakeRegistry, origin: FakeRegistry, clock: MockClock
) -> None:
    origin.inject("disconnect", times=None)
    mirror.put_manifest("copy/team/app", "v1", MANIFEST)
    assert (await client.fetch_manifest(REFERENCE))[2] == MANIFEST


async def test_a_mirrors_manifest_must_have_its_digest(
    client: RegistryClient, mirror: FakeRegistry, origin: FakeRegistry
) -> None:
    digest = Digest.of(MANIFEST)
    mirror.put_manifest("copy/team/app", str(digest), MANIFEST + b" ")
    assert (await client.fetch_manifest(REFERENCE.with_digest(digest)))[0] == digest
    origin.put_manifest("team/app", str(digest), MANIFEST + b" ")
    with pytest.raises(VerificationError):
        await client.fetch_manifest(REFERENCE.with_digest(digest))


async def test_the_registrys_own_error_is_the_one_that_counts(
    client: RegistryClient, mirror: FakeRegistry, origin: FakeRegistry, clock: MockClock
) -> None:
    descriptor = Descriptor("", Digest.of(b"nowhere"), 7)
    mirror.inject("status", path="/blobs/", status=503, times=None)
    with pytest.raises(NotFoundError, match=origin.host):
        await client.open_blob(REFERENCE, descriptor).fetch(0, 7)
    origin.inject("disconnect", path="/blobs/", times=None)
    with pytest.raises(UnavailableError, match=origin.host):
        await client.open_blob(REFERENCE, descriptor).fetch(0, 7)


async def test_pushes_go_to_the_registry_itself(client: RegistryClient, origin: FakeRegistry) -> None:
    assert client.endpoint(REFERENCE).host == origin.host
