"""Manifests and image configs by digest: files that are checked whenever they are read."""

import logging
import os
import re
from pathlib import Path

from ..digest import Digest
from .root import write_atomically

_log = logging.getLogger(__name__)

_NAME = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Documents:
    """A directory of small files, each named by the sha256 of its bytes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._missed: set[Digest] = set()

    def load(self, digest: Digest, *, expected: bool = False) -> bytes | None:
        """The bytes, or None when they are not here or no longer what they were (then they are removed).

        `expected`: they were kept once.
        """
        path = self._directory / digest.hex
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            if expected and digest not in self._missed:
                self._missed.add(digest)
                _log.warning("document %s is missing; it will be fetched again", digest)
            return None
        except OSError as error:
            _log.warning("document %s cannot be read: %s", digest, error)
            return None
        if Digest.of(data) != digest:
            _log.warning("document %s is damaged on disk; it will be fetched again", digest)
            path.unlink(missing_ok=True)
            return None
        return data

    def digests(self) -> list[Digest]:
        """Of all that are here, newest first."""
        with os.scandir(self._directory) as entries:
            found = [(entry.stat(follow_symlinks=False).st_mtime, entry.name) for entry in entries]
        return [Digest(name) for _, name in sorted(found, reverse=True) if _NAME.fullmatch(name)]

    def store(self, data: bytes) -> Digest:
        """Keep `data` if the disk can take it; returns its digest."""
        digest = Digest.of(data)
        try:
            write_atomically(self._directory / digest.hex, data)
        except OSError as error:
            _log.warning("document %s cannot be written: %s", digest, error.strerror)
        return digest
