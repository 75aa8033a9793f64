"""Layer blobs read without daemon or registry."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from ..descriptor import Descriptor
from ..digest import Digest
from ..toc.index import TocIndex


class RangeSource(Protocol):
    """Anything that reads ranges of a blob."""

    @property
    def size(self) -> int:
        """Bytes of the blob."""

    def read_at(self, offset: int, size: int) -> bytes:
        """Exactly these bytes."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One name of a layer, as an unpacked tree would show it (whiteouts as character device 0/0)."""

    path: str
    """Without a leading slash, as `os.fsdecode` gives it; the root is empty."""
    inode: int
    """Equal for hard links."""
    mode: int
    """Type bits and permissions, ``st_mode``."""
    uid: int
    gid: int
    nlink: int
    size: int
    mtime_ns: int
    rdev: int
    target: str | None
    """Of a symbolic link."""
    xattrs: tuple[tuple[bytes, bytes], ...]
    chunk_count: int
    """Of a regular file, holes included."""
    prioritized: bool
    """Stands before the prefetch landmark."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What `LayerReader.verify` has read."""

    files: int
    chunks: int
    bytes: int
    """Of the files, holes included."""
    diff_id: Digest
    """Of the uncompressed tar."""
    blob_digest: Digest


class LayerReader:
    """An open layer. Safe in several threads where its source is. `close` (or ``with``) closes what `open` opened."""

    format_name: str
    """``eStargz``, ``zstd:chunked``, ``zstd:chunked (stargz)``, ``zstd:chunked (old keys)``."""
    toc_digest: Digest
    toc_trusted: bool
    """The TOC digest was given, and matched; otherwise it is what the blob's own TOC has."""
    toc: bytes
    """The TOC's JSON."""
    index: TocIndex
    toc_offset: int
    """Where the layer's data ends in the blob."""

    @classmethod
    def open(
        cls,
        blob: bytes | str | os.PathLike[str] | RangeSource,
        *,
        descriptor: Descriptor | None = None,
        toc_digest: Digest | None = None,
        external_toc: bytes | None = None,
    ) -> "LayerReader":
        """Find the TOC by footer (and annotations, where `descriptor` is given) and check it.

        `external_toc`: the tar.gz layer that holds it, for eStargz with external TOC. Without `descriptor` and
        `toc_digest` the TOC is believed as it is. Raises NotLazyError, FormatError, VerificationError, OSError.
        """
        raise NotImplementedError

    def list(self) -> Iterator[Entry]:
        """Every name below the root, directories before what is in them, sorted by name in each."""
        raise NotImplementedError

    def stat(self, path: str | bytes) -> Entry:
        """One name; symbolic links are not followed. Raises NoSuchNodeError."""
        raise NotImplementedError

    def read(self, path: str | bytes, offset: int = 0, size: int | None = None) -> bytes:
        """Verified bytes of a regular file, fewer at its end; `size` None: to the end.

        Raises NoSuchNodeError, FormatError, VerificationError.
        """
        raise NotImplementedError

    def verify(self) -> Verified:
        """Read the whole blob and compare every digest in the TOC; raises FormatError, VerificationError."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the file that `open` opened."""

    def __enter__(self) -> "LayerReader":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
