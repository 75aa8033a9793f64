"""The commands that the documentation shows, typed into a booted system as they stand there."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from lab import processes
from lab.systemd import Booted

PROJECT = Path(__file__).parent.parent
_FENCE = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
_AT_A_TERMINAL = "while printf q 2> /dev/null; do sleep 0.2; done | script -qec '{}' /dev/null"
"""`top` wants one, and ends when somebody types q."""


def pages() -> Iterator[str]:
    """Those with commands in them."""
    for path in (PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))):
        if _FENCE.search(path.read_text()):
            yield str(path.relative_to(PROJECT))


def commands(page: str, heading: str = "", end: str = "") -> list[str]:
    """Those of a page, from a heading on (else all) up to another one."""
    text = (PROJECT / page).read_text()
    text = text[text.index(heading) :]
    if end:
        text = text[: text.index(end)]
    blocks = (block.replace("\\\n", " ") for block in _FENCE.findall(text))
    return [" ".join(line.split()) for block in blocks for line in block.splitlines() if line.strip()]


class Typist:
    """Types commands, and looks whether each does what it should."""

    def __init__(
        self,
        system: Booted,
        names: Mapping[str, str],
        *,
        user: str = "root",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`names`: what stands in place of the documentation's."""
        self._system = system
        self._names = names
        self._user = user
        self._environment = environment

    def types(self, command: str) -> str:
        """What it said. Raises ProgramError."""
        for name, ours in self._names.items():
            command = command.replace(name, ours)
        print(f"$ {command}", flush=True)
        plain = command.partition("#")[0].strip()
        done = self._system.run(
            _AT_A_TERMINAL.format(plain) if plain.endswith(" top") else command,
            user=self._user,
            environment=self._environment,
        )
        print(done.stdout, end="", flush=True)
        # `explain` is asked about an image that is not lazy.
        expect(done.returncode == int(" explain " in command), command, f"status {done.returncode}\n{done.stdout}")
        expect(not re.search(r"^(WARNING|FAILURE) ", done.stdout, re.MULTILINE), command, done.stdout)
        return done.stdout


def expect(right: bool, what: str, said: str) -> None:
    """Raises ProgramError where something is not right."""
    if not right:
        raise processes.ProgramError(f"{what}: {said}")
