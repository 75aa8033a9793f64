"""Layer blobs read without daemon or registry."""

import json
import os
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from ..descriptor import Descriptor
from ..digest import Digest
from ..errors import FormatError, NoSuchNodeError, NotLazyError, RegistryStorageError, VerificationError
from ..formats.base import ExternalToc, LayerFormat, TarSplitLocation, TocLocation
from ..formats.detect import LazyLayer, detect
from ..formats.estargz import ESTARGZ, open_external_toc
from ..formats.verified import decoded_chunks
from ..formats.zstd_chunked import ZSTD_CHUNKED_PODMAN, ZSTD_CHUNKED_PODMAN_OLD, ZSTD_CHUNKED_STARGZ
from ..toc.chunk import Chunk
from ..toc.index import TocIndex, build_index
from .checking import Verified, check_blob

_FOOTER_BYTES = 128
"""Enough for every footer that is known."""
_UNKNOWN = Digest("0" * 64)


class RangeSource(Protocol):
    """Anything that reads ranges of a blob."""

    @property
    def size(self) -> int:
        """Bytes of the blob."""

    def read_at(self, offset: int, size: int) -> bytes:
        """Exactly these bytes."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One name of a layer, as an unpacked tree would show it (whiteouts as character device 0/0)."""

    path: str
    """Without a leading slash, as `os.fsdecode` gives it; the root is empty."""
    inode: int
    """Equal for hard links."""
    mode: int
    """Type bits and permissions, ``st_mode``."""
    uid: int
    gid: int
    nlink: int
    size: int
    mtime_ns: int
    rdev: int
    target: str | None
    """Of a symbolic link."""
    xattrs: tuple[tuple[bytes, bytes], ...]
    chunk_count: int
    """Of a regular file, holes included."""
    prioritized: bool
    """Stands before the prefetch landmark."""


