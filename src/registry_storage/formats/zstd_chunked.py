"""zstd:chunked: zstd frames with the TOC in a skippable frame, as podman and stargz-snapshotter write it."""

import enum
import hashlib
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from ..digest import Digest
from ..errors import FormatError, VerificationError
from .base import (
    Bytes,
    Compression,
    DecodeJob,
    ExternalToc,
    FooterField,
    FooterLayout,
    TarSplit,
    TarSplitLocation,
    TocLocation,
    Trailer,
    check_toc_size,
    nearest_layout,
)
from .pack import compress_pieces
from .pieces import decode_and_digest, decode_document, decode_piece

ZSTD_LAYER = "application/vnd.oci.image.layer.v1.tar+zstd"
PODMAN_CHECKSUM = "io.github.containers.zstd-chunked.manifest-checksum"
PODMAN_POSITION = "io.github.containers.zstd-chunked.manifest-position"
PODMAN_TAR_SPLIT = "io.github.containers.zstd-chunked.tarsplit-position"
OLD_CHECKSUM = "io.containers.zstd-chunked.manifest-checksum"
OLD_POSITION = "io.containers.zstd-chunked.manifest-position"
TOC_LEVEL = 16
"""Of a TOC at least: every host waits for it before it can start anything of the image."""
_STARGZ_TOC_DIGEST = "containerd.io/snapshot/stargz/toc.digest"
_UNCOMPRESSED_SIZE = "io.containers.estargz.uncompressed-size"

_SKIPPABLE = bytes.fromhex("502a4d18")
"""Magic of the skippable frames in use (RFC 8878 section 3.1.2 allows 16)."""
_FRAME_HEADER = 8
_MANIFEST_TYPE = 1
"""The only kind of TOC there is: "crfs"."""
_TAR_SPLIT_POSITION = re.compile(r"([0-9]{1,19}):([0-9]{1,19}):([0-9]{1,19})", re.ASCII)
_POSITION = re.compile(r"([0-9]{1,19}):([0-9]{1,19}):([0-9]{1,19}):([0-9]{1,19})", re.ASCII)


def _layout(name: str, payload: tuple[FooterField, ...]) -> FooterLayout:
    size = sum(field.size for field in payload)
    header = (
        FooterField.of("skippable frame magic", _SKIPPABLE),
        FooterField.of("skippable frame size", struct.pack("<I", size)),
    )
    return FooterLayout(name, header + payload)


_TYPE = FooterField.of("manifest type", struct.pack("<Q", _MANIFEST_TYPE))
_FOOTER = _layout(
    "zstd:chunked footer",
    (
        FooterField("TOC position", 24),
        _TYPE,
        FooterField("tar-split position", 24),
        FooterField.of("magic", b"GNUlInUx"),
    ),
)
_SHORT_FOOTER = _layout(
    "zstd:chunked footer",
    (FooterField("TOC position", 24), _TYPE, FooterField.of("magic", b"GnUlInUx")),
)


class TocDigestRule(enum.Enum):
    """Which bytes the TOC digest is of."""

    COMPRESSED = "the compressed TOC"
    UNCOMPRESSED = "the TOC's JSON"


@dataclass(frozen=True, slots=True)
class ZstdChunked:
    """The reader of one kind."""

    name: str
    rule: TocDigestRule
    layouts: tuple[FooterLayout, ...]
    compression: Compression = Compression.ZSTD

    @property
    def footer_size(self) -> int:
        """With the header of its skippable frame."""
        return max(layout.size for layout in self.layouts)

    def parse_footer(self, tail: bytes, blob_size: int) -> TocLocation | ExternalToc:
        """The frames TOC, tar-split (where there is one) and footer lie one behind the other."""
        layout = nearest_layout(self.layouts, tail)
        values = layout.read(tail, blob_size)
        end = blob_size - layout.size
        tar_split = None
        if "tar-split position" in values:
            # Only podman itself needs the tar-split, but the TOC ends where its frame begins.
            tar_split = TarSplitLocation(*struct.unpack("<3Q", values["tar-split position"]))
            if tar_split.offset + tar_split.compressed_size != end or tar_split.offset < _FRAME_HEADER:
                raise FormatError(
                    f"{layout.name}: tar-split position: wanted its end at the footer, blob offset {end}, "
                    f"got {tar_split.offset} + {tar_split.compressed_size}",
                    field="tar-split position",
                )
            end = tar_split.offset - _FRAME_HEADER
        offset, compressed, uncompressed = struct.unpack("<3Q", values["TOC position"])
        if offset + compressed != end or offset < _FRAME_HEADER:
            raise FormatError(
                f"{layout.name}: TOC position: wanted its end at the next frame, blob offset {end}, "
                f"got {offset} + {compressed}",
                field="TOC position",
            )
        check_toc_size(f"{layout.name}: TOC position: compressed size", compressed)
        check_toc_size(f"{layout.name}: TOC position: uncompressed size", uncompressed)
        return TocLocation(offset, compressed, uncompressed, tar_split=tar_split)

    def open_toc(self, raw: bytes, location: TocLocation, toc_digest: Digest) -> bytes:
        """`raw` starts at the payload of the skippable frame."""
        size = location.require_compressed_size()
        if location.uncompressed_size is None:
            raise FormatError(f"{self.name} TOC: its uncompressed size is not known")
        if len(raw) < size:
            raise FormatError(
                f"{self.name} TOC: wanted {size} bytes at blob offset {location.offset}, got {len(raw)}"
            )
        payload = memoryview(raw)[:size]
        by_rule = self.rule is TocDigestRule.COMPRESSED
        for wanted in (toc_digest if by_rule else None, location.compressed_digest):
            if wanted is not None:
                self._check("compressed TOC", payload, wanted)
        document = decode_document(
            f"{self.name} TOC", Compression.ZSTD, payload, size=location.uncompressed_size, exact=True
        )
        if not by_rule:
            self._check("TOC", document, toc_digest)
        return document

    def _check(self, what: str, data: Bytes, wanted: Digest) -> None:
        got = Digest(hashlib.sha256(data).hexdigest())
        if got != wanted:
            raise VerificationError(f"{self.name} {what}", wanted=str(wanted), got=str(got))

    def decode(self, piece: Bytes, inner_offset: int, size: int) -> bytearray:
        """One frame, or several in a row."""
        return decode_piece(Compression.ZSTD, piece, inner_offset, size)

    def decode_many(self, span: Bytes, jobs: Sequence[DecodeJob]) -> list[tuple[int, bytes]]:
        """In one call without the GIL."""
        return decode_and_digest(Compression.ZSTD, span, jobs)


