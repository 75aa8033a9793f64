"""What is kept in the repository and made from the program is up to date: `make pages` renews it."""

import argparse
import subprocess
from pathlib import Path

import pytest

from registry_storage import cli, ctl, manual

PROJECT = Path(__file__).parents[2]


def options(parser: argparse.ArgumentParser) -> set[str]:
    """Every long option, those of commands too."""
    found: set[str] = set()
    for action in parser._actions:
        found |= {option for option in action.option_strings if option.startswith("--")}
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                found |= options(sub)
    return found


@pytest.mark.parametrize("name", ["registry-storage.1", "registry-storagectl.1"])
def test_manual_pages(name: str) -> None:
    assert (PROJECT / "docs/man" / name).read_text() == manual.pages()[name], "run `make pages`"


@pytest.mark.parametrize("name", ["registry-storage.1", "registry-storagectl.1"])
def test_a_manual_page_is_understood(name: str) -> None:
    command = ["groff", "-Kutf8", "-man", "-Tutf8", "-ww", "-z", str(PROJECT / "docs/man" / name)]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line for line in said.stderr.splitlines() if "adjust" not in line and "break" not in line] == []


@pytest.mark.parametrize(
    ("name", "parser"), [("registry-storage", cli.build_parser()), ("registry-storagectl", ctl.build_parser())]
)
def test_completion_knows_every_option(name: str, parser: argparse.ArgumentParser) -> None:
    for path in (PROJECT / f"completion/{name}.bash", PROJECT / f"completion/_{name}"):
        text = path.read_text()
        missing = {option for option in options(parser) if option not in text and not option.startswith("--no-")}
        assert not missing, f"{path}: run `make pages`"
    subprocess.run(["bash", "-n", str(PROJECT / f"completion/{name}.bash")], check=True)


def test_bash_completes_a_command() -> None:
    script = (
        f"source {PROJECT}/completion/registry-storagectl.bash\n"
        "COMP_WORDS=(registry-storagectl doc); COMP_CWORD=1\n"
        "_shtab_registry_storagectl\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    said = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert "doctor" in said.stdout.split()


def test_the_forges_copy_of_the_workflow_is_the_same() -> None:
    assert (PROJECT / ".github/workflows/wheels.yml").read_text() == (PROJECT / "wheels.yml").read_text()
