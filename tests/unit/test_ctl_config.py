"""``registry-storagectl config``: every setting with its origin, and never a secret."""

import json
import tomllib
from pathlib import Path

import pytest

from registry_storage import ctl
from registry_storage.cli import build_parser
from registry_storage.config import DESCRIPTIONS, Settings, load_effective, load_settings


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "REGISTRY_AUTH_FILE", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(tmp_path / "registries.conf"))
    return tmp_path


def test_every_setting_is_a_flag_with_a_description() -> None:
    text = build_parser().format_help()
    for about in DESCRIPTIONS:
        assert about.flag in text
        assert about.text


def test_what_is_printed_is_a_configuration_file(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = home / "config.toml"
    file.write_text('read_timeout_seconds = 7\nroot = "/srv/x"\n')
    assert ctl.main(["config", "--config", str(file), "--no-prefetch"]) == 0
    text = capsys.readouterr().out
    again = home / "again.toml"
    again.write_text(text)
    settings = load_settings(again, {})
    assert (settings.read_timeout_seconds, settings.prefetch, str(settings.root)) == (7.0, False, "/srv/x")
    assert settings.log_level == Settings().log_level
    assert len(tomllib.loads(text)) >= 8
    origins = {line.split()[0]: line.rpartition("# ")[2] for line in text.splitlines() if " = " in line}
    assert origins["read_timeout_seconds"] == str(file)
    assert origins["prefetch"] == "--no-prefetch"
    assert origins["log_level"] == "default"


def test_the_files_of_podman_are_named(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "registries.conf").write_text('credential-helpers = ["containers-auth.json", "mine"]')
    (home / ".docker").mkdir()
    (home / ".docker/config.json").write_text('{"auths": {"r.example": {"auth": "dXNlcjpzM2NyZXQ="}}}')
    (home / ".config/containers/certs.d").mkdir(parents=True)
    monkeypatch.setenv("HTTPS_PROXY", "http://me:s3cret@proxy.example:3128")
    assert ctl.main(["config", "--json"]) == 0
    text = capsys.readouterr().out
    document = json.loads(text)
    assert str(home / "registries.conf") in document["registries"]
    assert {str(home / ".docker/config.json"), "docker-credential-mine"} <= set(document["credentials"])
    assert str(home / ".config/containers/certs.d") in document["certificates"]
    assert "https: http://proxy.example:3128 with a user (HTTPS_PROXY)" in text
    assert "s3cret" not in text
    assert "dXNl" not in text


def test_a_wrong_file_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = home / "config.toml"
    file.write_text("colour = 1")
    assert ctl.main(["config", "--config", str(file)]) == 2
    assert "unknown key 'colour'" in capsys.readouterr().err


def test_a_user_with_a_daemon_of_their_own_means_that_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    own = home / ".local/share/registry-storage"
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert load_settings(None, {}).root == Settings().root
    own.mkdir(parents=True)
    effective = load_effective(None, {})
    assert (effective.settings.root, effective.origins["root"]) == (own, "user's own")
    assert load_settings(None, {"root": Path("/srv/x")}).root == Path("/srv/x")
    file = home / ".config/registry-storage/config.toml"
    file.parent.mkdir(parents=True)
    file.write_text("prefetch = false\n")
    effective = load_effective(None, {})
    assert (effective.settings.prefetch, effective.settings.root, effective.file) == (False, own, file)
    file.write_text('root = "/srv/y"\n')
    assert load_settings(None, {}).root == Path("/srv/y")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert load_settings(None, {}).root == Settings().root
