"""What was looked at, and what to do about it."""

import enum
from dataclasses import dataclass


class Level(enum.Enum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    """It works, but not as well as it could."""
    FAILURE = "failure"
    """Nothing is lazy until it is mended."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of ``registry-storagectl doctor``."""

    subject: str
    level: Level
    said: str
    mend: str = ""
    """What to do; empty when all is well."""


def ok(subject: str, said: str) -> Finding:
    """All is well."""
    return Finding(subject, Level.OK, said)


def warning(subject: str, said: str, mend: str) -> Finding:
    """It works, but."""
    return Finding(subject, Level.WARNING, said, mend)


def failure(subject: str, said: str, mend: str) -> Finding:
    """It does not work."""
    return Finding(subject, Level.FAILURE, said, mend)
