"""Basic, Bearer and identity tokens, and where credentials may go."""

import logging
from urllib.parse import parse_qs, urlsplit

import pytest
import trio
from trio.testing import MockClock

from registry_storage.errors import BadResponseError, RegistryError, UnauthorizedError, UnavailableError
from registry_storage.reference import Reference
from registry_storage.registry.challenge import Challenge, parse_challenges
from registry_storage.registry.client import RegistryClient
from registry_storage.registry.credentials import Credentials
from tests.fakes.registry import FakeRegistry
from tests.fakes.registry_world import DATA, World

pytest_plugins = ["tests.fakes.registry_fixtures"]

SECRET = "s3cret:with:colons"


class Keys:
    """A source of credentials that counts."""

    def __init__(self) -> None:
        self.credentials: Credentials | None = Credentials("alice", SECRET)
        self.asked: list[str] = []

    async def find(self, name: str) -> Credentials | None:
        self.asked.append(name)
        return self.credentials


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.fixture
async def locked(nursery: trio.Nursery, keys: Keys):  # type: ignore[no-untyped-def]
    """A world whose registry wants a Bearer token, which alice gets."""
    fake = await nursery.start(FakeRegistry(auth="bearer", users={"alice": SECRET}).serve)
    async with RegistryClient(credentials=keys) as client:
        reference = Reference.parse(f"{fake.host}/team/app:v1")
        yield World(fake, client, reference, fake.put_blob("team/app", DATA))


async def test_a_token_is_fetched_for_pulling_one_repository(locked: World, keys: Keys) -> None:
    assert await locked.blob().fetch(5, 10) == DATA[5:15]
    (request,) = locked.fake.requests("/token")
    query = parse_qs(urlsplit(request.path).query)
    assert query == {"scope": ["repository:team/app:pull"], "service": ["fake"], "account": ["alice"]}
    assert keys.asked == [f"{locked.fake.host}/team/app"]


async def test_a_token_is_used_until_shortly_before_it_expires(locked: World, clock: MockClock) -> None:
    blob = locked.blob()
    for _ in range(3):
        await blob.fetch(5, 10)
    assert locked.gets("/token") == 1
    await trio.sleep(275)
    await blob.fetch(5, 10)
    assert locked.gets("/token") == 2
    assert all(entry.headers.get("authorization") for entry in locked.fake.requests("/blobs/")[1:])
    assert locked.gets("/blobs/") == 5, "the renewed token was not refused first"


async def test_a_revoked_token_is_replaced(locked: World) -> None:
    blob = locked.blob()
    await blob.fetch(5, 10)
    locked.fake.revoke_tokens()
    assert await blob.fetch(5, 10) == DATA[5:15]
    assert locked.gets("/token") == 2


async def test_readers_share_one_request_for_a_token(locked: World) -> None:
    blob = locked.blob()
    async with trio.open_nursery() as nursery:
        for _ in range(60):
            nursery.start_soon(blob.fetch, 5, 10)
    assert locked.gets("/token") == 1
    locked.fake.revoke_tokens()
    async with trio.open_nursery() as nursery:
        for _ in range(60):
            nursery.start_soon(blob.fetch, 5, 10)
    assert locked.gets("/token") == 2


async def test_a_token_that_is_refused_again_fails(locked: World) -> None:
    locked.fake.inject("status", path="/blobs/", status=401, times=None)
    locked.fake.faults[0].headers = {
        "www-authenticate": f'Bearer realm="http://{locked.fake.token_host}/token"'
    }
    with pytest.raises(UnauthorizedError, match="got 401"):
        await locked.blob().fetch(5, 10)
    assert locked.gets("/blobs/") == 2


async def test_a_forbidden_repository_fails(locked: World) -> None:
    locked.fake.inject("status", path="/blobs/", status=403, times=None)
    with pytest.raises(UnauthorizedError, match="got 403"):
        await locked.blob().fetch(5, 10)
    assert locked.gets("/blobs/") <= 2


async def test_wrong_credentials_fail_by_name_of_the_token_server(locked: World, keys: Keys) -> None:
    keys.credentials = Credentials("alice", "guess")
    with pytest.raises(UnauthorizedError, match=f"token from {locked.fake.token_host}") as caught:
        await locked.blob().fetch(5, 10)
    assert "guess" not in str(caught.value)
    keys.credentials = Credentials("alice", SECRET)
    assert await locked.blob().fetch(5, 10) == DATA[5:15]


