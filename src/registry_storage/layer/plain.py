"""A layer in no lazily pullable format, streamed once into what every other layer has: index, content, present bits.

Nothing of it is seen before the blob's digest and the tar's diffID matched: a byte of such a layer can be verified
only with all of them.
"""

import hashlib
import mmap
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

import trio

from ..cache.root import write_atomically
from ..descriptor import Descriptor
from ..digest import Digest
from ..errors import FormatError
from ..formats.chunker import crc64
from ..formats.tar.content import SourceEntry
from ..formats.tar.entry import TarEntry
from ..formats.toc_writer import ChunkRecord, Dialect, TocWriter
from ..toc.index import MAX_ENTRIES, MAX_TOC_BYTES, TocIndex, build_index
from .blob_pipe import BlobPipe, with_blob
from .plain_content import ContentWriter
from .source import ByteSource
from .tar_pass import TAR_SPLIT, TarPass

CHUNK_BYTES: Final = 4 << 20
_DRAIN_BYTES: Final = 1 << 20
_PART: Final = "new"


async def unpack_layer(
    directory: Path,
    source: ByteSource,
    descriptor: Descriptor,
    diff_id: Digest,
    limiter: trio.CapacityLimiter,
    progress: Callable[[int], None],
    grew: Callable[[int], None],
) -> None:
    """Make `directory` (which is not there) hold ``index``, ``content``, ``present`` and ``tar-split.gz``.

    The layer's memory is what `BlobPipe` and the decompressor hold, and about 0.4 KiB per entry of the tar, whatever
    its size. `progress` is called in a thread with the bytes of the blob so far; `grew` on the event loop with how many
    more bytes the content takes on disk.

    Raises RegistryError, VerificationError, FormatError (messages name the layer), OSError, and what `grew` raises;
    nothing is left then.
    """
    new = directory.with_name(f".{directory.name}.{_PART}")

    def grew_here(by: int) -> None:
        trio.from_thread.run_sync(grew, by)

    def work(pipe: BlobPipe) -> None:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        try:
            with tempfile.TemporaryFile(dir=new) as toc:
                _Unpacking(new, descriptor, diff_id, toc, grew_here).unpack(pipe)
            new.rename(directory)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise

    try:
        await with_blob(source, descriptor.size, work, limiter, progress)
    except FormatError as error:
        raise FormatError(f"layer {descriptor.digest}: {error}", entry=error.entry, field=error.field) from error


class _Unpacking(TarPass):
    """Writes the TOC and the content."""

    def __init__(
        self, directory: Path, descriptor: Descriptor, diff_id: Digest, toc: BinaryIO, grew: Callable[[int], None]
    ) -> None:
        super().__init__(descriptor, diff_id)
        self._directory = directory
        self._toc_file = toc
        self._toc_size = toc.write(b'{"version":1,"entries":[')
        self._toc = TocWriter(Dialect(podman=True))
        self._content = ContentWriter(directory / "content", grew)
        self._count = 0

    def unpack(self, pipe: BlobPipe) -> None:
        """The whole layer."""
        try:
            self.run(pipe, self._directory / TAR_SPLIT)
            self._toc_file.write(self._toc.drain() + b"]}")
            self._toc_file.flush()
            with mmap.mmap(self._toc_file.fileno(), 0, prot=mmap.PROT_READ) as document:
                packed = build_index(document, blob_size=self.tar_size, toc_offset=self.tar_size)
            index = TocIndex(packed, verify=False)
            self._content.settle(index)
            (self._directory / "present").write_bytes(b"\xff" * max(1, (index.chunk_count + 7) // 8))
            write_atomically(self._directory / "index", packed)
        finally:
            self._content.close()

    def entry(self, one: SourceEntry) -> int | None:
        """See TarPass."""
        if self._toc.held_bytes >= _DRAIN_BYTES:
            self._toc_size += self._toc_file.write(self._toc.drain() + b",")
        if one.entry.sparse is None:
            return self._plain(one)
        self._sparse(one)
        return None

    def _plain(self, one: SourceEntry) -> int:
        entry = one.entry
        if not entry.size:
            self._add(entry, [])
            return 0
        self._content.begin(entry.size)
        chunks, crc = self._chunks(one, one.stream.position, 0, entry.size, 0)
        self._add(entry, chunks)
        return crc

    def _sparse(self, one: SourceEntry) -> None:
        """Holes cost nothing, however large an entry says they are."""
        entry, at = one.entry, 0
        if not entry.size:
            self._add(entry, [])
            return
        self._content.begin(entry.size)
        chunks: list[ChunkRecord] = []
        for offset, size in (*(entry.sparse or ()), (entry.size, 0)):
            if offset > at:
                self._content.hole(offset - at)
                here = one.stream.position
                chunks.append(ChunkRecord(here, 0, at, offset - at, True, bytes(32), here))
            if size:
                more, _ = self._chunks(one, one.stream.position, offset, size, 0)
                chunks += more
            at = offset + size
        if len(chunks) == 1 and chunks[0].is_hole:  # a single chunk is data in podman's TOCs
            hole = chunks[0]
            if hole.size == 1:
                raise FormatError(f"tar: {entry.path!r:.300}: a sparse file of one byte, which is a hole")
            chunks = [hole._replace(size=1), hole._replace(file_offset=1, size=hole.size - 1)]
        self._add(entry, chunks)

    def _chunks(
        self, one: SourceEntry, tar_offset: int, file_offset: int, size: int, crc: int
    ) -> tuple[list[ChunkRecord], int]:
        """The next `size` bytes of the tar are a file's from `file_offset` on."""
        chunks = []
        while size:
            part = min(size, CHUNK_BYTES)
            summer = hashlib.sha256()
            self._content.chunk(tar_offset)
            for view in one.stream.views(part):
                summer.update(view)
                crc = crc64(view, crc)
                self._content.data(view)
            end = tar_offset + part
            chunks.append(ChunkRecord(tar_offset, 0, file_offset, part, False, summer.digest(), end))
            tar_offset, file_offset, size = end, file_offset + part, size - part
        return chunks, crc

    def _add(self, entry: TarEntry, chunks: list[ChunkRecord]) -> None:
        """podman's dialect: the digest of a file of one chunk is the chunk's."""
        self._toc.add(entry, chunks[0].digest if len(chunks) == 1 else None, chunks)
        self._count += max(1, len(chunks))
        if self._count > MAX_ENTRIES or self._toc_size + self._toc.held_bytes > MAX_TOC_BYTES:
            raise FormatError(
                f"tar: {entry.path!r:.300}: wanted at most {MAX_ENTRIES} entries and chunks, "
                f"and {MAX_TOC_BYTES} bytes to describe them, got more"
            )


def remove_layer(directory: Path) -> None:
    """What is left of a layer whose index is gone."""
    shutil.rmtree(directory, ignore_errors=True)


def remove_unfinished(layers: Path) -> None:
    """What a daemon that was killed had begun."""
    for path in layers.glob(f".*.{_PART}"):
        shutil.rmtree(path, ignore_errors=True)


def tar_split_of(directory: Path) -> Path | None:
    """The tar-split of a layer that was unpacked here, where it has one."""
    path = directory / TAR_SPLIT
    return path if path.is_file() else None
