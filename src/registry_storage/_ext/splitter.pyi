"""Content-defined chunks and CRC-64."""

from typing import final

from ..toc.index import Buffer

@final
class Splitter:
    """Finds the chunks of one file after the other. `limit`: the most bytes of a chunk, at least 1024."""

    def __init__(self, limit: int) -> None: ...
    def feed(self, data: Buffer) -> list[tuple[int, bool]]:
        """More of the file: (bytes, is a hole) of each chunk that is complete now. Releases the GIL for long runs."""
    def finish(self) -> list[tuple[int, bool]]:
        """The file has ended: its last chunks. The next `feed` is of the next file."""

def crc64(data: Buffer, crc: int = 0) -> int:
    """CRC-64 with the polynomial of ISO 3309, going on from `crc`. Releases the GIL."""