@dataclass(frozen=True, slots=True)
class ZstdChunkedWriter:
    """The writer of podman's kind, or of stargz's."""

    level: int
    """1 to 22, of libzstd."""
    podman: bool
    media_type: str = ZSTD_LAYER
    ends_tar: bool = False

    def compress(self, span: Bytes, ends: list[int]) -> tuple[bytes, list[int]]:
        """A frame for each piece."""
        return compress_pieces(Compression.ZSTD, self.level, span, ends)

    def finish(self, toc: bytes, data_size: int, tar_size: int, tar_split: TarSplit | None) -> Trailer:
        """Skippable frames: the TOC, the tar-split (podman's kind must have one), the footer."""
        packed = compress_pieces(Compression.ZSTD, max(self.level, TOC_LEVEL), toc, [len(toc)])[0]
        position = (data_size + _FRAME_HEADER, len(packed), len(toc))
        words = struct.pack("<3Q", *position)
        blob = _skippable(packed)
        annotated = ":".join(map(str, (*position, _MANIFEST_TYPE)))
        if not self.podman:
            digest = Digest.of(toc)
            annotations = {
                _STARGZ_TOC_DIGEST: str(digest),
                _UNCOMPRESSED_SIZE: str(tar_size),
                OLD_CHECKSUM: str(Digest.of(packed)),
                OLD_POSITION: annotated,
            }
            return Trailer(blob + _SHORT_FOOTER.write({"TOC position": words}), b"", digest, annotations)
        if tar_split is None:
            raise ValueError("podman's kind has a tar-split")
        split = (
            data_size + len(blob) + _FRAME_HEADER,
            len(tar_split.payload),
            tar_split.uncompressed_size,
        )
        blob += _skippable(tar_split.payload)
        blob += _FOOTER.write({"TOC position": words, "tar-split position": struct.pack("<3Q", *split)})
        digest = Digest.of(packed)
        annotations = {
            PODMAN_CHECKSUM: str(digest),
            PODMAN_POSITION: annotated,
            PODMAN_TAR_SPLIT: ":".join(map(str, split)),
        }
        return Trailer(blob, b"", digest, annotations)


def _skippable(payload: bytes) -> bytes:
    if len(payload) >= 1 << 32:
        raise FormatError(f"skippable frame: wanted less than 4 GiB, got {len(payload)} bytes")
    return _SKIPPABLE + struct.pack("<I", len(payload)) + payload


ZSTD_CHUNKED_PODMAN = ZstdChunked("zstd:chunked", TocDigestRule.COMPRESSED, (_FOOTER, _SHORT_FOOTER))
ZSTD_CHUNKED_PODMAN_OLD = ZstdChunked("zstd:chunked (old keys)", TocDigestRule.COMPRESSED, (_SHORT_FOOTER,))
ZSTD_CHUNKED_STARGZ = ZstdChunked("zstd:chunked (stargz)", TocDigestRule.UNCOMPRESSED, (_SHORT_FOOTER,))


def parse_position(
    what: str, text: str, blob_size: int, compressed_digest: Digest | None = None
) -> TocLocation:
    """The annotation ``offset:compressed:uncompressed:1`` of a blob of `blob_size` bytes; or FormatError."""
    match = _POSITION.fullmatch(text)
    if match is None:
        raise FormatError(f"{what}: wanted offset:compressed:uncompressed:1, got {text[:100]!r}")
    offset, compressed, uncompressed, kind = map(int, match.groups())
    if kind != _MANIFEST_TYPE:
        raise FormatError(f"{what}: wanted a TOC of type {_MANIFEST_TYPE}, got {kind}")
    _check_place(what, offset, compressed, blob_size)
    check_toc_size(f"{what}: compressed size", compressed)
    check_toc_size(f"{what}: uncompressed size", uncompressed)
    return TocLocation(offset, compressed, uncompressed, compressed_digest)


def parse_tar_split_position(what: str, text: str, blob_size: int) -> TarSplitLocation:
    """The annotation ``offset:compressed:uncompressed`` of a blob of `blob_size` bytes; or FormatError."""
    match = _TAR_SPLIT_POSITION.fullmatch(text)
    if match is None:
        raise FormatError(f"{what}: wanted offset:compressed:uncompressed, got {text[:100]!r}")
    offset, compressed, uncompressed = map(int, match.groups())
    _check_place(what, offset, compressed, blob_size)
    return TarSplitLocation(offset, compressed, uncompressed)


def _check_place(what: str, offset: int, size: int, blob_size: int) -> None:
    if offset < _FRAME_HEADER or offset + size > blob_size:
        raise FormatError(
            f"{what}: wanted a place inside the blob of {blob_size} bytes, got {offset} + {size}"
        )
