"""eStargz: gzip members with a TOC member at the end (stargz-snapshotter, docs/estargz.md)."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..digest import Digest
from ..errors import FormatError, VerificationError
from .base import (
    MAX_TOC_BYTES,
    Bytes,
    Compression,
    DecodeJob,
    ExternalToc,
    FooterField,
    FooterLayout,
    TarSplit,
    TocLocation,
    Trailer,
    check_toc_size,
    nearest_layout,
)
from .pack import compress_pieces
from .pieces import decode_and_digest, decode_document, decode_piece

TOC_NAME = b"stargz.index.json"
TOC_DIGEST_ANNOTATION = "containerd.io/snapshot/stargz/toc.digest"
UNCOMPRESSED_SIZE_ANNOTATION = "io.containers.estargz.uncompressed-size"
GZIP_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
END_OF_ARCHIVE = bytes(1024)
"""Two blocks of zeros (POSIX, pax, "ustar Interchange Format")."""
_TAR_BLOCK = 512
_OFFSET = re.compile(rb"[0-9a-f]{16}")
_TAR_NUMBER = re.compile(rb" *([0-7]+)[ \0]*")

# RFC 1952 section 2.3: magic, deflate, FEXTRA, no time, no extra flags, unknown system: as Go writes it.
_GZIP_HEADER = FooterField.of("gzip header", bytes.fromhex("1f8b0804 00000000 00ff"))
# One stored block of no bytes, then CRC-32 and ISIZE of nothing.
_EMPTY = (
    FooterField.of("empty deflate block", bytes.fromhex("010000ffff")),
    FooterField.of("CRC-32", bytes(4)),
    FooterField.of("ISIZE", bytes(4)),
)


def _length(size: int) -> bytes:
    return size.to_bytes(2, "little")


_FOOTER = FooterLayout(
    "eStargz footer",
    (
        _GZIP_HEADER,
        FooterField.of("extra length", _length(26)),
        FooterField.of("subfield header", b"SG" + _length(22)),
        FooterField("TOC offset", 16),
        FooterField.of("magic", b"STARGZ"),
        *_EMPTY,
    ),
)
_LEGACY_FOOTER = FooterLayout(
    "legacy stargz footer",
    (
        _GZIP_HEADER,
        FooterField.of("extra length", _length(22)),
        FooterField("TOC offset", 16),
        FooterField.of("magic", b"STARGZ"),
        *_EMPTY,
    ),
)
_EXTERNAL_FOOTER = FooterLayout(
    "eStargz footer with external TOC",
    (
        _GZIP_HEADER,
        FooterField.of("extra length", _length(21)),
        FooterField.of("subfield header", b"SG" + _length(17)),
        FooterField.of("magic", b"STARGZEXTERNALTOC"),
        *_EMPTY,
    ),
)
_LAYOUTS = (_FOOTER, _LEGACY_FOOTER, _EXTERNAL_FOOTER)


@dataclass(frozen=True, slots=True)
class EStargz:
    """The reader. TOC digest: sha256 of the uncompressed JSON."""

    name: str = "eStargz"
    compression: Compression = Compression.GZIP
    footer_size: int = _FOOTER.size

    def parse_footer(self, tail: bytes, blob_size: int) -> TocLocation | ExternalToc:
        """51 bytes; legacy stargz: 47; external TOC: 46."""
        layout = nearest_layout(_LAYOUTS, tail)
        values = layout.read(tail, blob_size)
        toc_end = blob_size - layout.size
        if layout is _EXTERNAL_FOOTER:
            return ExternalToc(toc_end)
        text = values["TOC offset"]
        if not _OFFSET.fullmatch(text):
            raise FormatError(
                f"{layout.name}: TOC offset: wanted 16 lower-case hexadecimal digits, got {text!r}",
                field="TOC offset",
            )
        offset = int(text, 16)
        if not 0 <= offset < toc_end:
            raise FormatError(
                f"{layout.name}: TOC offset: wanted 0 to {toc_end - 1}, got {offset}", field="TOC offset"
            )
        size = check_toc_size(f"{layout.name}: compressed TOC", toc_end - offset)
        return TocLocation(offset, size, None)

    def open_toc(self, raw: bytes, location: TocLocation, toc_digest: Digest) -> bytes:
        """The member is a tar stream whose first entry is the JSON."""
        size = location.require_compressed_size()
        if len(raw) < size:
            raise FormatError(
                f"eStargz TOC: wanted {size} bytes at blob offset {location.offset}, got {len(raw)}"
            )
        return _read_toc(memoryview(raw)[:size], toc_digest)

    def decode(self, piece: Bytes, inner_offset: int, size: int) -> bytearray:
        """One member, or several in a row."""
        return decode_piece(Compression.GZIP, piece, inner_offset, size)

    def decode_many(self, span: Bytes, jobs: Sequence[DecodeJob]) -> list[tuple[int, bytes]]:
        """In one call without the GIL."""
        return decode_and_digest(Compression.GZIP, span, jobs)


ESTARGZ = EStargz()


@dataclass(frozen=True, slots=True)
class EStargzWriter:
    """The writer; with `external` the TOC is not in the blob but in `external_toc_layer`."""

    level: int
    """1 to 12, of libdeflate."""
    external: bool = False
    media_type: str = GZIP_LAYER

    @property
    def ends_tar(self) -> bool:
        """The TOC is the tar's last entry."""
        return not self.external

    def compress(self, span: Bytes, ends: list[int]) -> tuple[bytes, list[int]]:
        """A member for each piece."""
        return compress_pieces(Compression.GZIP, self.level, span, ends)

    def finish(self, toc: bytes, data_size: int, tar_size: int, tar_split: TarSplit | None) -> Trailer:
        """The TOC's member (with the end of the tar) and the footer."""
        if self.external:
            blob, tar = external_footer(), b""
        else:
            tar = _toc_tar(toc)
            blob = self.compress(tar, [len(tar)])[0] + toc_footer(data_size)
        digest = Digest.of(toc)
        annotations = {
            TOC_DIGEST_ANNOTATION: str(digest),
            UNCOMPRESSED_SIZE_ANNOTATION: str(tar_size + len(tar)),
        }
        return Trailer(blob, tar, digest, annotations)

    def external_toc_layer(self, toc: bytes) -> tuple[bytes, Digest]:
        """The layer of the image ``<reference>-esgztoc``, and its diffID."""
        tar = _toc_tar(toc)
        return self.compress(tar, [len(tar)])[0], Digest.of(tar)


