"""Fixtures for tests of the registry's side: a fake registry, a client, a clock that does not wait."""

from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from registry_storage.reference import Reference
from registry_storage.registry.client import RegistryClient

from .registry import FakeRegistry
from .registry_world import DATA, World


@pytest.fixture
def clock() -> trio.testing.MockClock:
    """Jumps to the next deadline when nothing happens for a moment; what crosses loopback is faster.

    It counts only for tests that name it among their arguments.
    """
    return trio.testing.MockClock(autojump_threshold=0.02)


@pytest.fixture
async def fake(nursery: trio.Nursery) -> FakeRegistry:
    registry: FakeRegistry = await nursery.start(FakeRegistry().serve)
    return registry


@pytest.fixture
async def client() -> AsyncIterator[RegistryClient]:
    async with RegistryClient() as client:
        yield client


@pytest.fixture
def app(fake: FakeRegistry) -> Reference:
    return Reference.parse(f"{fake.host}/team/app:v1")


@pytest.fixture
def world(fake: FakeRegistry, client: RegistryClient, app: Reference) -> World:
    return World(fake, client, app, fake.put_blob("team/app", DATA))
