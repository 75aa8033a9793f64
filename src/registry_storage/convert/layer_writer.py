"""A tar becomes a lazily pullable layer."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import BinaryIO

from ..descriptor import Descriptor
from ..digest import Digest
from ..errors import FormatError
from ..formats.base import Compressor
from ..formats.chunker import Chunker, FixedChunker, content_chunker
from ..formats.estargz import END_OF_ARCHIVE, EStargzWriter, tar_header
from ..formats.prefetch_ranges import PREFETCH_ANNOTATION, format_ranges
from ..formats.tar.content import SourceEntry
from ..formats.tar.entry import TarEntry
from ..formats.tar.split import TarSplitWriter
from ..formats.toc_writer import ChunkRecord, Dialect, TocWriter, check_describable
from ..formats.unpacking import unpacked_blocks
from ..formats.zstd_chunked import ZstdChunkedWriter
from ..toc.special_names import LANDMARK_CONTENT, NO_PREFETCH_LANDMARK, PREFETCH_LANDMARK
from .accesses import PARTLY_CHUNK_SIZE, PARTLY_READ, FileAccess, blob_ranges
from .assembling import Assembler, Cutting
from .options import LayerKind, WriteOptions
from .packing import Packer, PendingFile
from .tar_source import TarSource
from .verification import verify_written
from .written import WrittenLayer

__all__ = ["WrittenLayer", "compressor_for", "usable_cores", "verify_written", "write_layer"]

UNCOMPRESSED_LAYER = "application/vnd.oci.image.layer.v1.tar"


def _ignore_progress(_: int) -> None:
    pass


def write_layer(
    source: BinaryIO,
    target: BinaryIO,
    options: WriteOptions,
    *,
    jobs: int = 0,
    progress: Callable[[int], None] = _ignore_progress,
    compressor: Compressor | None = None,
) -> WrittenLayer:
    """Read a layer's tar from `source` and write the blob to `target`.

    `source`: gzip (any number of members), zstd or plain tar, told by its first bytes; only `read` is used, from
    where it stands to its end. `target`: only `write` is used. Blocks; runs `jobs` threads of its own (0: one per
    usable core), and one that hashes, and ends them. The same tar and options give the same bytes for any `jobs`.
    `progress` is called in the caller's thread with the bytes taken from `source` so far (compressed as they are).
    `compressor` takes the place of the one that `options` name, for a compression of others.

    Memory does not depend on the layer's size (TOC aside); reordering goes through a temporary file (TMPDIR).
    Raises FormatError (the source is broken or has entries that cannot be described), InvalidInputError
    (prioritized files that are missing), OSError of source, target and temporary file.
    """
    if options.kind is LayerKind.UNCOMPRESSED:
        return _write_tar(source, target, progress)
    return _Conversion(options, compressor or compressor_for(options)).run(source, target, jobs, progress)


def compressor_for(options: WriteOptions) -> Compressor:
    """What compresses a layer of these options; ValueError for the uncompressed kind."""
    level = options.effective_level
    match options.kind:
        case LayerKind.ESTARGZ:
            return EStargzWriter(level, options.external_toc)
        case LayerKind.ZSTD_CHUNKED_PODMAN:
            return ZstdChunkedWriter(level, podman=True)
        case LayerKind.ZSTD_CHUNKED_STARGZ:
            return ZstdChunkedWriter(level, podman=False)
        case _:
            raise ValueError("an uncompressed layer has no compressor")


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0))


class _Conversion:
    """One layer on its way."""

    def __init__(self, options: WriteOptions, compressor: Compressor) -> None:
        self._options = options
        self._compressor = compressor
        self._podman = options.kind is LayerKind.ZSTD_CHUNKED_PODMAN
        self._toc = TocWriter(Dialect(podman=self._podman))
        self._split = TarSplitWriter(options.effective_level) if self._podman else None
        self._entry_count = 0
        self._parts: Mapping[str, float] = {}
        self._accesses: tuple[FileAccess, ...] = ()
        self._read: dict[str, Sequence[ChunkRecord]] = {}
        """The chunks of files that are read, as far as they are written."""

    def run(
        self, source: BinaryIO, target: BinaryIO, jobs: int, progress: Callable[[int], None]
    ) -> WrittenLayer:
        options = self._options
        tar = TarSource(source, progress)
        packer = Packer(
            self._compressor, target, jobs or usable_cores(), self._finished, crc=self._split is not None
        )
        try:
            assembler = Assembler(packer, self._chunker(), Cutting(self._podman, options.min_chunk_size))
            if options.prioritized:
                self._add_reordered(tar, assembler)
                assembled_end: Iterator[bytes] = iter((END_OF_ARCHIVE,))
            else:
                if not self._podman and not options.keep_diff_id:
                    _add_landmark(assembler, NO_PREFETCH_LANDMARK)
                for one in tar.entries(keep_hidden=options.keep_diff_id):
                    self._add(assembler, one)
                has_end, assembled_end = tar.end()
                if not has_end and not options.keep_diff_id:
                    assembled_end = iter((END_OF_ARCHIVE,))
            ends: list[bytes] = []
            if not self._compressor.ends_tar:
                # Padding up to a record is usual; it belongs to the tar whose diffID is known.
                ends = [assembler.tail(data) for data in assembled_end]
            else:
                for _ in assembled_end:
                    pass
            assembler.finish()
            packer.drain()
            return self._finish(packer, ends, tar.missing)
        finally:
            packer.close()

    def _chunker(self) -> Chunker:
        size = self._options.chunk_size
        return content_chunker(size) if self._podman else FixedChunker(size)

    def _add_reordered(self, tar: TarSource, assembler: Assembler) -> None:
        options = self._options
        for one in tar.reordered(options.prioritized, options.accesses, allow_missing=options.allow_missing):
            if not self._read:
                self._accesses, self._parts = tar.accesses, tar.parts
                self._read = {access.path: () for access in tar.accesses}
            if isinstance(one, SourceEntry):
                self._add(assembler, one)
            else:
                _add_landmark(assembler, PREFETCH_LANDMARK if self._entry_count else NO_PREFETCH_LANDMARK)

    def _add(self, assembler: Assembler, one: SourceEntry) -> None:
        entry = one.entry
        check_describable(entry)
        if entry.sparse is not None and self._options.keep_diff_id:
            raise FormatError(
                f"tar: {entry.path.decode(errors='backslashreplace')!r:.300}: a sparse entry: "
                "the diffID cannot be kept, because its content is not in the tar as a whole"
            )
        self._entry_count += 1
        chunker = None
        if self._parts.get(os.fsdecode(entry.path), 1.0) < PARTLY_READ and not self._podman:
            chunker = FixedChunker(min(self._options.chunk_size, PARTLY_CHUNK_SIZE))
        assembler.add(entry, one.content(), one.padding, chunker=chunker)

    def _finished(self, file: PendingFile) -> None:
        """In the order of the tar: the blob holds all chunks of `file` now."""
        entry = file.entry
        chunks = [
            ChunkRecord(
                chunk.blob_offset, chunk.inner_offset, chunk.file_offset, chunk.size, chunk.is_hole, chunk.digest,
                chunk.blob_end,
            )
            for chunk in file.chunks
        ]  # fmt: skip
        self._toc.add(entry, file.digest, chunks)
        self._remember(entry, chunks)
        if self._split is not None:
            self._split.raw(file.raw)
            self._split.file(entry.name, entry.size, file.crc)

    def _remember(self, entry: TarEntry, chunks: Sequence[ChunkRecord]) -> None:
        """For the ranges that are read; of a name that comes twice the last counts."""
        path = os.fsdecode(entry.path)
        if path in self._read and entry.type == "reg":
            self._read[path] = chunks

    def _ranges(self) -> Mapping[str, str]:
        """The annotation that tells what is read; empty where nobody knows."""
        ranges = blob_ranges(self._accesses, self._read)
        return {PREFETCH_ANNOTATION: format_ranges(ranges)} if ranges else {}

    def _finish(self, packer: Packer, ends: list[bytes], missing: tuple[str, ...]) -> WrittenLayer:
        split = digest = None
        if self._split is not None:
            for data in ends:
                self._split.raw(data)
            split, digest = self._split.finish()
        toc = self._toc.finish(str(digest) if digest is not None else None)
        trailer = self._compressor.finish(toc, packer.blob_size, packer.tar_size, split)
        packer.append(trailer.blob, trailer.tar)
        external, external_diff_id = None, None
        if isinstance(self._compressor, EStargzWriter) and self._compressor.external:
            external, external_diff_id = self._compressor.external_toc_layer(toc)
        return WrittenLayer(
            descriptor=Descriptor(
                self._compressor.media_type,
                Digest(packer.blob_digest.hexdigest()),
                packer.blob_size,
                {**trailer.annotations, **self._ranges()},
            ),
            diff_id=Digest(packer.diff_id.hexdigest()),
            toc_digest=trailer.toc_digest,
            toc=toc,
            tar_size=packer.tar_size,
            entry_count=self._entry_count,
            chunk_count=packer.chunk_count,
            external_toc=external,
            external_toc_diff_id=external_diff_id,
            missing=missing,
        )


def _add_landmark(assembler: Assembler, name: bytes) -> None:
    size = len(LANDMARK_CONTENT)
    entry = TarEntry(name, name, "reg", tar_header(name, size), size)
    assembler.add(entry, (LANDMARK_CONTENT,), lambda: bytes(512 - size), own_piece=True)


def _write_tar(source: BinaryIO, target: BinaryIO, progress: Callable[[int], None]) -> WrittenLayer:
    digest, size = hashlib.sha256(), 0
    for block in unpacked_blocks(source, progress):
        digest.update(block)
        size += len(block)
        view = memoryview(block)
        while view:
            view = view[target.write(view) or 0 :]
    diff_id = Digest(digest.hexdigest())
    return WrittenLayer(
        Descriptor(UNCOMPRESSED_LAYER, diff_id, size), diff_id, None, b"", size, entry_count=0, chunk_count=0
    )
