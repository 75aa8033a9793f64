"""A tar becomes a lazily pullable layer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from ..descriptor import Descriptor
from ..digest import Digest
from .options import WriteOptions


@dataclass(frozen=True, slots=True)
class WrittenLayer:
    """What was written."""

    descriptor: Descriptor
    """OCI media type, digest and size of the blob; annotations of exactly one TOC family (none: uncompressed)."""
    diff_id: Digest
    """Of the uncompressed tar, as an unpacker sees it."""
    toc_digest: Digest | None
    """As the annotations have it; None: uncompressed."""
    toc: bytes
    """The TOC's JSON; empty: uncompressed."""
    tar_size: int
    """Bytes of the uncompressed tar."""
    entry_count: int
    """Entries of the tar, without landmarks and TOC."""
    chunk_count: int
    """Chunks with bytes in the blob."""
    external_toc: bytes | None = None
    """The tar.gz layer for the image ``<reference>-esgztoc``; its descriptor needs the annotation
    ``containerd.io/snapshot/stargz/layer.digest`` = digest of this layer's blob."""
    external_toc_diff_id: Digest | None = None
    """diffID of that layer."""
    missing: tuple[str, ...] = ()
    """Prioritized paths that the layer does not have."""


def _ignore_progress(_: int) -> None:
    pass


def write_layer(
    source: BinaryIO,
    target: BinaryIO,
    options: WriteOptions,
    *,
    jobs: int = 0,
    progress: Callable[[int], None] = _ignore_progress,
) -> WrittenLayer:
    """Read a layer's tar from `source` and write the blob to `target`.

    `source`: gzip (any number of members), zstd or plain tar, told by its first bytes; only `read` is used, from
    where it stands to its end. `target`: only `write` is used. Blocks; runs `jobs` threads of its own (0: one per
    usable core) and ends them. The same tar and options give the same bytes for any `jobs`. `progress` is called in
    the caller's thread with the bytes taken from `source` so far (compressed as they are).

    Memory does not depend on the layer's size (TOC aside); reordering goes through a temporary file (TMPDIR).
    Raises FormatError (the source is broken or has entries that cannot be described), InvalidInputError
    (prioritized files that are missing), OSError of source, target and temporary file.
    """
    raise NotImplementedError


def verify_written(blob: BinaryIO, written: WrittenLayer, *, progress: Callable[[int], None] = _ignore_progress) -> None:
    """Read a written blob back: every chunk's digest, TOC digest, footer against annotations, blob digest, diffID.

    `blob` is seekable. `progress` is called with the bytes of the blob read so far. Raises VerificationError and
    FormatError.
    """
    raise NotImplementedError