async def test_anonymous_tokens_open_public_repositories(nursery: trio.Nursery) -> None:
    fake = await nursery.start(FakeRegistry(auth="bearer").serve)
    descriptor = fake.put_blob("team/app", DATA)
    async with RegistryClient() as client:
        blob = client.open_blob(Reference.parse(f"{fake.host}/team/app"), descriptor)
        assert await blob.fetch(5, 10) == DATA[5:15]
    assert "authorization" not in fake.requests("/token")[0].headers


async def test_an_identity_token_is_traded_for_a_token(nursery: trio.Nursery, keys: Keys) -> None:
    fake = await nursery.start(FakeRegistry(auth="bearer", identity_tokens={"alice": "id-1"}).serve)
    keys.credentials = Credentials(identity_token="id-1")
    descriptor = fake.put_blob("team/app", DATA)
    async with RegistryClient(credentials=keys) as client:
        blob = client.open_blob(Reference.parse(f"{fake.host}/team/app"), descriptor)
        assert await blob.fetch(5, 10) == DATA[5:15]
    (request,) = fake.requests("/token")
    assert request.method == "POST"
    assert b"grant_type=refresh_token" in request.body
    assert "id-1" not in request.path


async def test_a_registry_token_is_used_as_it_is(locked: World, keys: Keys) -> None:
    keys.credentials = Credentials(registry_token="ready-made")
    locked.fake.tokens["ready-made"] = float("inf")
    assert await locked.blob().fetch(5, 10) == DATA[5:15]
    assert locked.gets("/token") == 0


async def test_basic_credentials_follow_a_challenge_and_no_redirect(
    nursery: trio.Nursery, keys: Keys
) -> None:
    fake = await nursery.start(FakeRegistry(auth="basic", users={"alice": SECRET}, redirect_blobs=True).serve)
    descriptor = fake.put_blob("team/app", DATA)
    async with RegistryClient(credentials=keys) as client:
        blob = client.open_blob(Reference.parse(f"{fake.host}/team/app"), descriptor)
        for offset in (5, 100, 500):
            assert await blob.fetch(offset, 10) == DATA[offset : offset + 10]
        fake.expire_signatures()
        assert await blob.fetch(5, 10) == DATA[5:15]
    for entry in fake.log:
        if entry.listener == "storage":
            assert "authorization" not in entry.headers
    assert "authorization" not in fake.requests("/v2/$")[0].headers


async def test_credentials_that_change_are_asked_for_again(nursery: trio.Nursery, keys: Keys) -> None:
    fake = await nursery.start(FakeRegistry(auth="basic", users={"alice": SECRET}).serve)
    descriptor = fake.put_blob("team/app", DATA)
    async with RegistryClient(credentials=keys) as client:
        blob = client.open_blob(Reference.parse(f"{fake.host}/team/app"), descriptor)
        await blob.fetch(5, 10)
        fake.users["alice"] = "new"
        with pytest.raises(UnauthorizedError):
            await blob.fetch(5, 10)
        keys.credentials = Credentials("alice", "new")
        assert await blob.fetch(5, 10) == DATA[5:15]


async def test_a_challenge_of_a_redirected_host_gets_nothing(nursery: trio.Nursery, keys: Keys) -> None:
    fake = await nursery.start(FakeRegistry(redirect_blobs=True).serve)
    headers = {"www-authenticate": f'Bearer realm="http://{fake.token_host}/token"'}
    fake.inject("status", listener="storage", status=401, headers=headers, times=None)
    descriptor = fake.put_blob("team/app", DATA)
    async with RegistryClient(credentials=keys) as client:
        blob = client.open_blob(Reference.parse(f"{fake.host}/team/app"), descriptor)
        with pytest.raises(UnauthorizedError):
            await blob.fetch(5, 10)
    assert fake.requests("/token") == []
    assert keys.asked == []


