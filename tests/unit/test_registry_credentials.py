"""Where credentials come from."""

import base64
import json
import os
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from registry_storage.errors import ConfigError
from registry_storage.registry.auth_files import AuthFiles, auth_file_paths
from registry_storage.registry.credentials import Credentials

pytest_plugins = ["tests.fakes.registry_fixtures"]


def auth(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "auth.json"


def write(path: Path, **document: object) -> AuthFiles:
    path.write_text(json.dumps(document))
    return AuthFiles([path])


def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, name: str = "test") -> None:
    """Install ``docker-credential-<name>``."""
    program = tmp_path / f"docker-credential-{name}"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


async def test_the_most_specific_key_wins(path: Path) -> None:
    keys = ["quay.io", "quay.io/team", "quay.io/team/app"]
    files = write(path, auths={key: auth(key, "p") for key in keys})
    for name, wanted in [
        ("quay.io/team/app", "quay.io/team/app"),
        ("quay.io/team/other", "quay.io/team"),
        ("quay.io/team2/app", "quay.io"),
        ("quay.io/x", "quay.io"),
    ]:
        found = await files.find(name)
        assert found is not None
        assert found.username == wanted
    assert await files.find("quay.io.example/x") is None
    assert await files.find("quay.io:5000/x") is None


@pytest.mark.parametrize(
    "key",
    [
        "https://index.docker.io/v1/",
        "index.docker.io",
        "docker.io",
        "registry-1.docker.io",
        "docker.io/library",
    ],
)
async def test_docker_hub_has_many_names(path: Path, key: str) -> None:
    files = write(path, auths={key: auth("u", "p")})
    assert await files.find("docker.io/library/nginx") == Credentials("u", "p")


@pytest.mark.parametrize(
    "key", ["https://quay.io", "http://quay.io/v1/", "quay.io/v2/", "https://quay.io/anything"]
)
async def test_docker_wrote_urls(path: Path, key: str) -> None:
    files = write(path, auths={key: auth("u", "p")})
    assert await files.find("quay.io/team/app") == Credentials("u", "p")


async def test_a_namespace_is_no_host(path: Path) -> None:
    files = write(path, auths={"quay.io/other": auth("u", "p")})
    assert await files.find("quay.io/team/app") is None


async def test_the_first_file_with_credentials_decides(tmp_path: Path) -> None:
    first, second = tmp_path / "one.json", tmp_path / "two.json"
    write(first, auths={"quay.io": {}, "ghcr.io": auth("first", "p")})
    write(second, auths={"quay.io/team": auth("second", "p"), "ghcr.io": auth("second", "p")})
    files = AuthFiles([tmp_path / "none.json", first, second])
    assert (await files.find("quay.io/team/app")) == Credentials("second", "p")
    assert (await files.find("ghcr.io/team/app")) == Credentials("first", "p")


async def test_an_old_dockercfg_is_a_table_of_auths(tmp_path: Path) -> None:
    path = tmp_path / ".dockercfg"
    path.write_text(json.dumps({"https://index.docker.io/v1/": auth("u", "p")}))
    assert await AuthFiles([path]).find("docker.io/library/nginx") == Credentials("u", "p")


async def test_passwords_may_hold_colons_and_tokens_stand_beside(path: Path) -> None:
    files = write(
        path,
        auths={
            "a.example": auth("u", "p:q"),
            "b.example": {"identitytoken": "id"},
            "c.example": {"registrytoken": "rt"},
            "d.example": {"username": "u", "password": "p"},
        },
    )
    assert await files.find("a.example/x") == Credentials("u", "p:q")
    assert await files.find("b.example/x") == Credentials(identity_token="id")
    assert await files.find("c.example/x") == Credentials(registry_token="rt")
    assert await files.find("d.example/x") == Credentials("u", "p")


async def test_a_file_that_changes_is_read_again(path: Path) -> None:
    files = write(path, auths={"quay.io": auth("old", "p")})
    assert await files.find("quay.io/x") == Credentials("old", "p")
    write(path, auths={"quay.io": auth("renewed", "p")})
    assert await files.find("quay.io/x") == Credentials("renewed", "p")
    path.unlink()
    assert await files.find("quay.io/x") is None


async def test_no_file_and_an_empty_file_hold_nothing(path: Path) -> None:
    assert await AuthFiles([path, path / "below"]).find("quay.io/x") is None
    path.write_text("\n")
    assert await AuthFiles([path, path / "below"]).find("quay.io/x") is None


