"""Pushing into a registry that misbehaves."""

import random

import pytest
import trio.testing

from registry_storage.descriptor import OCI_MANIFEST, Descriptor
from registry_storage.digest import Digest
from registry_storage.errors import BadResponseError, RegistryError, UnauthorizedError, UnavailableError
from registry_storage.reference import Reference
from registry_storage.registry.client import RegistryClient
from registry_storage.registry.credentials import Credentials
from registry_storage.registry.upload import Outcome, Uploader
from tests.fakes.registry import FakeRegistry

pytest_plugins = ["tests.fakes.registry_fixtures"]

LARGE = random.Random(7).randbytes(3_000_000)
SMALL = b"a small blob"


class Bytes:
    """A blob in memory."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.read = 0

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor("application/octet-stream", Digest.of(self.data), len(self.data))

    async def read_at(self, offset: int, size: int) -> bytes:
        self.read += size
        return self.data[offset : offset + size]


async def push(client: RegistryClient, reference: Reference, data: bytes, *mount_from: str) -> Outcome:
    source = Bytes(data)
    return await Uploader(client, reference, mount_from=mount_from).upload_blob(source.descriptor, source)


def stored(fake: FakeRegistry, data: bytes, repository: str = "team/app") -> bool:
    return fake.blobs.get((repository, str(Digest.of(data)))) == data


def methods(fake: FakeRegistry) -> list[str]:
    return [entry.method for entry in fake.log if "/v2/team" in entry.path]


@pytest.mark.parametrize("data", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
async def test_a_blob_is_pushed(fake: FakeRegistry, client: RegistryClient, app: Reference, data: bytes) -> None:
    assert await push(client, app, data) is Outcome.UPLOADED
    assert stored(fake, data)
    assert not fake.uploads.open


async def test_a_small_blob_takes_two_requests_after_the_question(
    fake: FakeRegistry, client: RegistryClient, app: Reference
) -> None:
    await push(client, app, SMALL)
    assert methods(fake) == ["HEAD", "POST", "PUT"]


async def test_a_blob_that_is_there_is_not_sent(fake: FakeRegistry, client: RegistryClient, app: Reference) -> None:
    fake.put_blob("team/app", LARGE)
    assert await push(client, app, LARGE) is Outcome.EXISTING
    assert methods(fake) == ["HEAD"]


async def test_a_blob_of_another_repository_is_mounted(
    fake: FakeRegistry, client: RegistryClient, app: Reference
) -> None:
    fake.put_blob("team/base", LARGE)
    assert await push(client, app, LARGE, "team/none", "team/base") is Outcome.MOUNTED
    assert stored(fake, LARGE)
    assert not fake.uploads.open  # the registry began one for team/none


async def test_a_blob_that_cannot_be_mounted_is_sent(
    fake: FakeRegistry, client: RegistryClient, app: Reference
) -> None:
    assert await push(client, app, LARGE, "team/base") is Outcome.UPLOADED
    assert not fake.uploads.open


@pytest.mark.parametrize("at", [0, 1, 1_500_000, len(LARGE)])
async def test_a_broken_upload_goes_on_where_it_broke(
    fake: FakeRegistry, client: RegistryClient, app: Reference, clock: trio.testing.MockClock, at: int
) -> None:
    fake.inject("cut", method="PATCH", at=at)
    assert await push(client, app, LARGE) is Outcome.UPLOADED
    assert stored(fake, LARGE)
    sent = [len(entry.body) for entry in fake.log if entry.method in ("PATCH", "PUT")]
    assert sum(sent) == len(LARGE) if at > 1 else sum(sent) >= len(LARGE)


async def test_an_upload_that_breaks_again_and_again_but_goes_on_succeeds(
    fake: FakeRegistry, client: RegistryClient, app: Reference, clock: trio.testing.MockClock
) -> None:
    fake.inject("cut", method="PATCH", at=300_000, times=8)
    assert await push(client, app, LARGE) is Outcome.UPLOADED
    assert stored(fake, LARGE)


async def test_an_upload_whose_state_is_not_told_begins_anew(
    fake: FakeRegistry, client: RegistryClient, app: Reference, clock: trio.testing.MockClock
) -> None:
    fake.uploads.status_served = False
    fake.inject("cut", method="PATCH", at=1_000_000)
    assert await push(client, app, LARGE) is Outcome.UPLOADED
    assert stored(fake, LARGE)


async def test_an_upload_that_the_registry_forgot_begins_anew(
    fake: FakeRegistry, client: RegistryClient, app: Reference, clock: trio.testing.MockClock
) -> None:
    fake.inject("status", method="PUT", status=404)
    assert await push(client, app, LARGE) is Outcome.UPLOADED
    assert stored(fake, LARGE)


@pytest.mark.parametrize("method", ["HEAD", "POST", "PATCH", "PUT"])
@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_passing_refusal_is_tried_again(
    fake: FakeRegistry,
    client: RegistryClient,
    app: Reference,
    clock: trio.testing.MockClock,
    method: str,
    status: int,
) -> None:
    fault = fake.inject("status", method=method, status=status, times=2)
    assert await push(client, app, LARGE) is Outcome.UPLOADED
    assert fault.hits == 2
    assert stored(fake, LARGE)


@pytest.mark.parametrize("method", ["HEAD", "POST", "PATCH", "PUT"])
@pytest.mark.parametrize(
    ("status", "error"), [(401, UnauthorizedError), (403, UnauthorizedError), (413, BadResponseError)]
)
async def test_a_refusal_is_final_and_leaves_no_upload(
    fake: FakeRegistry,
    client: RegistryClient,
    app: Reference,
    method: str,
    status: int,
    error: type[RegistryError],
) -> None:
    fake.inject("status", method=method, status=status, times=None)
    with pytest.raises(error, match=f"team/app: blob sha256:.* got {status}"):
        await push(client, app, LARGE)
    assert not fake.uploads.open
    assert not fake.blobs


async def test_a_registry_that_stays_broken_is_given_up(
    fake: FakeRegistry, client: RegistryClient, app: Reference, clock: trio.testing.MockClock
) -> None:
    fake.inject("status", method="PATCH", status=503, times=None)
    with pytest.raises(UnavailableError, match="got 503"):
        await push(client, app, LARGE)
    assert not fake.uploads.open


@pytest.mark.parametrize("location", [None, "ftp://127.0.0.1/x", "http://user:secret@127.0.0.1/x", "http://h:99999/x"])
async def test_a_wrong_location_is_refused(
    fake: FakeRegistry, client: RegistryClient, app: Reference, location: str | None
) -> None:
    fake.inject("headers", method="POST", headers={"location": location}, times=None)
    with pytest.raises(BadResponseError, match="an upload from"):
        await push(client, app, LARGE)


async def test_another_host_gets_no_credentials(nursery: trio.Nursery, clock: trio.testing.MockClock) -> None:
    fake: FakeRegistry = await nursery.start(FakeRegistry(auth="basic", users={"me": "secret"}).serve)
    fake.inject("headers", method="POST", headers={"location": f"http://{fake.storage_host}/x"}, times=None)
    async with RegistryClient(credentials=Me()) as client:
        with pytest.raises(RegistryError):
            await push(client, Reference.parse(f"{fake.host}/team/app"), LARGE)
    elsewhere = fake.requests(listener="storage")
    assert elsewhere
    assert not any("authorization" in request.headers for request in elsewhere)


class Me:
    """One user everywhere."""

    async def find(self, name: str) -> Credentials:
        return Credentials("me", "secret")


async def test_tokens_are_asked_for_pushing_and_for_mounting(nursery: trio.Nursery) -> None:
    fake: FakeRegistry = await nursery.start(FakeRegistry(auth="bearer", users={"me": "secret"}).serve)
    async with RegistryClient(credentials=Me()) as client:
        reference = Reference.parse(f"{fake.host}/team/app")
        assert await push(client, reference, LARGE, "team/base") is Outcome.UPLOADED
    assert fake.scopes == [
        ["repository:team/app:pull,push"],
        ["repository:team/app:pull,push", "repository:team/base:pull"],
    ]


async def test_a_manifest_is_put_under_its_tag(fake: FakeRegistry, client: RegistryClient, app: Reference) -> None:
    digest = await Uploader(client, app).put_manifest(b"{}", OCI_MANIFEST, "v1")
    assert fake.manifests["team/app", "v1"] == (OCI_MANIFEST, b"{}")
    assert digest == Digest.of(b"{}")


async def test_a_manifest_that_became_another_is_an_error(
    fake: FakeRegistry, client: RegistryClient, app: Reference
) -> None:
    fake.inject("headers", method="PUT", headers={"docker-content-digest": str(Digest.of(b"other"))})
    with pytest.raises(BadResponseError, match="Docker-Content-Digest"):
        await Uploader(client, app).put_manifest(b"{}", OCI_MANIFEST)


async def test_progress_says_what_was_sent(fake: FakeRegistry, client: RegistryClient, app: Reference) -> None:
    seen: list[int] = []
    source = Bytes(LARGE)
    await Uploader(client, app).upload_blob(source.descriptor, source, progress=seen.append)
    assert seen[-1] == len(LARGE)
    assert seen == sorted(seen)
    assert seen[0] == 0
