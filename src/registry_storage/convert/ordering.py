"""Which entries come first in a layer."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..formats.tar.entry import clean_path


class Place(NamedTuple):
    """An entry as the order needs it."""

    path: bytes
    type: str
    link: bytes
    """Cleaned path that a hard link means."""
    size: int = 0
    """Bytes of a regular file."""


@dataclass(frozen=True, slots=True)
class Order:
    """Positions in the source, in the order of the layer."""

    first: tuple[int, ...]
    """Before the landmark."""
    rest: tuple[int, ...]
    missing: tuple[str, ...]
    """Paths that were asked for and are not there."""


def prioritize(places: Sequence[Place], wanted: Sequence[str]) -> Order:
    """The wanted files in their order, each behind its parents and its hard link's target; then the others.

    A path that occurs more than once is prioritized only where it is a directory: what comes last wins, so the
    others must stay in their order.
    """
    by_path: dict[bytes, list[int]] = {}
    for number, place in enumerate(places):
        by_path.setdefault(place.path, []).append(number)
    first: dict[int, None] = {}
    missing: list[str] = []

    def movable(path: bytes) -> int | None:
        numbers = by_path.get(path, [])
        if len(numbers) == 1 or (numbers and all(places[number].type == "dir" for number in numbers)):
            return numbers[0]
        return None

    def needed(path: bytes, seen: frozenset[bytes]) -> list[int] | None:
        """The entry and all before it, or None when something of it must stay where it is."""
        number = movable(path)
        if number is None or path in seen:
            return None
        found: list[int] = []
        parts = path.split(b"/")
        for depth in range(1, len(parts)):
            parent = b"/".join(parts[:depth])
            if parent in by_path:
                up = movable(parent)
                if up is None or places[up].type != "dir":
                    return None
                found.append(up)
        if places[number].type == "hardlink":
            target = needed(places[number].link, seen | {path})
            if target is None:
                return None
            found += target
        found.append(number)
        return found

    for name in wanted:
        path = clean_path(os.fsencode(name))
        if path not in by_path:
            missing.append(name)
            continue
        for number in needed(path, frozenset()) or ():
            first.setdefault(number)
    rest = tuple(number for number in range(len(places)) if number not in first)
    return Order(tuple(first), rest, tuple(missing))
