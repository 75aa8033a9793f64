"""eStargz: gzip members with a TOC member at the end (stargz-snapshotter, docs/estargz.md)."""

import hashlib
import re
from dataclasses import dataclass

from ..digest import Digest
from ..errors import FormatError, VerificationError
from .base import (
    MAX_TOC_BYTES,
    Bytes,
    Compression,
    ExternalToc,
    FooterField,
    FooterLayout,
    TocLocation,
    check_toc_size,
    nearest_layout,
)
from .pieces import decode_document, decode_piece

TOC_NAME = b"stargz.index.json"
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


ESTARGZ = EStargz()


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
