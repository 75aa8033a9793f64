"""A refusal says which credentials were refused, and what to do: never a secret."""

import base64
import json
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from registry_storage.config import Settings
from registry_storage.errors import RegistryError, UnauthorizedError, UnavailableError
from registry_storage.reference import Reference
from registry_storage.registry.surroundings import Surroundings
from tests.fakes.registry import FakeRegistry
from tests.fakes.registry_world import DATA

pytest_plugins = ["tests.fakes.registry_fixtures"]

SECRET = "s3cret-s3cret"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "registries.conf").touch()
    return Settings(
        registries_conf=tmp_path / "registries.conf", auth_file=tmp_path / "auth.json", certs_dir=tmp_path / "certs.d"
    )


def log_in(settings: Settings, fake: FakeRegistry, user: str = "alice", password: str = SECRET) -> None:
    assert settings.auth_file is not None
    entry = {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}
    settings.auth_file.write_text(json.dumps({"auths": {fake.host: entry}}))


async def refusal(fake: FakeRegistry, settings: Settings, kind: type[RegistryError] = UnauthorizedError) -> str:
    """The message of what a read fails with."""
    descriptor = fake.put_blob("team/app", DATA)
    async with Surroundings.of(settings).client() as client:
        with pytest.raises(kind) as caught:
            await client.open_blob(Reference.parse(f"{fake.host}/team/app:v1"), descriptor).fetch(5, 10)
    text = str(caught.value)
    assert SECRET not in text
    assert base64.b64encode(SECRET.encode()).decode().strip("=") not in text
    return text


@pytest.mark.parametrize("auth", ["basic", "bearer"])
async def test_nothing_is_known(nursery: trio.Nursery, settings: Settings, auth: str) -> None:
    fake = await nursery.start(FakeRegistry(auth=auth, users={"alice": SECRET}).serve)
    text = await refusal(fake, settings)
    assert text.endswith(f"; no credentials for {fake.host}/team/app are known here: podman login {fake.host}")


@pytest.mark.parametrize("auth", ["basic", "bearer"])
async def test_the_password_is_wrong(nursery: trio.Nursery, settings: Settings, auth: str) -> None:
    fake = await nursery.start(FakeRegistry(auth=auth, users={"alice": "another"}).serve)
    log_in(settings, fake)
    text = await refusal(fake, settings)
    assert text.endswith(
        f"; the credentials from {settings.auth_file} are not accepted (any more): podman login {fake.host}"
    )
    assert ("token from" in text) == (auth == "bearer")


async def test_an_identity_token_has_expired(nursery: trio.Nursery, settings: Settings) -> None:
    fake = await nursery.start(FakeRegistry(auth="bearer", identity_tokens={"alice": "another"}).serve)
    assert settings.auth_file is not None
    settings.auth_file.write_text(json.dumps({"auths": {fake.host: {"identitytoken": SECRET}}}))
    assert f"the credentials from {settings.auth_file} are not accepted" in await refusal(fake, settings)


async def test_the_user_may_not(nursery: trio.Nursery, settings: Settings) -> None:
    fake = await nursery.start(FakeRegistry(auth="bearer", users={"alice": SECRET}).serve)
    log_in(settings, fake)
    fake.inject("status", path="/blobs/", status=403, times=None, skip=1)
    text = await refusal(fake, settings)
    assert text.endswith(f"; has the user of {settings.auth_file} access to {fake.host}/team/app?")


async def test_a_helper_is_named(
    nursery: trio.Nursery, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = await nursery.start(FakeRegistry(auth="basic", users={"alice": "another"}).serve)
    program = tmp_path / "docker-credential-mine"
    program.write_text(f'#!/bin/sh\necho \'{{"Username": "alice", "Secret": "{SECRET}"}}\'\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert settings.registries_conf is not None
    settings.registries_conf.write_text('credential-helpers = ["containers-auth.json", "mine"]')
    assert "the credentials from docker-credential-mine are not accepted" in await refusal(fake, settings)
    fake.users["alice"] = SECRET
    async with Surroundings.of(settings).client() as client:
        blob = client.open_blob(Reference.parse(f"{fake.host}/team/app:v1"), fake.put_blob("team/app", DATA))
        assert await blob.fetch(5, 10) == DATA[5:15]


async def test_too_many_requests(nursery: trio.Nursery, settings: Settings, clock: MockClock) -> None:
    fake = await nursery.start(FakeRegistry().serve)
    fake.inject("status", path="/blobs/", status=429, times=None)
    text = await refusal(fake, settings, UnavailableError)
    assert f"{fake.host} limits how often it is asked; those who log in may ask more often" in text


async def test_tokens_that_live_five_seconds_are_renewed_in_time(
    nursery: trio.Nursery, settings: Settings, clock: MockClock
) -> None:
    fake = await nursery.start(FakeRegistry(auth="bearer", users={"alice": SECRET}, token_seconds=5).serve)
    log_in(settings, fake)
    descriptor = fake.put_blob("team/app", DATA)
    async with Surroundings.of(settings).client() as client:
        blob = client.open_blob(Reference.parse(f"{fake.host}/team/app:v1"), descriptor)
        for number in range(30):
            assert await blob.fetch(number, 10) == DATA[number : number + 10]
            await trio.sleep(1)
    refused = [request for request in fake.requests("/blobs/") if "authorization" not in request.headers]
    assert len(refused) == 1
    assert 6 <= len(fake.requests("/token")) <= 9