@pytest.mark.parametrize(
    "text",
    [
        "{not json, s3cret",
        "[]",
        '{"auths": []}',
        '{"auths": {"quay.io": "s3cret"}}',
        '{"auths": {"quay.io": {"auth": "s3cret!"}}}',
        '{"auths": {"quay.io": {"auth": "czNjcmV0"}}}',
        '{"auths": {"quay.io": {"auth": 5}}}',
        '{"auths": {"quay.io": {"identitytoken": ["s3cret"]}}}',
        '{"credHelpers": {"quay.io": "../../bin/sh"}}',
        '{"credHelpers": {"quay.io": 5}}',
        '{"credHelpers": {"quay.io": "surely-not-installed"}}',
        '{"credsStore": "a b"}',
        "[" * 100_000,
    ],
)
async def test_a_broken_file_is_named_and_its_secret_is_not(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"auth\.json") as caught:
        await AuthFiles([path]).find("quay.io/x")
    assert "s3cret" not in str(caught.value)
    assert "czNj" not in str(caught.value)


async def test_a_file_that_is_too_large_is_refused(path: Path) -> None:
    path.write_bytes(b" " * (4 << 20) + b"{}")
    with pytest.raises(ConfigError, match="wanted at most"):
        await AuthFiles([path]).find("quay.io/x")


# Helpers.


async def test_a_helper_answers_for_its_registry(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper(
        tmp_path,
        monkeypatch,
        """read host; echo "{\\"Username\\": \\"$1-$host\\", \\"Secret\\": \\"s\\"}" """,
    )
    files = write(path, credHelpers={"quay.io": "test"}, auths={"quay.io": auth("file", "p")})
    assert await files.find("quay.io/team/app") == Credentials("get-quay.io", "s")


async def test_a_store_is_asked_for_every_registry(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper(
        tmp_path, monkeypatch, """read host; echo "{\\"Username\\": \\"$host\\", \\"Secret\\": \\"s\\"}" """
    )
    files = write(path, credsStore="test", auths={"quay.io": {}})
    assert await files.find("quay.io/team/app") == Credentials("quay.io", "s")
    assert await files.find("docker.io/library/nginx") == Credentials("https://index.docker.io/v1/", "s")


async def test_a_helpers_identity_token(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(tmp_path, monkeypatch, """echo '{"Username": "<token>", "Secret": "id"}' """)
    files = write(path, credsStore="test")
    assert await files.find("quay.io/team/app") == Credentials(identity_token="id")


async def test_a_helper_that_knows_nothing(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper(tmp_path, monkeypatch, "echo credentials not found in native keychain; exit 1")
    files = write(path, credHelpers={"quay.io": "test"}, auths={"quay.io": auth("file", "p")})
    assert await files.find("quay.io/team/app") == Credentials("file", "p")


async def test_a_store_that_is_not_installed_knows_nothing(path: Path) -> None:
    assert await write(path, credsStore="surely-not-installed").find("quay.io/x") is None


@pytest.mark.parametrize(
    "script", ["echo no json", "echo '{}'", 'echo \'{"Username": 1, "Secret": "s3cret"}\'', "yes"]
)
async def test_a_helper_that_answers_garbage(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    helper(tmp_path, monkeypatch, script)
    with pytest.raises(ConfigError, match="docker-credential-test") as caught:
        await write(path, credHelpers={"quay.io": "test"}).find("quay.io/x")
    assert "s3cret" not in str(caught.value)


async def test_a_helper_that_hangs_is_ended(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: MockClock
) -> None:
    helper(tmp_path, monkeypatch, "exec sleep 3600")
    started = trio.current_time()
    with pytest.raises(ConfigError, match="no answer in 10"):
        await write(path, credHelpers={"quay.io": "test"}).find("quay.io/x")
    assert trio.current_time() - started == pytest.approx(10, abs=1)


# Places.


@pytest.mark.parametrize(
    ("user", "runtime", "wanted"),
    [
        (7, "/run/user/7", ["/run/user/7"]),
        (7, "", ["/run/containers/7"]),
        (0, "", ["/run/containers/0", "/run/user/0"]),
        (0, "/run/user/0", ["/run/user/0", "/run/containers/0"]),
    ],
)
def test_the_places_in_order(monkeypatch: pytest.MonkeyPatch, user: int, runtime: str, wanted: list[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    paths = auth_file_paths({"HOME": "/home/u", "XDG_RUNTIME_DIR": runtime})
    assert [str(path).replace("/containers/auth.json", "").replace("/auth.json", "") for path in paths] == [
        *wanted,
        "/home/u/.config",
        "/home/u/.docker/config.json",
        "/home/u/.dockercfg",
    ]


def test_other_homes_of_the_files() -> None:
    paths = auth_file_paths({"HOME": "/h", "XDG_CONFIG_HOME": "/c", "DOCKER_CONFIG": "/d"})
    assert [str(path) for path in paths[-3:]] == ["/c/containers/auth.json", "/d/config.json", "/h/.dockercfg"]


def test_a_named_file_is_the_only_one() -> None:
    assert auth_file_paths({"REGISTRY_AUTH_FILE": "/x", "HOME": "/h"}) == [Path("/x")]