class LayerReader:
    """An open layer. Safe in several threads where its source is. `close` (or ``with``) closes what `open` opened."""

    def __init__(
        self,
        source: RangeSource,
        layer_format: LayerFormat,
        toc: bytes,
        toc_digest: Digest,
        toc_offset: int,
        *,
        toc_trusted: bool,
        tar_split: TarSplitLocation | None = None,
        owned: BinaryIO | None = None,
    ) -> None:
        """From a TOC that has been read; `open` finds it. Raises FormatError."""
        self.format = layer_format
        self.format_name = layer_format.name
        """``eStargz``, ``zstd:chunked``, ``zstd:chunked (stargz)``, ``zstd:chunked (old keys)``."""
        self.toc = toc
        """The TOC's JSON."""
        self.toc_digest = toc_digest
        self.toc_trusted = toc_trusted
        """The TOC digest was given, and matched; otherwise it is what the blob's own TOC has."""
        self.toc_offset = toc_offset
        """Where the layer's data ends in the blob."""
        self.size = source.size
        """Bytes of the blob."""
        self.index = TocIndex(build_index(toc, blob_size=source.size, toc_offset=toc_offset), verify=False)
        self.tar_split = tar_split
        """Where podman's tar-split is."""
        self._source = source
        self._owned = owned

    @classmethod
    def open(
        cls,
        blob: bytes | str | os.PathLike[str] | RangeSource,
        *,
        descriptor: Descriptor | None = None,
        toc_digest: Digest | None = None,
        external_toc: bytes | None = None,
        layer_format: LayerFormat | None = None,
    ) -> "LayerReader":
        """Find the TOC by footer (and annotations, where `descriptor` is given) and check it.

        `external_toc`: the tar.gz layer that holds it, for eStargz with external TOC. Without `descriptor` and
        `toc_digest` the TOC is believed as it is. `layer_format` takes the place of the known ones.
        Raises NotLazyError, FormatError, VerificationError, OSError.
        """
        owned: BinaryIO | None = None
        source: RangeSource
        if isinstance(blob, bytes):
            source = BytesSource(blob)
        elif isinstance(blob, (str, os.PathLike)):
            owned = open(blob, "rb")  # noqa: SIM115  (closed by `close`)
            source = FileSource(owned)
        else:
            source = blob
        try:
            return cls._open(source, owned, descriptor, toc_digest, external_toc, layer_format)
        except BaseException:
            if owned is not None:
                owned.close()
            raise

    @classmethod
    def _open(
        cls,
        source: RangeSource,
        owned: BinaryIO | None,
        descriptor: Descriptor | None,
        toc_digest: Digest | None,
        external_toc: bytes | None,
        layer_format: LayerFormat | None,
    ) -> "LayerReader":
        if descriptor is not None and descriptor.size != source.size:
            raise FormatError(f"layer blob: wanted {descriptor.size} bytes, got {source.size}")
        wanted = max(_FOOTER_BYTES, layer_format.footer_size if layer_format else 0)
        tail_size = min(wanted, source.size)
        tail = source.read_at(source.size - tail_size, tail_size)
        lazy: LazyLayer | None = None
        if layer_format is None:
            if descriptor is not None:
                lazy = detect(descriptor)
                layer_format = lazy.format
                toc_digest = toc_digest or lazy.toc_digest
            else:
                layer_format = _format_by_footer(tail, source.size)
        where = lazy.locate_toc(tail) if lazy is not None else layer_format.parse_footer(tail, source.size)
        toc, digest, layer_format = _read_toc(source, layer_format, where, toc_digest, external_toc)
        return cls(
            source,
            layer_format,
            toc,
            digest,
            where.data_end if isinstance(where, ExternalToc) else where.offset,
            toc_trusted=toc_digest is not None,
            tar_split=None if isinstance(where, ExternalToc) else where.tar_split,
            owned=owned,
        )

    def list(self) -> Iterator[Entry]:
        """Every name below the root, directories before what is in them, sorted by name in each."""
        stack: list[tuple[int, bytes, int]] = [(0, b"", 0)]
        while stack:
            directory, prefix, position = stack.pop()
            children = self.index.children(directory, position, 1)
            if not children:
                continue
            stack.append((directory, prefix, position + 1))
            name, inode = children[0]
            path = prefix + name
            yield self._entry(path, inode)
            if stat.S_ISDIR(self.index.mode(inode)):
                stack.append((inode, path + b"/", 0))

    def stat(self, path: str | bytes) -> Entry:
        """One name; symbolic links are not followed. Raises NoSuchNodeError."""
        raw, inode = self._find(path)
        return self._entry(raw, inode)

    def read(self, path: str | bytes, offset: int = 0, size: int | None = None) -> bytes:
        """Verified bytes of a regular file, fewer at its end; `size` None: to the end.

        Raises NoSuchNodeError (also for what is no regular file), FormatError, VerificationError.
        """
        raw, inode = self._find(path)
        if not stat.S_ISREG(self.index.mode(inode)):
            raise NoSuchNodeError(f"{os.fsdecode(raw)!r}: not a regular file")
        if offset < 0 or (size is not None and size < 0):
            raise ValueError(f"wanted an offset and a size of at least 0, got {offset} and {size}")
        file_size = self.index.attributes(inode).size
        end = file_size if size is None else min(file_size, offset + size)
        if offset >= end:
            return b""
        start = self.index.content_offset(inode)
        first, last = self.index.chunk_range(inode, offset, end - offset)
        result = bytearray()
        for number in range(first, last):
            chunk = self.index.chunk(number)
            at = chunk.content_offset - start
            data = self._chunk(chunk)
            result += memoryview(data)[max(0, offset - at) : end - at]
        return bytes(result)

    def verify(self, progress: Callable[[int], None] = lambda _: None) -> Verified:
        """Read the whole blob and compare every digest in the TOC; raises FormatError, VerificationError.

        `progress` is called with the bytes of the blob read so far.
        """
        verified = check_blob(self._source, self.format, self.index, progress)
        self._check_tar_split()
        return verified

    def _check_tar_split(self) -> None:
        """podman takes the tar's headers from it; its digest is in the TOC."""
        if self.tar_split is None:
            return
        wanted = json.loads(self.toc.decode(errors="surrogateescape")).get("tarSplitDigest")
        if wanted is None:
            return
        got = Digest.of(self._source.read_at(self.tar_split.offset, self.tar_split.compressed_size))
        if wanted != str(got):
            raise VerificationError("tar-split", wanted=str(wanted), got=str(got))

    def close(self) -> None:
        """Close the file that `open` opened."""
        if self._owned is not None:
            self._owned.close()

    def __enter__(self) -> "LayerReader":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _chunk(self, chunk: Chunk) -> bytes:
        if chunk.is_hole:
            return bytes(chunk.size)
        span = self._source.read_at(chunk.blob_offset, chunk.blob_size)
        result = next(decoded_chunks(self.format, span, chunk.blob_offset, [chunk]))
        if isinstance(result, RegistryStorageError):
            raise result
        return result.data

    def _find(self, path: str | bytes) -> tuple[bytes, int]:
        raw = os.fsencode(path).strip(b"/")
        inode = 0
        for name in raw.split(b"/") if raw else ():
            found = self.index.lookup(inode, name) if stat.S_ISDIR(self.index.mode(inode)) else None
            if found is None:
                raise NoSuchNodeError(f"{os.fsdecode(raw)!r}: not in the layer")
            inode = found
        return raw, inode

    def _entry(self, path: bytes, inode: int) -> Entry:
        attributes = self.index.attributes(inode)
        first = last = 0
        prioritized = False
        if stat.S_ISREG(attributes.mode):
            first, last = self.index.chunk_range(inode, 0, attributes.size)
            prioritized = first < last and self.index.chunk(first).blob_offset < self.index.prefetch_end
        return Entry(
            path=os.fsdecode(path),
            inode=inode,
            mode=attributes.mode,
            uid=attributes.uid,
            gid=attributes.gid,
            nlink=attributes.nlink,
            size=attributes.size,
            mtime_ns=attributes.mtime_ns,
            rdev=attributes.rdev,
            target=os.fsdecode(self.index.read_link(inode)) if stat.S_ISLNK(attributes.mode) else None,
            xattrs=self.index.xattrs(inode),
            chunk_count=last - first,
            prioritized=prioritized,
        )


