"""The content of one layer: a sparse file in which every regular file has its place, with a bit per chunk.

A bit is set only after the chunk's digest matched and its bytes were written. What an earlier daemon left on
disk is hashed once more before its first use, so that neither a power cut nor a rotten disk can serve a wrong
byte.

Which chunks may be served is in memory that the lane (_ext/fuse_lane.pyx) reads without asking anybody:

    0   generation, 64 bits: raised whenever chunks are taken away
    64  verified: a bit per chunk
    …   touched: a byte per eight chunks, set by the lane when it serves one of them
"""

import mmap
import os
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import CacheError
from ..formats.verified import VerifiedChunk
from ..toc.chunk import Chunk

_STATE_HEADER_BYTES = 64
_GENERATION = struct.Struct("=Q")


def state_bytes(chunk_count: int) -> int:
    """Bytes of the memory that says which chunks may be served."""
    return _STATE_HEADER_BYTES + 2 * max(1, (chunk_count + 7) // 8)


class Content:
    """Bytes may be read and written by any thread, each chunk by one; bits are set by the event loop's thread only."""

    def __init__(self, directory: Path, *, size: int, chunk_count: int, state: memoryview) -> None:
        """`size`: bytes of the content file. A file of another size is not ours any more and starts afresh.

        `state`: `state_bytes` of memory, as an earlier worker left it or zeros.
        """
        self.state = state
        """What may be served, as the module's first lines describe it."""
        self.size = size
        self.chunk_count = chunk_count
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        try:
            self._file = os.open(directory / "content", flags, 0o600)
            if os.fstat(self._file).st_size != size:
                (directory / "present").unlink(missing_ok=True)
                state[:] = bytes(len(state))
                os.ftruncate(self._file, 0)
                os.ftruncate(self._file, size)
            bits = os.open(directory / "present", flags, 0o600)
            try:
                length = max(1, (chunk_count + 7) // 8)
                if os.fstat(bits).st_size != length:
                    os.ftruncate(bits, 0)
                    os.ftruncate(bits, length)
                self._present = mmap.mmap(bits, length)
            finally:
                os.close(bits)
        except OSError as error:
            raise CacheError(f"{directory}: {error.strerror}") from None
        self._verified = state[_STATE_HEADER_BYTES : _STATE_HEADER_BYTES + length]

    @property
    def file(self) -> int:
        """The content file's descriptor."""
        return self._file

    def close(self) -> None:
        """Nothing may be read or written afterwards."""
        self._present.close()
        os.close(self._file)

    def is_ready(self, number: int) -> bool:
        """The chunk can be served: present, and verified since this daemon runs."""
        return bool(self._verified[number >> 3] & (1 << (number & 7)))

    def is_present(self, number: int) -> bool:
        """The chunk is on disk, perhaps from an earlier daemon: `recheck` it before use."""
        return bool(self._present[number >> 3] & (1 << (number & 7)))

    def write(self, chunk: Chunk, data: VerifiedChunk) -> None:
        """Put a chunk in its place; `mark_ready` shows it. Raises OSError (ENOSPC among them)."""
        self._write(data.data, chunk.content_offset)

    def write_hole(self, chunk: Chunk) -> None:
        """Make sure that a hole reads as zeros. Raises OSError."""
        for offset, length in self._written(chunk.content_offset, chunk.size):
            if any(os.pread(self._file, length, offset)):
                self._write(bytes(length), offset)

    def read_chunk(self, chunk: Chunk) -> bytes:
        """A chunk's bytes as they are on disk, to be verified. Raises OSError."""
        return os.pread(self._file, chunk.size, chunk.content_offset)

    def mark_ready(self, numbers: Sequence[int]) -> None:
        """These chunks are in their place, and their digests matched."""
        for number in numbers:
            bit = 1 << (number & 7)
            self._present[number >> 3] |= bit
            self._verified[number >> 3] |= bit

    def doubt(self, numbers: Iterable[int]) -> None:
        """These chunks must be hashed again before they are served."""
        for number in numbers:
            self._verified[number >> 3] &= 0xFF ^ (1 << (number & 7))
        self._raise_generation()

    def forget(self, numbers: Iterable[int]) -> None:
        """These chunks must be fetched again; their place may be overwritten or given back afterwards."""
        for number in numbers:
            mask = 0xFF ^ (1 << (number & 7))
            self._verified[number >> 3] &= mask
            self._present[number >> 3] &= mask
        self._raise_generation()

    def _raise_generation(self) -> None:
        """What the lane read meanwhile, it reads again: bits first, generation second, bytes last."""
        (generation,) = _GENERATION.unpack_from(self.state)
        _GENERATION.pack_into(self.state, 0, generation + 1)

    def read(self, content_offset: int, size: int) -> bytes:
        """Bytes whose chunks are all ready. Raises OSError."""
        parts = []
        while size > 0:
            part = os.pread(self._file, size, content_offset)
            if not part:
                break
            parts.append(part)
            content_offset += len(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def present_count(self) -> int:
        """How many chunks are on disk."""
        return int.from_bytes(self._present[:], "little").bit_count()

    def _write(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._file, view, offset)
            view, offset = view[written:], offset + written

    def _written(self, offset: int, size: int) -> list[tuple[int, int]]:
        """The parts of a span that the file system has blocks for, in pieces of at most 1 MiB."""
        end, parts = offset + size, []
        while offset < end:
            try:
                offset = os.lseek(self._file, offset, os.SEEK_DATA)
            except OSError:  # ENXIO: a hole up to the end of the file
                break
            if offset >= end:
                break
            length = min(os.lseek(self._file, offset, os.SEEK_HOLE), end, offset + (1 << 20)) - offset
            parts.append((offset, length))
            offset += length
        return parts
