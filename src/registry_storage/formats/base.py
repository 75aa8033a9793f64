"""What every layer format can do, so that nothing else knows which compression is at work."""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..digest import Digest
from ..errors import FormatError

MAX_TOC_BYTES = 1 << 30
"""Of the TOC, compressed as well as uncompressed (a limit of ours)."""

Bytes = bytes | bytearray | memoryview


class Compression(enum.IntEnum):
    """The numbers that containers/storage writes into a layer's metadata (archive.Compression)."""

    NONE = 0
    BZIP2 = 1
    GZIP = 2
    XZ = 3
    ZSTD = 4


@dataclass(frozen=True, slots=True)
class TarSplitLocation:
    """Where podman's tar-split is in the blob."""

    offset: int
    """Blob offset of the payload of the skippable zstd frame."""
    compressed_size: int
    uncompressed_size: int


@dataclass(frozen=True, slots=True)
class TocLocation:
    """Where the compressed TOC is in the blob."""

    offset: int
    """Blob offset of the gzip member, or of the payload of the skippable zstd frame."""
    compressed_size: int | None
    """Bytes of the member or payload; None: up to the footer."""
    uncompressed_size: int | None
    """Bytes of the TOC; None: its container tells."""
    compressed_digest: Digest | None = None
    """Digest of the compressed TOC, where it is known besides the TOC digest."""
    tar_split: TarSplitLocation | None = None

    def require_compressed_size(self) -> int:
        """The compressed size of a location that must tell it; raises FormatError."""
        if self.compressed_size is None:
            raise FormatError("TOC: its compressed size is not known")
        return self.compressed_size


@dataclass(frozen=True, slots=True)
class ExternalToc:
    """The footer says that the TOC is in another image (eStargz, "External TOC")."""

    data_end: int
    """Blob offset where the chunks end: the footer's."""


