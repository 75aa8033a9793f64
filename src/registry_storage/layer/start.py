"""What a container of an image starts, as far as its config tells (OCI image specification, config.md, "config")."""

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..descriptor import load_json

MAX_WORDS = 32
"""Of entrypoint and command together, those of a shell's script included."""
MAX_DIRECTORIES = 8
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MAX_TEXT = 4096


@dataclass(frozen=True, slots=True)
class Start:
    """Entrypoint and command in words, and where programs are looked for."""

    words: tuple[str, ...]
    path: tuple[str, ...]
    directory: str
    """Where it starts."""

    @classmethod
    def of(cls, config: bytes, what: str) -> "Start":
        """By an image config; what is not as it should be is left out. Raises InvalidDocumentError for no object."""
        settings = load_json(config, what).get("config")
        settings = settings if isinstance(settings, dict) else {}
        words = [*_texts(settings.get("Entrypoint")), *_texts(settings.get("Cmd"))]
        path = DEFAULT_PATH
        for setting in _texts(settings.get("Env")):
            name, _, value = setting.partition("=")
            if name == "PATH":
                path = value
        directory = settings.get("WorkingDir")
        return cls(
            tuple(part for word in words for part in word.split())[:MAX_WORDS],
            tuple(part for part in path.split(":") if part.startswith("/"))[:MAX_DIRECTORIES],
            directory if isinstance(directory, str) and directory.startswith("/") else "/",
        )

    def candidates(self) -> Iterator[bytes]:
        """Absolute paths where a program may be that one of the words names: an entrypoint often starts the command."""
        for word in dict.fromkeys(self.words):
            if word.startswith("-"):
                continue
            directories = (self.directory,) if "/" in word else self.path
            for directory in directories:
                yield posixpath.join(directory, word).encode("utf-8", "surrogateescape")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        yield from (text[:_MAX_TEXT] for text in value[:MAX_WORDS] if isinstance(text, str))
