"""The documentation: every page is in the site, every link leads somewhere, every command exists."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import newcomer, shown
from registry_storage import cli, ctl

PROJECT = Path(__file__).parents[2]
PAGES = sorted([PROJECT / "README.md", *(PROJECT / "docs").rglob("*.md"), *(PROJECT / "deploy").rglob("*.md")])
_FENCE = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def commands() -> Iterator[tuple[str, str]]:
    """Each line of ours in a block of shell, with its page."""
    for page in PAGES:
        for block in _FENCE.findall(page.read_text("utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                words = line.split()
                if words and Path(words[0]).name in ("registry-storage", "registry-storagectl"):
                    yield page.name, line


COMMANDS = list(commands())


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[f"{page}: {line[:60]}" for page, line in COMMANDS])
def test_a_command_that_is_shown_exists(page: str, line: str) -> None:
    program, *words = shlex.split(line, comments=True)
    kind = Path(program).name
    parser = cli.build_parser() if kind == "registry-storage" else ctl.build_parser()
    words = [f"{word}=podman" if word in ("--zstd-chunked", "--zstdchunked") else word for word in words]
    if {"--help", "--version"} & set(words):
        return
    assert parser.parse_args(words)


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) >= 10


def test_every_page_with_commands_is_typed_into_a_clean_system() -> None:
    assert {*newcomer.TYPED, *newcomer.LEFT_OUT} == set(shown.pages())


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    said = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    for page in (PROJECT / "docs").rglob("*.md"):
        name = page.relative_to(PROJECT / "docs").with_suffix("")
        place = name.parent if name.name in ("index", "README") else name
        assert (tmp_path / place / "index.html").is_file(), f"mkdocs.yml: nav lacks {name}.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_links_lead_to_files(page: Path) -> None:
    for link in _LINK.findall(page.read_text("utf-8")):
        path = link.partition("#")[0]
        if path and "://" not in path:
            assert (page.parent / path).exists(), f"{page.name}: {link}"
