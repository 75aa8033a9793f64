"""The ``WWW-Authenticate`` header (RFC 9110 section 11.6.1)."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_MAX_CHARACTERS = 8 << 10
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf'({_WORD})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|({_WORD}))', re.ASCII)
_SCHEME = re.compile(rf"({_WORD})(?:[ \t]+|(?=,)|$)", re.ASCII)
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*[ \t]*(?=,|$)", re.ASCII)
_SEPARATORS = re.compile(r"[ \t,]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to authenticate that a server offers."""

    scheme: str
    """In lower case."""
    parameters: Mapping[str, str]
    """Names in lower case."""


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """The challenges of all ``WWW-Authenticate`` headers of a reply; nothing after a malformed one."""
    challenges: list[Challenge] = []
    for text in headers:
        parameters: dict[str, str] | None = None
        text = text[:_MAX_CHARACTERS]
        position = 0
        while (position := _end(_SEPARATORS, text, position)) < len(text):
            match = _PARAMETER.match(text, position)
            if match and parameters is not None:
                quoted = match[2]
                value = match[3] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
                parameters.setdefault(match[1].lower(), value)
                position = match.end()
                continue
            match = _SCHEME.match(text, position)
            if not match:
                break
            parameters = {}
            challenges.append(Challenge(match[1].lower(), parameters))
            position = _end(_TOKEN68, text, match.end())
    return challenges


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    return match.end() if match else position
