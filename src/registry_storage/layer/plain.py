"""A layer in no lazily pullable format, streamed once into what every other layer has: index, content, present bits.

Nothing of it is seen before the blob's digest and the tar's diffID matched: a byte of such a layer can be verified
only with all of them.
"""

import gzip
import hashlib
import mmap
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

import trio

from ..cache.root import write_atomically
from ..descriptor import Descriptor
from ..digest import Digest
from ..errors import FormatError, VerificationError
from ..formats.chunker import crc64
from ..formats.tar.content import SourceEntry
from ..formats.tar.entry import TarEntry
from ..formats.tar.parser import KeepingParser
from ..formats.tar.split import TarSplitLines
from ..formats.tar.stream import BlockStream
from ..formats.toc_writer import ChunkRecord, Dialect, TocWriter, check_describable
from ..formats.unpacking import unpacked_blocks
from ..toc.index import MAX_ENTRIES, MAX_TOC_BYTES, TocIndex, build_index
from .blob_pipe import BlobPipe, with_blob
from .plain_content import ContentWriter
from .source import BlobSource

CHUNK_BYTES: Final = 4 << 20
TAR_SPLIT: Final = "tar-split.gz"
_DRAIN_ENTRIES: Final = 4096
_PART: Final = "new"


async def unpack_layer(
    directory: Path,
    source: BlobSource,
    descriptor: Descriptor,
    diff_id: Digest,
    limiter: trio.CapacityLimiter,
    progress: Callable[[int], None],
) -> None:
    """Make `directory` (which is not there) hold ``index``, ``content``, ``present`` and ``tar-split.gz``.

    The layer's memory is what `BlobPipe` and the decompressor hold, and about 0.4 KiB per entry of the tar, whatever
    its size. `progress` is called in a thread with the bytes of the blob so far.

    Raises RegistryError, VerificationError, FormatError (messages name the layer) and OSError; nothing is left then.
    """
    new = directory.with_name(f".{directory.name}.{_PART}")

    def work(pipe: BlobPipe) -> None:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        try:
            _Unpacking(new, descriptor, diff_id).run(pipe)
            new.rename(directory)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise

    try:
        await with_blob(source, descriptor.size, work, limiter, progress)
    except FormatError as error:
        raise FormatError(f"layer {descriptor.digest}: {error}", entry=error.entry, field=error.field) from error


class _Unpacking:
    """One pass over a blob, in one thread."""

    def __init__(self, directory: Path, descriptor: Descriptor, diff_id: Digest) -> None:
        self._directory = directory
        self._descriptor = descriptor
        self._diff_id = diff_id
        self._tar_summer = hashlib.sha256()
        self._tar_size = 0
        self._toc = TocWriter(Dialect(podman=True))
        self._content = ContentWriter(directory / "content")

    def run(self, pipe: BlobPipe) -> None:
        try:
            split = self._directory / TAR_SPLIT
            with (self._directory / "toc").open("w+b") as toc:
                with gzip.GzipFile(split, "wb", compresslevel=4, mtime=0) as packed:
                    exact = self._read(pipe, toc, TarSplitLines(packed.write))
                if not exact:  # a sparse file: its content in the tree is not what is in the tar
                    split.unlink()
                self._check(pipe)
                toc.flush()
                with mmap.mmap(toc.fileno(), 0, prot=mmap.PROT_READ) as document:
                    packed_index = build_index(document, blob_size=self._tar_size, toc_offset=self._tar_size)
            (self._directory / "toc").unlink()
            index = TocIndex(packed_index, verify=False)
            self._content.settle(index)
            bits = max(1, (index.chunk_count + 7) // 8)
            (self._directory / "present").write_bytes(b"\xff" * bits)
            write_atomically(self._directory / "index", packed_index)
        finally:
            self._content.close()

    def _check(self, pipe: BlobPipe) -> None:
        if pipe.digest != self._descriptor.digest:
            what = f"layer {self._descriptor.digest}: the blob"
            raise VerificationError(what, wanted=str(self._descriptor.digest), got=str(pipe.digest))
        got = Digest(self._tar_summer.hexdigest())
        if got != self._diff_id:
            what = f"layer {self._descriptor.digest}: the diffID of its tar"
            raise VerificationError(what, wanted=str(self._diff_id), got=str(got))

    def _blocks(self, pipe: BlobPipe) -> Iterator[bytes]:
        for block in unpacked_blocks(pipe, lambda _: None):
            self._tar_summer.update(block)
            self._tar_size += len(block)
            yield block

    def _read(self, pipe: BlobPipe, toc: BinaryIO, split: TarSplitLines) -> bool:
        """All entries; whether the tar-split can give the tar back."""
        stream = BlockStream(self._blocks(pipe))
        parser = KeepingParser(stream)
        exact, count, written = True, 0, toc.write(b'{"version":1,"entries":[')
        while (entry := parser.next()) is not None:
            check_describable(entry)
            if count and count % _DRAIN_ENTRIES == 0:
                written += toc.write(self._toc.drain() + b",")
                if written > MAX_TOC_BYTES or count >= MAX_ENTRIES:
                    raise FormatError(f"tar: wanted at most {MAX_ENTRIES} entries and {MAX_TOC_BYTES} bytes of names")
            count += 1
            split.raw(entry.raw)
            one = SourceEntry(entry, stream)
            if entry.sparse is not None:
                exact = False
                self._sparse(one)
                one.padding()
                continue
            crc = self._plain(one)
            split.file(entry.name, entry.size, crc)
            split.raw(one.padding())
        split.raw(parser.before_end)
        for data in stream.rest():
            split.raw(data)
        split.flush()
        toc.write(self._toc.drain() + b"]}")
        return exact

    def _plain(self, one: SourceEntry) -> int:
        entry = one.entry
        if not entry.size:
            self._toc.add(entry, None, [])
            return 0
        self._content.begin(entry.size)
        chunks, crc = self._chunks(one, one.stream.position, 0, entry.size, 0)
        self._add(entry, chunks)
        return crc

    def _sparse(self, one: SourceEntry) -> None:
        """Holes cost nothing, however large an entry says they are."""
        entry, at = one.entry, 0
        if not entry.size:
            self._toc.add(entry, None, [])
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
    return path if os.path.isfile(path) else None