class BytesSource:
    """A blob in memory."""

    def __init__(self, blob: bytes) -> None:
        self._blob = blob
        self.size = len(blob)

    def read_at(self, offset: int, size: int) -> bytes:
        """See `RangeSource`."""
        return self._blob[offset : offset + size]


class FileSource:
    """A blob in a seekable file; its position is of no account afterwards."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lock = threading.Lock()
        self.size = file.seek(0, os.SEEK_END)

    def read_at(self, offset: int, size: int) -> bytes:
        """See `RangeSource`."""
        with self._lock:
            self._file.seek(offset)
            data = self._file.read(size)
        if len(data) != size:
            raise FormatError(f"layer blob: wanted {size} bytes at {offset}, got {len(data)}")
        return data


def _format_by_footer(tail: bytes, size: int) -> LayerFormat:
    """The format of a blob that nothing is said of."""
    candidates: tuple[LayerFormat, ...] = (ESTARGZ,)
    if tail.endswith(b"GNUlInUx"):
        candidates = (ZSTD_CHUNKED_PODMAN,)
    elif tail.endswith(b"GnUlInUx"):
        candidates = (ZSTD_CHUNKED_STARGZ,)
    for candidate in candidates:
        try:
            candidate.parse_footer(tail, size)
        except FormatError:
            continue
        return candidate
    raise NotLazyError("the blob has no footer of a lazily pullable layer")


def _read_toc(
    source: RangeSource,
    layer_format: LayerFormat,
    where: TocLocation | ExternalToc,
    toc_digest: Digest | None,
    external_toc: bytes | None,
) -> tuple[bytes, Digest, LayerFormat]:
    if isinstance(where, ExternalToc):
        if external_toc is None:
            raise FormatError("eStargz: the TOC is in another image, and was not given")
        return (*_with_digest(toc_digest, lambda digest: open_external_toc(external_toc, digest)), layer_format)
    size = where.compressed_size if where.compressed_size is not None else source.size - where.offset
    raw = source.read_at(where.offset, size)
    try:
        return (*_with_digest(toc_digest, lambda digest: layer_format.open_toc(raw, where, digest)), layer_format)
    except VerificationError:
        # Without annotations nothing tells podman's old kind from stargz's, but what the digest is of.
        if layer_format is not ZSTD_CHUNKED_STARGZ or toc_digest is None or where.compressed_digest is not None:
            raise
        return ZSTD_CHUNKED_PODMAN_OLD.open_toc(raw, where, toc_digest), toc_digest, ZSTD_CHUNKED_PODMAN_OLD


def _with_digest(wanted: Digest | None, read: Callable[[Digest], bytes]) -> tuple[bytes, Digest]:
    """The TOC and its digest, which is found out where none is wanted."""
    if wanted is None:
        try:
            return read(_UNKNOWN), _UNKNOWN
        except VerificationError as error:
            wanted = Digest.parse(error.got)
    return read(wanted), wanted
