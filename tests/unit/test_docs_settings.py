"""The table of settings in the documentation is made from the settings themselves."""

from pathlib import Path

from registry_storage.flags import settings_table

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_documented_settings_are_the_settings() -> None:
    text = PAGE.read_text("utf-8")
    table = settings_table()
    assert table in text, f"docs/configuration.md: put this table under <!-- settings -->:\n{table}"