@pytest.mark.parametrize(
    ("realm", "error"),
    [
        ("http://tokens.example/token", UnauthorizedError),
        ("ftp://127.0.0.1/token", BadResponseError),
        ("http://user:pass@127.0.0.1/token", BadResponseError),
        ("", BadResponseError),
    ],
)
async def test_a_token_server_that_must_not_see_credentials(
    locked: World, realm: str, error: type[RegistryError]
) -> None:
    locked.fake.challenge = f'Bearer realm="{realm}",service="x"'
    with pytest.raises(error):
        await locked.blob().fetch(5, 10)


async def test_a_challenge_that_nobody_understands_is_a_refusal(locked: World) -> None:
    locked.fake.challenge = "Negotiate"
    with pytest.raises(UnauthorizedError, match=r"got 401 \(UNAUTHORIZED\)"):
        await locked.blob().fetch(5, 10)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"token": 5}', b'{"token": "a\\r\\nX: y"}', b'{"token": "x", "expires_in": "s"}'],
)
async def test_a_token_server_that_answers_garbage_is_refused(locked: World, body: bytes) -> None:
    locked.fake.inject("status", listener="token", status=200, body=body)
    with pytest.raises(BadResponseError, match="token"):
        await locked.blob().fetch(5, 10)


async def test_a_token_server_that_fails_for_a_moment_is_asked_again(locked: World, clock: MockClock) -> None:
    locked.fake.inject("status", listener="token", status=503)
    locked.fake.inject("disconnect", listener="token", skip=1)
    assert await locked.blob().fetch(5, 10) == DATA[5:15]


async def test_a_token_server_that_stalls_fails_in_time(locked: World, clock: MockClock) -> None:
    locked.fake.inject("stall", listener="token", at=None, times=None)
    started = trio.current_time()
    with pytest.raises(UnavailableError):
        await locked.blob().fetch(5, 10)
    assert trio.current_time() - started <= 20


async def test_a_token_server_that_is_down_does_not_hurt_while_the_token_lives(
    locked: World, clock: MockClock
) -> None:
    blob = locked.blob()
    await blob.fetch(5, 10)
    await trio.sleep(280)
    locked.fake.inject("disconnect", listener="token", times=None)
    assert await blob.fetch(5, 10) == DATA[5:15]


async def test_one_reader_that_gives_up_does_not_take_the_others_token(
    locked: World, clock: MockClock
) -> None:
    locked.fake.inject("delay", listener="token", seconds=3)
    blob = locked.blob()

    async def impatient() -> None:
        with trio.move_on_after(1):
            await blob.fetch(5, 10)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(impatient)
        await trio.sleep(0.1)
        assert await blob.fetch(5, 10) == DATA[5:15]


async def test_no_secret_is_logged(locked: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await locked.blob().fetch(5, 10)
    for token in (*locked.fake.tokens, SECRET):
        assert token not in caplog.text
    assert SECRET not in repr(Credentials("alice", SECRET, SECRET, SECRET))


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        (['Basic realm="x"'], [("basic", {"realm": "x"})]),
        (
            ['Bearer realm="https://a/t",service="s",scope="repository:a/b:pull,push"'],
            [("bearer", {"realm": "https://a/t", "service": "s", "scope": "repository:a/b:pull,push"})],
        ),
        (["BEARER Realm = tok , Basic"], [("bearer", {"realm": "tok"}), ("basic", {})]),
        (
            ['Basic realm="a \\"b\\", c", Bearer realm="d"'],
            [("basic", {"realm": 'a "b", c'}), ("bearer", {"realm": "d"})],
        ),
        (["Negotiate YII=, Basic realm=x"], [("negotiate", {}), ("basic", {"realm": "x"})]),
        (["Basic", "Bearer realm=y"], [("basic", {}), ("bearer", {"realm": "y"})]),
        ([", ,Basic realm=x,,"], [("basic", {"realm": "x"})]),
        (['Bearer realm="open'], [("bearer", {})]),
        (['"nonsense"'], []),
        ([""], []),
        ([], []),
    ],
)
def test_challenges_are_parsed(headers: list[str], wanted: list[tuple[str, dict[str, str]]]) -> None:
    got = parse_challenges(headers)
    assert [(challenge.scheme, challenge.parameters) for challenge in got] == wanted
    assert all(isinstance(challenge, Challenge) for challenge in got)
