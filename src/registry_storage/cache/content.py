"""The content of one layer: a sparse file in which every regular file has its place, with a bit per chunk.

A bit is set only after the chunk's digest matched and its bytes were written. What an earlier daemon left on
disk is hashed once more before its first use, so that neither a power cut nor a rotten disk can serve a wrong
byte. Every change of the files is made here, so that a change that was not can be told (`check`).

Which chunks may be served is in memory that the lane (_ext/fuse_lane.pyx) reads without asking anybody:

    0   generation, 64 bits: raised whenever chunks are taken away
    8   inode, size, times of the content file when we last changed it: of another file the bits say nothing
    64  verified: a bit per chunk
    …   touched: a byte per eight chunks, set by the lane when it serves one of them
"""

import logging
import os
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import CacheError
from ..formats.verified import VerifiedChunk
from ..toc.chunk import Chunk
from .holes import punch_hole
from .signature import Signature

_log = logging.getLogger(__name__)

_STATE_HEADER_BYTES = 64
_GENERATION = struct.Struct("=Q")
_STAMP = struct.Struct("=QQqq")
_STAMP_AT = 8
HOLD_SECONDS = 0.5
"""For writes that are under way, of a chunk each, at the end of the process."""
_MOST_PARTS = 64
"""Of one write, well below the system's limit (IOV_MAX)."""
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC


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
        self._directory = directory
        self._changes = threading.Condition(threading.Lock())
        self._changing = 0
        length = max(1, (chunk_count + 7) // 8)
        try:
            self._file = os.open(directory / "content", _FLAGS, 0o600)
            found = os.fstat(self._file)
            if found.st_size != size:
                if (directory / "present").exists():
                    _log.warning("%s: content is not as it was left: it is fetched again", directory.name)
                (directory / "present").unlink(missing_ok=True)
                state[:] = bytes(len(state))
                os.ftruncate(self._file, 0)
                os.ftruncate(self._file, size)
            self._bits = os.open(directory / "present", _FLAGS, 0o600)
            self._present = bytearray(os.pread(self._bits, length + 1, 0))
            if len(self._present) != length:
                if found.st_size == size and found.st_blocks:
                    _log.warning("%s: present is not as it was left: content is fetched again", directory.name)
                self._present = bytearray(length)
                os.ftruncate(self._bits, length)
                self._save_present()
        except OSError as error:
            raise CacheError(f"{directory}: {error.strerror}") from None
        self._known_bits = Signature.of(self._bits)
        self._verified = state[_STATE_HEADER_BYTES : _STATE_HEADER_BYTES + length]
        if any(self._verified) and _STAMP.unpack_from(state, _STAMP_AT) != _stamp(os.fstat(self._file)):
            # Somebody else wrote while no worker looked, or the last one died in the middle of a write.
            _log.warning("%s: content is not as the last worker left it: it is hashed again", directory.name)
            self._verified[:] = bytes(length)
        self._remember_file()
        # What was evicted while no worker had the layer open is not present any more.
        kept = int.from_bytes(self._verified, "little") & int.from_bytes(self._present, "little")
        self._verified[:] = kept.to_bytes(length, "little")
        self.touched = state[_STATE_HEADER_BYTES + length :][:length]
        """A byte per eight chunks: one of them was served or written since it was last cleared."""
        self.grown: Callable[[int], None] = lambda by: None
        """Told how many bytes the content takes more than before, when chunks have come."""
        self._last_disk_bytes = self.disk_bytes

    @property
    def file(self) -> int:
        """The content file's descriptor."""
        return self._file

    def hold(self) -> None:
        """Nobody changes the file from here on: the process ends, and what is half written would be hashed again."""
        self._changes.acquire()
        self._changes.wait_for(lambda: not self._changing, HOLD_SECONDS)

    def close(self) -> None:
        """Nothing may be read or written afterwards."""
        os.close(self._bits)
        os.close(self._file)

    def is_ready(self, number: int) -> bool:
        """The chunk can be served: present, and verified since this daemon runs."""
        return bool(self._verified[number >> 3] & (1 << (number & 7)))

    def is_present(self, number: int) -> bool:
        """The chunk is on disk, perhaps from an earlier daemon: `recheck` it before use."""
        return bool(self._present[number >> 3] & (1 << (number & 7)))

    def write(self, chunks: Sequence[tuple[Chunk, VerifiedChunk]]) -> None:
        """Put chunks in their places; `mark_ready` shows them. Raises OSError (ENOSPC among them)."""
        with self._own_change():
            for place, parts in _runs(chunks):
                self._write(parts, place)

    def is_hole_clean(self, chunk: Chunk) -> bool:
        """Nothing was ever written there, so that it reads as zeros without `write_hole`. Raises OSError."""
        return next(self._written(chunk.content_offset, chunk.size), None) is None

    def write_hole(self, chunk: Chunk) -> None:
        """Make sure that a hole reads as zeros. Raises OSError."""
        for offset, length in self._written(chunk.content_offset, chunk.size):
            if os.pread(self._file, length, offset) != bytes(length):  # `any` would look at each byte, with the GIL
                with self._own_change():
                    self._write([bytes(length)], offset)

    def read_chunk(self, chunk: Chunk) -> bytes:
        """A chunk's bytes as they are on disk, to be verified. Raises OSError."""
        return os.pread(self._file, chunk.size, chunk.content_offset)

    def mark_ready(self, numbers: Sequence[int]) -> None:
        """These chunks are in their place, and their digests matched."""
        for number in numbers:
            bit = 1 << (number & 7)
            self._present[number >> 3] |= bit
            self._verified[number >> 3] |= bit
            self.touched[number >> 3] = 1
        self._save_bits(numbers)
        before, self._last_disk_bytes = self._last_disk_bytes, self.disk_bytes
        self.grown(self._last_disk_bytes - before)

    def doubt(self, numbers: Iterable[int]) -> None:
        """These chunks must be hashed again before they are served."""
        for number in numbers:
            self._verified[number >> 3] &= 0xFF ^ (1 << (number & 7))
        self._raise_generation()

    def forget(self, numbers: Sequence[int]) -> None:
        """These chunks must be fetched again; their place may be overwritten or given back afterwards."""
        for number in numbers:
            mask = 0xFF ^ (1 << (number & 7))
            self._verified[number >> 3] &= mask
            self._present[number >> 3] &= mask
        self._raise_generation()
        self._save_bits(numbers)

    def evict(self, numbers: Sequence[int], spans: Iterable[tuple[int, int]]) -> None:
        """Take these chunks away and give back `spans` (start, end) of the file, in which no other chunk is present.

        Nobody may be writing them. Raises OSError.
        """
        self.forget(numbers)
        with self._own_change():
            for start, end in spans:
                punch_hole(self._file, start, end - start)
        self._last_disk_bytes = self.disk_bytes

    def check(self) -> list[str]:
        """What somebody else did to the files, in words; all that it may concern is hashed or fetched again."""
        found: list[str] = []
        with self._changes:
            if self._changing:
                return found
            there, known = Signature.of(self._directory / "content"), self._known_file
            if there != known:
                if there is None or known is None or there.inode != known.inode:
                    found.append("content is gone: it is fetched again")
                    self.forget(range(self.chunk_count))
                    self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                    new = os.open(self._directory / "content", _FLAGS, 0o600)
                    os.dup2(new, self._file, inheritable=False)  # for everybody who has this descriptor
                    os.close(new)
                else:
                    found.append("content was changed by somebody else: it is hashed again, and fetched where wrong")
                    self.doubt(range(self.chunk_count))
                os.ftruncate(self._file, self.size)
                self._remember_file()
        if Signature.of(self._directory / "present") != self._known_bits:
            found.append("present was changed by somebody else: it is written anew")
            os.close(self._bits)
            (self._directory / "present").unlink(missing_ok=True)
            self._bits = os.open(self._directory / "present", _FLAGS, 0o600)
            self._save_present()
        return found

    @property
    def disk_bytes(self) -> int:
        """What the content takes on disk."""
        return os.fstat(self._file).st_blocks * 512

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

    def present_bits(self) -> bytes:
        """A bit per chunk: on disk."""
        return bytes(self._present)

    def present_count(self) -> int:
        """How many chunks are on disk."""
        return int.from_bytes(self._present[:], "little").bit_count()

    def _write(self, parts: Sequence[bytes], offset: int) -> None:
        """One behind the other."""
        written = os.pwritev(self._file, parts, offset)
        if written < sum(map(len, parts)):
            view = memoryview(b"".join(parts))
            while written < len(view):
                written += os.pwrite(self._file, view[written:], offset + written)

    @contextmanager
    def _own_change(self) -> Iterator[None]:
        """The content file is changed by us; any thread."""
        with self._changes:
            self._changing += 1
        try:
            yield
        finally:
            with self._changes:
                self._changing -= 1
                self._remember_file()
                self._changes.notify_all()

    def _remember_file(self) -> None:
        """The content file is as we left it; the next worker is told, too."""
        found = os.fstat(self._file)
        self._known_file = Signature.of_status(found)
        _STAMP.pack_into(self.state, _STAMP_AT, *_stamp(found))

    def _save_bits(self, numbers: Sequence[int]) -> None:
        """Write the present bits of these chunks, all between them included."""
        if numbers:
            self._save_present(min(numbers) >> 3, (max(numbers) >> 3) + 1)

    def _save_present(self, first: int = 0, end: int | None = None) -> None:
        """Write some bytes of the present bits; when that fails, the next daemon fetches more than it must."""
        with suppress(OSError):
            os.pwrite(self._bits, memoryview(self._present)[first:end], first)
        self._known_bits = Signature.of(self._bits)

    def _written(self, offset: int, size: int) -> Iterator[tuple[int, int]]:
        """The parts of a span that the file system has blocks for, in pieces of at most 1 MiB."""
        end = offset + size
        while offset < end:
            try:
                offset = os.lseek(self._file, offset, os.SEEK_DATA)
            except OSError:  # ENXIO: a hole up to the end of the file
                return
            if offset >= end:
                return
            length = min(os.lseek(self._file, offset, os.SEEK_HOLE), end, offset + (1 << 20)) - offset
            yield offset, length
            offset += length


def _stamp(found: os.stat_result) -> tuple[int, int, int, int]:
    """With the time of change, which nobody can set back."""
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _runs(chunks: Iterable[tuple[Chunk, VerifiedChunk]]) -> Iterator[tuple[int, list[bytes]]]:
    """(offset in the content file, bytes that stand there one behind the other)."""
    parts: list[bytes] = []
    start = end = 0
    for chunk, verified in chunks:
        if parts and (chunk.content_offset != end or len(parts) == _MOST_PARTS):
            yield start, parts
            parts = []
        if not parts:
            start = end = chunk.content_offset
        parts.append(verified.data)
        end += len(verified.data)
    if parts:
        yield start, parts
