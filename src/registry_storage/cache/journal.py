"""A file of records that are appended one at a time, each with its own checksum.

A record is a JSON object on a line behind 16 hexadecimal digits of its sha256. Whatever happens to the file, a record
that is still whole is found, and one that is not is dropped alone.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from .root import write_atomically
from .signature import Signature

_log = logging.getLogger(__name__)

Record = dict[str, Any]
MAX_BYTES = 64 << 20
_DIGITS = 16


class Loaded(NamedTuple):
    """What was found."""

    records: list[Record]
    damaged: int
    """Lines that are no records any more."""
    missing: bool
    """There was no file."""


class Journal:
    """Used by one thread. Its owner keeps all that matters in memory: what cannot be written now is written later."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        self._known: Signature | None = None
        self.failing = False
        """It could not be written when that was tried last."""

    def load(self) -> Loaded:
        """All whole records, oldest first. Raises OSError."""
        try:
            with self._path.open("rb") as file:
                data = file.read(MAX_BYTES)
        except FileNotFoundError:
            return Loaded([], 0, missing=True)
        lines = data.split(b"\n")
        records = [record for line in lines if line and (record := _parse(line)) is not None]
        return Loaded(records, sum(map(bool, lines)) - len(records), missing=False)

    @property
    def size(self) -> int:
        """Bytes, as far as they were written here."""
        return self._known.size if self._known else 0

    @property
    def intact(self) -> bool:
        """The file is as it was left here; False when somebody else changed or removed it, or a write failed."""
        return self._known is not None and self._known == Signature.of(self._path)

    def append(self, record: Record) -> bool:
        """Add a record; False when that failed or the file is not what it was: then `rewrite` everything."""
        if self._file is None or not self.intact:
            return False
        line = _line(record)
        try:
            complete = os.write(self._file, line) == len(line)
            self._known = Signature.of(self._file)
        except OSError:
            complete = False
        if not complete:
            self._known = None
        return complete

    def rewrite(self, records: Iterable[Record]) -> None:
        """Replace the file. What goes wrong is logged once: memory has it all, and the next change tries again."""
        self.close()
        try:
            write_atomically(self._path, b"".join(map(_line, records)))
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            self._known = Signature.of(self._file)
        except OSError as error:
            if not self.failing:
                _log.error("%s cannot be written: %s; it is tried again", self._path, error.strerror)
            self.failing = True
        else:
            self.failing = False

    def close(self) -> None:
        """Give the descriptor back."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self._known = None


def _line(record: Record) -> bytes:
    text = json.dumps(record, separators=(",", ":")).encode()
    return _checksum(text) + b" " + text + b"\n"


def _parse(line: bytes) -> Record | None:
    checksum, _, text = line.partition(b" ")
    if checksum != _checksum(text):
        return None
    return json.loads(text)  # type: ignore[no-any-return]  # its checksum is ours


def _checksum(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest()[:_DIGITS].encode()