class PieceOfBlob(Protocol):
    """What decoding needs to know of a chunk (`registry_storage.toc.chunk.Chunk`)."""

    @property
    def number(self) -> int: ...
    @property
    def blob_offset(self) -> int: ...
    @property
    def blob_size(self) -> int: ...
    @property
    def inner_offset(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def digest_raw(self) -> bytes: ...
    @property
    def is_hole(self) -> bool: ...


DecodeJob = tuple[int, int, int, int, bytes]
"""(offset of the piece in the span, its size, inner offset, size, wanted sha256 of 32 bytes)."""


class LayerFormat(Protocol):
    """The reading half of one lazily pullable format (a decompressor): its footer, its TOC, its pieces.

    Stateless; safe in any thread.
    """

    @property
    def name(self) -> str:
        """For messages: ``eStargz``."""

    @property
    def compression(self) -> Compression: ...

    @property
    def footer_size(self) -> int:
        """How many bytes at the end of the blob `parse_footer` wants, of the largest variant."""

    def parse_footer(self, tail: bytes, blob_size: int) -> TocLocation | ExternalToc:
        """Read the footer at the end of `tail`, the last bytes of a blob of `blob_size` bytes.

        Every byte of the footer is checked. `tail` may be longer than the footer. Raises FormatError.
        """

    def open_toc(self, raw: bytes, location: TocLocation, toc_digest: Digest) -> bytes:
        """The verified JSON; `raw` is the blob from ``location.offset`` on, and may reach beyond the TOC.

        Raises FormatError (not in the format, above the limits), VerificationError (another digest).
        """

    def decode(self, piece: Bytes, inner_offset: int, size: int) -> bytearray:
        """Exactly `size` bytes of the decompressed `piece` from `inner_offset` on, not verified.

        Raises FormatError where the piece is corrupt or ends before.
        """

    def decode_many(self, span: Bytes, jobs: Sequence[DecodeJob]) -> list[tuple[int, bytes]]:
        """Many chunks at once, each compared with its digest: `pieces.Status` and bytes as `_ext/frames.pyi` says.

        `pieces.decode_each` does it with `decode`, for a compression that has nothing faster.
        """


@dataclass(frozen=True, slots=True)
class TarSplit:
    """podman's tar-split, compressed."""

    payload: bytes
    uncompressed_size: int


@dataclass(frozen=True, slots=True)
class Trailer:
    """What follows a layer's data in the blob, and what the manifest says of it."""

    blob: bytes
    tar: bytes
    """What `blob` adds to the uncompressed tar, as an unpacker sees it."""
    toc_digest: Digest
    annotations: Mapping[str, str]


class Compressor(Protocol):
    """The writing half of one lazily pullable format. Stateless; safe in any thread."""

    @property
    def media_type(self) -> str:
        """Of the layer's blob."""

    @property
    def ends_tar(self) -> bool:
        """`finish` writes the tar's end-of-archive blocks, because the TOC is an entry of the tar."""

    def compress(self, span: Bytes, ends: list[int]) -> tuple[bytes, list[int]]:
        """Each piece of `span` so that it decompresses alone, one behind the other, and their compressed sizes.

        Piece i is ``span[ends[i - 1]:ends[i]]``, never empty. The same piece gives the same bytes, whatever stands
        around it. Called from several threads at once.
        """

    def finish(self, toc: bytes, data_size: int, tar_size: int, tar_split: TarSplit | None) -> Trailer:
        """TOC and footer for a blob whose `data_size` bytes of data hold `tar_size` bytes of tar."""


def check_toc_size(what: str, size: int) -> int:
    """`size` when a TOC may have it; raises FormatError."""
    if not 0 < size <= MAX_TOC_BYTES:
        raise FormatError(f"{what}: wanted 1 to {MAX_TOC_BYTES} bytes, got {size}")
    return size


@dataclass(frozen=True, slots=True)
class FooterField:
    """A run of bytes of a footer: fixed ones, or `size` bytes that vary."""

    name: str
    size: int
    fixed: bytes | None = None

    @classmethod
    def of(cls, name: str, fixed: bytes) -> "FooterField":
        """A field that holds `fixed` and nothing else."""
        return cls(name, len(fixed), fixed)


@dataclass(frozen=True, slots=True)
class FooterLayout:
    """A footer as a sequence of fields."""

    name: str
    fields: tuple[FooterField, ...]

    @property
    def size(self) -> int:
        """Bytes of the whole footer."""
        return sum(field.size for field in self.fields)

    def write(self, values: Mapping[str, bytes]) -> bytes:
        """The footer with these varying fields."""
        return b"".join(values[field.name] if field.fixed is None else field.fixed for field in self.fields)

    def strange_bytes(self, tail: bytes) -> int:
        """How many of the fixed bytes differ at the end of `tail`; all of them where `tail` is too short."""
        if len(tail) < self.size:
            return self.size
        count, at = 0, len(tail) - self.size
        for field in self.fields:
            if field.fixed is not None:
                count += sum(a != b for a, b in zip(field.fixed, tail[at:], strict=False))
            at += field.size
        return count

    def read(self, tail: bytes, blob_size: int) -> dict[str, bytes]:
        """The varying fields by name. Raises FormatError for the first fixed field that differs."""
        if min(len(tail), blob_size) < self.size:
            raise FormatError(f"{self.name}: wanted {self.size} bytes, got {min(len(tail), blob_size)}")
        values, at = {}, len(tail) - self.size
        for field in self.fields:
            got = bytes(tail[at : at + field.size])
            if field.fixed is None:
                values[field.name] = got
            elif got != field.fixed:
                raise FormatError(
                    f"{self.name}: {field.name}: wanted {field.fixed.hex(' ')}, got {got.hex(' ')}",
                    field=field.name,
                )
            at += field.size
        return values


def nearest_layout(layouts: Sequence[FooterLayout], tail: bytes) -> FooterLayout:
    """The layout that `tail` is, or comes closest to, so that an error speaks of the right one."""
    return min(layouts, key=lambda layout: layout.strange_bytes(tail))