def toc_footer(toc_offset: int) -> bytes:
    """51 bytes that say where the TOC's member begins."""
    return _FOOTER.write({"TOC offset": b"%016x" % toc_offset})


def external_footer() -> bytes:
    """46 bytes that say that the TOC is elsewhere."""
    return _EXTERNAL_FOOTER.write({})


def tar_header(name: bytes, size: int) -> bytes:
    """The header of a regular file with neither mode nor owner nor time (POSIX.1-1988 ustar)."""
    header = bytearray(_TAR_BLOCK)
    header[: len(name)] = name
    header[100:124] = b"0000000\0" * 3
    header[124:136] = b"%011o\0" % size
    header[136:148] = b"00000000000\0"
    header[148:157] = b" " * 8 + b"0"
    header[257:265] = b"ustar\x0000"
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def _toc_tar(toc: bytes) -> bytes:
    return tar_header(TOC_NAME, len(toc)) + toc + bytes(-len(toc) % _TAR_BLOCK) + END_OF_ARCHIVE


def open_external_toc(layer_bytes: bytes, toc_digest: Digest) -> bytes:
    """The JSON out of the layer of the image ``<reference>-esgztoc``: a tar.gz that holds nothing else.

    Raises FormatError, VerificationError.
    """
    check_toc_size("external TOC: compressed layer", len(layer_bytes))
    return _read_toc(layer_bytes, toc_digest)


def _read_toc(data: Bytes, toc_digest: Digest) -> bytes:
    header = decode_document("eStargz TOC: tar header", Compression.GZIP, data, size=_TAR_BLOCK)
    size = _parse_tar_header(header)
    document = decode_document("eStargz TOC", Compression.GZIP, data, skip=_TAR_BLOCK, size=size)
    got = Digest(hashlib.sha256(document).hexdigest())
    if got != toc_digest:
        raise VerificationError("eStargz TOC", wanted=str(toc_digest), got=str(got))
    return document


def _parse_tar_header(header: bytes) -> int:
    """The size of the entry ``stargz.index.json`` (POSIX.1-1988 ustar); raises FormatError."""
    what = "eStargz TOC: tar header"
    name = header[:100].rstrip(b"\0")
    if name != TOC_NAME:
        raise FormatError(f"{what}: name: wanted {TOC_NAME.decode()}, got {name!r}", field="name")
    if header[156:157] not in (b"0", b"\0"):
        raise FormatError(f"{what}: typeflag: wanted '0', got {header[156:157]!r}", field="typeflag")
    wanted = _tar_number(what, "checksum", header[148:156])
    got = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    if got != wanted:
        raise FormatError(f"{what}: checksum: wanted {wanted:o} (octal), got {got:o}", field="checksum")
    size = _tar_number(what, "size", header[124:136])
    if not 0 < size <= MAX_TOC_BYTES:
        raise FormatError(f"{what}: size: wanted 1 to {MAX_TOC_BYTES} bytes, got {size}", field="size")
    return size


def _tar_number(what: str, field: str, text: bytes) -> int:
    match = _TAR_NUMBER.fullmatch(text)
    if match is None:
        raise FormatError(f"{what}: {field}: wanted an octal number, got {text!r}", field=field)
    return int(match[1], 8)
