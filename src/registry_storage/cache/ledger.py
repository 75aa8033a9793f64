"""The ledger: which layers are shown under which number, and how often each is in use.

SQLite, because numbers and counts change one at a time and must survive a crash: each change is one
transaction in the write-ahead log. Only a power cut can lose the last ones, and counts can be repaired from
podman's own records.
"""

import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from ..digest import Digest
from ..errors import CacheError

_LAYOUT = 1
_SCHEMA = """
CREATE TABLE images (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    reference TEXT NOT NULL UNIQUE,
    manifest_digest TEXT
);
CREATE TABLE links (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    reference TEXT NOT NULL,
    name_digest TEXT NOT NULL,
    manifest_digest TEXT NOT NULL,
    layer_digest TEXT NOT NULL,
    toc_digest TEXT NOT NULL,
    uses INTEGER NOT NULL DEFAULT 0,
    UNIQUE (reference, name_digest)
);
"""


@dataclass(frozen=True, slots=True)
class Image:
    """A reference that was asked for."""

    number: int
    reference: str
    manifest_digest: Digest | None
    """The manifest it had when it was last resolved."""


@dataclass(frozen=True, slots=True)
class Link:
    """A layer as it is shown under one reference; its number never means anything else."""

    number: int
    """The layer number: the upper half of the node numbers of its tree."""
    reference: str
    name_digest: Digest
    """The digest in the path: the layer digest (podman ≤ 5.0) or the TOC digest (podman ≥ 5.1)."""
    manifest_digest: Digest
    layer_digest: Digest
    toc_digest: Digest
    uses: int


class Ledger:
    """One database, used by one thread. Raises CacheError when it is not ours or broken."""

    def __init__(self, path: Path) -> None:
        self.changed_ns = time.time_ns()
        """When images or links last changed, since 1970."""
        try:
            path.touch(mode=0o600)
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            (layout,) = self._db.execute("PRAGMA user_version").fetchone()
            if layout == 0:
                self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_LAYOUT}; COMMIT")
            elif layout != _LAYOUT:
                raise CacheError(f"{path}: wanted layout {_LAYOUT}, got {layout}: written by another version")
        except (sqlite3.Error, OSError) as error:
            raise CacheError(f"{path}: {error}") from None

    def close(self) -> None:
        """Write everything back."""
        self._db.close()

    def image(self, reference: str) -> Image | None:
        """What is known of `reference`."""
        row = self._db.execute("SELECT * FROM images WHERE reference = ?", (reference,)).fetchone()
        return _image(row) if row else None

    def image_by_number(self, number: int) -> Image | None:
        """The same, by its number."""
        row = self._db.execute("SELECT * FROM images WHERE number = ?", (number,)).fetchone()
        return _image(row) if row else None

    def images(self) -> list[Image]:
        """All, oldest first."""
        return [_image(row) for row in self._db.execute("SELECT * FROM images ORDER BY number")]

    def put_image(self, reference: str, manifest_digest: Digest) -> Image:
        """Note the manifest that `reference` has now."""
        row = self._db.execute(
            "INSERT INTO images (reference, manifest_digest) VALUES (?, ?)"
            " ON CONFLICT (reference) DO UPDATE SET manifest_digest = excluded.manifest_digest RETURNING *",
            (reference, str(manifest_digest)),
        ).fetchone()
        self.changed_ns = time.time_ns()
        return _image(row)

    def link(self, reference: str, name_digest: Digest) -> Link | None:
        """The layer that is shown as `name_digest` under `reference`."""
        row = self._db.execute(
            "SELECT * FROM links WHERE reference = ? AND name_digest = ?", (reference, str(name_digest))
        ).fetchone()
        return _link(row) if row else None

    def link_by_number(self, number: int) -> Link | None:
        """The same, by its layer number."""
        row = self._db.execute("SELECT * FROM links WHERE number = ?", (number,)).fetchone()
        return _link(row) if row else None

    def links(self, reference: str | None = None) -> list[Link]:
        """All of one reference, or all."""
        if reference is None:
            return [_link(row) for row in self._db.execute("SELECT * FROM links ORDER BY number")]
        rows = self._db.execute("SELECT * FROM links WHERE reference = ? ORDER BY number", (reference,))
        return [_link(row) for row in rows]

    def put_link(
        self, reference: str, name_digest: Digest, manifest_digest: Digest, layer_digest: Digest, toc_digest: Digest
    ) -> Link:
        """The link for this layer, new or known.

        A name that now means another tree gets a new number, unless somebody still uses the old one:
        numbers never change their meaning, because the kernel caches by them.
        """
        known = self.link(reference, name_digest)
        if known is not None:
            if (known.layer_digest, known.toc_digest) == (layer_digest, toc_digest) or known.uses > 0:
                return known
            self._db.execute("DELETE FROM links WHERE number = ?", (known.number,))
        row = self._db.execute(
            "INSERT INTO links (reference, name_digest, manifest_digest, layer_digest, toc_digest)"
            " VALUES (?, ?, ?, ?, ?) RETURNING *",
            (reference, str(name_digest), str(manifest_digest), str(layer_digest), str(toc_digest)),
        ).fetchone()
        self.changed_ns = time.time_ns()
        return _link(row)

    def add_use(self, number: int) -> int:
        """One more use; returns how many there are now."""
        return self._change(number, +1)

    def drop_use(self, number: int) -> int:
        """One use less, never below none; returns how many there are now."""
        return self._change(number, -1)

    def _change(self, number: int, by: int) -> int:
        row = self._db.execute(
            "UPDATE links SET uses = MAX(uses + ?, 0) WHERE number = ? RETURNING uses", (by, number)
        ).fetchone()
        return int(row[0]) if row else 0


def _image(row: tuple[int, str, str | None]) -> Image:
    number, reference, manifest = row
    return Image(number, reference, Digest.parse(manifest) if manifest else None)


def _link(row: tuple[int, str, str, str, str, str, int]) -> Link:
    number, reference, name, manifest, layer, toc, uses = row
    return Link(
        number, reference, Digest.parse(name), Digest.parse(manifest), Digest.parse(layer), Digest.parse(toc), uses
    )
