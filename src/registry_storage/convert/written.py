"""What the writing of a layer gives besides the blob."""

from dataclasses import dataclass

from ..descriptor import Descriptor
from ..digest import Digest


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
