"""Reading a blob by ranges from a registry that works, or breaks in the usual ways."""

import random
from contextlib import aclosing

import pytest
import trio

from registry_storage.descriptor import Descriptor
from registry_storage.digest import Digest
from registry_storage.errors import (
    BadResponseError,
    NotFoundError,
    RangeNotServedError,
    UnauthorizedError,
    UnavailableError,
)
from registry_storage.reference import Reference
from registry_storage.registry.client import RegistryClient
from tests.fakes.registry import FakeRegistry

pytest_plugins = ["tests.fakes.registry_fixtures"]

DATA = random.Random(1).randbytes(1_000_000)


@pytest.fixture
def descriptor(fake: FakeRegistry) -> Descriptor:
    return fake.put_blob("team/app", DATA)


async def test_a_range_is_fetched(fake: FakeRegistry, client: RegistryClient, app: Reference, descriptor: Descriptor) -> None:
    blob = client.open_blob(app, descriptor)
    assert await blob.fetch(1000, 300_000) == DATA[1000:301_000]
    assert fake.requests("/blobs/")[0].headers["range"] == "bytes=1000-300999"
    assert fake.requests("/blobs/")[0].headers["accept-encoding"] == "identity"


async def test_a_broken_connection_is_taken_up_where_it_broke_off(fake: FakeRegistry, client: RegistryClient, app: Reference, descriptor: Descriptor) -> None:
    fake.inject("reset", path="/blobs/", at=200_000)
    fake.inject("truncate", path="/blobs/", at=100_000, skip=1)
    blob = client.open_blob(app, descriptor)
    assert await blob.fetch(0, 900_000) == DATA[:900_000]
    assert len(fake.requests("/blobs/")) == 3


async def test_connections_are_used_again(client, app, fake, descriptor) -> None:
    blob = client.open_blob(app, descriptor)
    for offset in range(0, 100_000, 10_000):
        assert len(await blob.fetch(offset, 10_000)) == 10_000
    assert fake.connections == 1
