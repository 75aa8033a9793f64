"""Which files of which layer come first: lists of paths and patterns, and records of what was read."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..digest import Digest
from ..errors import InvalidInputError
from .accesses import FileAccess

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"


@dataclass(frozen=True, slots=True)
class Pattern:
    """One line of a list: a path, or a pattern with ``*``, ``?``, ``[]`` (inside a name) and ``**`` (across names)."""

    text: str
    """Without a leading slash."""
    expression: re.Pattern[str] | None
    """None: `text` is a path itself."""

    @classmethod
    def parse(cls, text: str) -> "Pattern":
        """A backslash takes the meaning of what follows away. Raises InvalidInputError."""
        clean = text.removeprefix("./").lstrip("/")
        if not re.search(r"[*?\[\\]", clean):
            return cls(clean.rstrip("/"), None)
        try:
            return cls(clean, re.compile(_translate(clean), re.DOTALL))
        except re.error as error:
            raise InvalidInputError(f"pattern {text!r}: {error}") from None


def _translate(text: str) -> str:
    out, at = "", 0
    while at < len(text):
        char = text[at]
        at += 1
        if char == "*" and text.startswith("*", at):
            at += 1
            if text.startswith("/", at) and (at == 2 or text[at - 3] == "/"):
                at += 1
                out += "(?:[^/]+/)*"
            else:
                out += ".*"
        elif char == "*":
            out += "[^/]*"
        elif char == "?":
            out += "[^/]"
        elif char == "[":
            end = text.find("]", at + (2 if text[at : at + 1] in "!^" else 1))
            if end < 0:
                raise InvalidInputError(f"pattern {text!r}: [ without ]")
            inner = text[at:end].replace("\\", "\\\\").replace("[", "\\[")
            inner = "^" + inner[1:] if inner[:1] in "!^" else inner
            out += f"(?!/)[{inner}]"
            at = end + 1
        elif char == "\\" and at < len(text):
            out += re.escape(text[at])
            at += 1
        else:
            out += re.escape(char)
    return out


def parse_list(text: str) -> list[Pattern]:
    """A path or pattern a line; blank lines and those that begin with ``#`` say nothing."""
    lines = (line.strip() for line in text.splitlines())
    return [Pattern.parse(line) for line in lines if line and not line.startswith("#")]


class Read(NamedTuple):
    """A part of a file that was read."""

    turn: int
    """Among all reads of the record: what was read before has a smaller one."""
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Record:
    """One line of a record: a file that was read."""

    path: str
    manifest_digest: Digest | None
    """Of the image that was run; None: any."""
    layer_index: int | None
    """The layer that the file came from, base layer 0; None: the topmost that has it."""
    reads: tuple[Read, ...] = ()
    """In order; empty: which parts were read is not known."""


def parse_records(text: str, what: str) -> list[Record]:
    """JSON lines with ``path`` and maybe ``manifestDigest`` and ``layerIndex``. Raises InvalidInputError."""
    records = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        where = f"{what}, line {number}"
        try:
            document = json.loads(line)
            path, digest, index = document["path"], document.get("manifestDigest"), document.get("layerIndex")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise InvalidInputError(f'{where}: wanted an object with "path", got {line[:100]!r}') from None
        if not isinstance(path, str) or not (index is None or (isinstance(index, int) and index >= 0)):
            raise InvalidInputError(f"{where}: wanted path as text and layerIndex as a number, got {line[:100]!r}")
        clean = path.removeprefix("./").strip("/")
        reads = _parse_reads(document, where)
        records.append(Record(clean, Digest.parse(digest) if digest else None, index, reads))
    return records


def _parse_reads(document: Mapping[str, object], where: str) -> tuple[Read, ...]:
    """The fields of ours: ``ranges`` of [offset, size], and ``turns``, one for each. Raises InvalidInputError."""
    ranges, turns = document.get("ranges", []), document.get("turns")
    if turns is None and isinstance(ranges, list):
        turns = [0] * len(ranges)
    problem = InvalidInputError(f"{where}: wanted ranges as pairs of numbers and as many turns, got {document!r:.200}")
    if not isinstance(ranges, list) or not isinstance(turns, list) or len(turns) != len(ranges):
        raise problem
    reads = []
    for turn, part in zip(turns, ranges, strict=True):
        if not isinstance(part, list) or len(part) != 2 or not all(map(_is_count, (turn, *part))):
            raise problem
        reads.append(Read(turn, *part))
    return tuple(reads)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


