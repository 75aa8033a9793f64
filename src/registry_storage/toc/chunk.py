"""A piece of a file that is fetched, decoded and verified as a whole."""

from typing import NamedTuple


class Chunk(NamedTuple):
    """A tuple rather than a dataclass: one is made for every chunk that a read touches."""

    number: int
    """In the layer's chunk table; the bit that says *present* has the same number."""
    blob_offset: int
    """Where the member or frame with its data starts in the blob."""
    blob_size: int
    """Bytes of the blob until that piece surely ends (more than the chunk may be in it); 0: a hole."""
    inner_offset: int
    """Bytes of decompressed data in the piece before this chunk's."""
    size: int
    """Bytes of the file, 1 to 2^30."""
    content_offset: int
    """Where its bytes stand in the layer's content file."""
    digest_raw: bytes
    """sha256 of its bytes; 32 zero bytes for a hole."""

    @property
    def is_hole(self) -> bool:
        """All zeros, with nothing in the blob."""
        return self.blob_size == 0
