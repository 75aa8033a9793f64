"""The kubelet's credential provider plugins: which are asked, what they get, how long their answer counts."""

import json
from pathlib import Path
from typing import Any

import pytest
import trio
import yaml
from trio.testing import MockClock

from registry_storage.config import Settings
from registry_storage.errors import ConfigError
from registry_storage.registry.credentials import Credentials
from registry_storage.registry.providers import CredentialProviders, matches
from registry_storage.registry.surroundings import Surroundings

pytest_plugins = ["tests.fakes.registry_fixtures"]

CONFIG = {
    "apiVersion": "kubelet.config.k8s.io/v1",
    "kind": "CredentialProviderConfig",
    "providers": [
        {
            "name": "cloud",
            "matchImages": ["*.registry.example.com", "other.example.com:5000/team"],
            "defaultCacheDuration": "10m0s",
            "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
            "args": ["get-credentials"],
            "env": [{"name": "PROFILE", "value": "node"}],
        }
    ],
}
NAME = "a.registry.example.com/team/app"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    return path


def plugin(tmp_path: Path, **answer: Any) -> Path:
    """Writes down what it was asked."""
    auth = {"*.registry.example.com": {"username": "u", "password": "p"}}
    document = {"kind": "CredentialProviderResponse", "auth": auth}
    path = tmp_path / "cloud"
    path.write_text(
        f"#!/bin/sh\ncat >> {tmp_path}/asked; echo \" $1 $PROFILE\" >> {tmp_path}/asked\n"
        f"cat <<'END'\n{json.dumps(document | answer)}\nEND\n"
    )
    path.chmod(0o755)
    return tmp_path


def asked(tmp_path: Path) -> list[str]:
    path = tmp_path / "asked"
    return path.read_text().splitlines() if path.exists() else []


async def test_a_plugin_that_matches_is_asked_and_its_answer_kept(
    config: Path, tmp_path: Path, clock: MockClock
) -> None:
    providers = CredentialProviders(config, plugin(tmp_path))
    for _ in range(2):
        assert await providers.find(NAME) == Credentials("u", "p")
    (line,) = asked(tmp_path)
    request = json.loads(line.removesuffix(" get-credentials node"))
    assert request == {
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        "kind": "CredentialProviderRequest",
        "image": NAME,
    }
    await trio.sleep(601)
    await providers.find(NAME)
    assert len(asked(tmp_path)) == 2


async def test_the_plugins_own_duration_counts(config: Path, tmp_path: Path, clock: MockClock) -> None:
    providers = CredentialProviders(config, plugin(tmp_path, cacheDuration="5s"))
    await providers.find(NAME)
    await trio.sleep(6)
    await providers.find(NAME)
    assert len(asked(tmp_path)) == 2


async def test_one_that_does_not_match_is_not_asked(config: Path, tmp_path: Path) -> None:
    providers = CredentialProviders(config, plugin(tmp_path))
    assert await providers.find("docker.io/library/nginx") is None
    assert asked(tmp_path) == []


async def test_an_answer_for_others_is_none(config: Path, tmp_path: Path) -> None:
    providers = CredentialProviders(config, plugin(tmp_path, auth={"b.example": {"username": "u", "password": "p"}}))
    assert await providers.find(NAME) is None


async def test_podmans_files_come_first(config: Path, tmp_path: Path) -> None:
    auth = tmp_path / "auth.json"
    auth.write_text(json.dumps({"auths": {"a.registry.example.com": {"username": "file", "password": "p"}}}))
    (tmp_path / "registries.conf").touch()
    settings = Settings(
        registries_conf=tmp_path / "registries.conf",
        auth_file=auth,
        credential_providers=config,
        credential_provider_dir=plugin(tmp_path),
    )
    found = await Surroundings.of(settings).credentials.find(NAME)
    assert found == Credentials("file", "p")
    found = await Surroundings.of(settings).credentials.find("b.registry.example.com/x")
    assert found == Credentials("u", "p")
    assert found.origin == "credential provider cloud"


@pytest.mark.parametrize(
    ("pattern", "name", "wanted"),
    [
        ("r.example", "r.example/a", True),
        ("r.example", "r.example:5000/a", False),
        ("r.example:5000", "r.example:5000/a", True),
        ("*.example", "r.example/a", True),
        ("*.example", "a.r.example/a", False),
        ("*.*.example", "a.r.example/a", True),
        ("app*.example", "app1.example/x", True),
        ("r.example/team", "r.example/team/app", True),
        ("r.example/team", "r.example/other", False),
        ("https://r.example", "r.example/a", True),
    ],
)
def test_patterns(pattern: str, name: str, wanted: bool) -> None:
    assert matches(pattern, name) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "a: [",
        "5",
        "providers: 5",
        "providers: [5]",
        "providers: [{name: x}]",
        "providers: [{name: ../x, matchImages: []}]",
        "providers: [{name: x, matchImages: [], apiVersion: other/v1}]",
        "providers: [{name: x, matchImages: [], defaultCacheDuration: soon}]",
    ],
)
async def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        await CredentialProviders(path, tmp_path).find(NAME)


@pytest.mark.parametrize(
    ("script", "message"),
    [("exit 3", "status 3"), ("echo s3cret", "wanted a CredentialProviderResponse"), ("exec sleep 60", "no answer in")],
)
async def test_a_broken_plugin_is_named(
    config: Path, tmp_path: Path, clock: MockClock, script: str, message: str
) -> None:
    (tmp_path / "cloud").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "cloud").chmod(0o755)
    with pytest.raises(ConfigError, match=f"credential provider cloud: .*{message}") as caught:
        await CredentialProviders(config, tmp_path).find(NAME)
    assert "s3cret" not in str(caught.value)


async def test_a_missing_plugin_is_named(config: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        await CredentialProviders(config, tmp_path).find(NAME)