@dataclass(frozen=True, slots=True)
class Wishes:
    """Everything that shall come first, in order: recorded files before those of lists."""

    records: Sequence[Record] = ()
    patterns: Sequence[Pattern] = ()

    def __bool__(self) -> bool:
        return bool(self.records or self.patterns)

    def need_names(self, manifest_digest: Digest) -> bool:
        """Whether the layers' names must be known to tell which layer has what."""
        return bool(self.patterns) or any(record.layer_index is None for record in self._records(manifest_digest))

    def assign(
        self, manifest_digest: Digest, layer_count: int, names: Sequence[Sequence[str]]
    ) -> tuple[list[tuple[str, ...]], list[str]]:
        """(prioritized paths of each layer, wishes that nothing fulfils).

        `names`: the tar's paths of each layer's regular files, hard links, symbolic links and whiteouts, in
        order; empty where `need_names` says no.
        """
        chosen: list[dict[str, None]] = [{} for _ in range(layer_count)]
        missing: list[str] = []
        visible = topmost(names)
        for record in self._records(manifest_digest):
            index = visible.get(record.path) if record.layer_index is None else record.layer_index
            if index is None or index >= layer_count:
                missing.append(record.path)
            else:
                chosen[index][record.path] = None
        for pattern in self.patterns:
            if pattern.expression is None:
                found = [pattern.text] if pattern.text in visible else _below(visible, pattern.text)
            else:
                found = sorted(filter(pattern.expression.fullmatch, visible))
            if not found:
                missing.append(pattern.text)
            for path in found:
                chosen[visible[path]][path] = None
        return [tuple(paths) for paths in chosen], missing

    def accesses(
        self, manifest_digest: Digest, chosen: Sequence[Sequence[str]]
    ) -> list[tuple[FileAccess, ...]]:
        """What is read of each layer's `chosen` files, in order; empty where no record tells parts of any of them.

        Files of which nobody knows more come whole, behind those of which it is known.
        """
        wanted = [frozenset(paths) for paths in chosen]
        reads: list[list[tuple[Read, str]]] = [[] for _ in chosen]
        for record in self._records(manifest_digest):
            for index, paths in enumerate(wanted):
                if record.path in paths and record.layer_index in (None, index):
                    reads[index] += ((read, record.path) for read in record.reads)
        result = []
        for parts, files in zip(reads, chosen, strict=True):
            parts.sort(key=lambda part: part[0].turn)
            known = {path for _, path in parts}
            timed = [FileAccess(path, read.offset, read.size) for read, path in parts]
            whole = [FileAccess(path, 0, None) for path in files if path not in known]
            result.append((*timed, *whole) if timed else ())
        return result

    def _records(self, manifest_digest: Digest) -> Iterable[Record]:
        return (record for record in self.records if record.manifest_digest in (None, manifest_digest))


def topmost(names: Sequence[Sequence[str]]) -> dict[str, int]:
    """The layer, base layer 0, that each path is seen from when all are laid over each other."""
    visible: dict[str, int] = {}
    for index, layer in enumerate(names):
        gone, emptied = set(), set()
        for name in layer:
            parent, _, last = name.rpartition("/")
            if last == _OPAQUE:
                emptied.add(parent)
            elif last.startswith(_WHITEOUT):
                gone.add(f"{parent}/{last[len(_WHITEOUT) :]}".lstrip("/"))
        if gone or emptied:
            visible = {
                path: at
                for path, at in visible.items()
                if path not in gone and not any(above in gone or above in emptied for above in _parents(path))
            }
        for name in layer:
            if not name.rpartition("/")[2].startswith(_WHITEOUT):
                visible[name] = index
    return visible


def _parents(path: str) -> Iterable[str]:
    while path:
        path = path.rpartition("/")[0]
        yield path


def _below(visible: Mapping[str, int], directory: str) -> list[str]:
    """A directory stands for everything in it."""
    return sorted(path for path in visible if path.startswith(directory + "/")) if directory else []
