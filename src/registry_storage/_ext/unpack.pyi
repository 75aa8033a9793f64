"""Whole streams of members or frames."""

from typing import final

from ..toc.index import Buffer

@final
class Unpacker:
    """A gzip (codec 2) or zstd (4) stream; not for several threads at once."""

    def __init__(self, codec: int) -> None: ...
    @property
    def hungry(self) -> bool:
        """Everything that was fed is used up."""
    @property
    def complete(self) -> bool:
        """The stream may end here."""
    def feed(self, data: Buffer, size: int) -> bytes:
        """Up to `size` decompressed bytes; `data` must not change until it is used up.

        Wants `hungry`, `more` gives what is left otherwise. Releases the GIL. Raises ValueError (corrupt), MemoryError.
        """
    def more(self, size: int) -> bytes:
        """Up to `size` bytes of what was fed before."""
