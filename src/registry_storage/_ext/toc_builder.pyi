"""TOC JSON to a packed index (layout: _ext/toc_layout.pxd)."""

from typing import Final

from ..toc.index import Buffer

class TocError(ValueError):
    """Why a TOC was refused."""

    status: Final[int]
    """`Status` of the kernel, never 0."""
    field: Final[str | None]
    entry: Final[int | None]
    """Position in ``entries``; None: the document as a whole."""
    name: Final[bytes | None]
    """The entry's name where it had been read."""
    number: Final[int]
    """The number that is wrong, where the problem is one."""
    position: Final[int]
    """Byte in the document where reading stopped."""

def build(document: Buffer, blob_size: int, toc_offset: int, max_entries: int) -> bytes:
    """The index of `document` (at most 2^30 bytes); releases the GIL.

    Needs 0 <= `toc_offset` <= `blob_size` < 2^63. Memory while it runs: about 330 bytes per entry, at most.
    Raises TocError, MemoryError.
    """
