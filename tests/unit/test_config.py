"""Settings: where they come from, and what is refused."""

from pathlib import Path

import pytest

from registry_storage.config import Settings, load_settings
from registry_storage.descriptor import Platform
from registry_storage.errors import ConfigError


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('log_level = "debug"\nbackground_fetch = false\nroot = "/srv/layers"\nread_timeout_seconds = 5\n')
    settings = load_settings(file, {"log_level": "error"})
    assert settings.log_level == "error"
    assert settings.background_fetch is False
    assert settings.root == Path("/srv/layers")
    assert settings.read_timeout_seconds == 5.0
    assert settings.prefetch is Settings().prefetch


def test_the_platform_is_parsed(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('platform = "linux/arm/v7"')
    assert load_settings(file, {}).platform == Platform("linux", "arm", "v7")


def test_a_missing_default_file_is_fine_and_a_missing_named_file_is_not(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_settings(tmp_path / "missing.toml", {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colour = 1", "unknown key 'colour'"),
        ("prefetch = 1", "prefetch: wanted bool, got int"),
        ("lookup_timeout_seconds = 0.0", "wanted 1 to 300, got 0.0"),
        ('log_level = "loud"', "wanted one of debug, info, warning, error, got 'loud'"),
        ('platform = "linux"', "wanted os/architecture"),
        ("= 3", "not TOML"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"config\.toml") as caught:
        load_settings(file, {})
    assert message in str(caught.value)
