"""Fuzz target: the blob of a plain layer, unpacked whole: decompression, tar, and the index that comes of it.

    python -m tests.fuzz.fuzz_tar [libFuzzer options] [corpus directory]           (needs atheris)

Whatever the bytes: an error of this package, or a layer in which every chunk is where the index says it is.
"""

import gzip
import hashlib
import io
import sys
import tarfile
import tempfile
from contextlib import suppress
from pathlib import Path

from registry_storage.descriptor import Descriptor
from registry_storage.digest import Digest
from registry_storage.errors import RegistryStorageError
from registry_storage.formats.unpacking import unpacked_blocks
from registry_storage.layer.plain import _Unpacking
from registry_storage.toc.index import TocIndex
from tests.fakes.layer_blobs import zstd_frame
from tests.fuzz.toc_reading import read_everything

BLOCK = 512
LARGEST = 1 << 22
RAW, PLAIN, GZIP, ZSTD = range(4)
MEND = 4


def seeds() -> list[bytes]:
    """A tar of every kind of entry in three formats, each compressed in every way and not at all."""
    tars = [_tar(form) for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)]
    blobs = [bytes([RAW]) + gzip.compress(tar, mtime=0) for tar in tars] + [bytes([RAW]) + zstd_frame(tars[0])]
    return blobs + [bytes([kind | MEND]) + tar for tar in tars for kind in (PLAIN, GZIP, ZSTD)]


def _tar(form: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, kind, data in (
            ("d", tarfile.DIRTYPE, b""), ("d/f", tarfile.REGTYPE, b"x" * 700), ("d/empty", tarfile.REGTYPE, b""),
            ("d/hard", tarfile.LNKTYPE, b""), ("soft", tarfile.SYMTYPE, b""), ("dev", tarfile.CHRTYPE, b""),
            ("d/.wh.gone", tarfile.REGTYPE, b""), ("l" * 90 + "/" + "n" * 90, tarfile.REGTYPE, b"long"),
        ):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname, info.mtime = kind, len(data), "d/f", 7
            if form == tarfile.PAX_FORMAT:
                info.pax_headers = {"SCHILY.xattr.user.a": "b", "mtime": "1.5"}
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def one_input(data: bytes) -> None:
    """Byte 0, bits 0 and 1: the rest is a blob, or a tar to compress with nothing, gzip or zstd.

    Bit 2: the headers' checksums are mended.
    """
    if not data:
        return
    kind, rest = data[0] & 3, data[1:]
    if kind != RAW and data[0] & MEND:
        rest = mend(rest)
    blob = {RAW: bytes, PLAIN: bytes, GZIP: lambda tar: gzip.compress(tar, 1, mtime=0), ZSTD: zstd_frame}[kind](rest)
    summer, size = hashlib.sha256(), 0
    with suppress(RegistryStorageError):
        for block in unpacked_blocks(io.BytesIO(blob), lambda _: None):
            summer.update(block)
            size += len(block)
            if size > LARGEST:
                return  # a bomb; nothing here holds it whole
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory, tempfile.TemporaryFile(dir="/dev/shm") as toc:
        descriptor = Descriptor("application/vnd.oci.image.layer.v1.tar", Digest.of(blob), len(blob))
        try:
            _Unpacking(Path(directory), descriptor, Digest(summer.hexdigest()), toc, lambda _: None).unpack(_Pipe(blob))  # type: ignore[arg-type]
        except RegistryStorageError:
            return
        _check(Path(directory))


class _Pipe(io.BytesIO):
    """Read like a BlobPipe."""

    @property
    def digest(self) -> Digest:
        return Digest.of(self.getvalue())


def mend(tar: bytes) -> bytes:
    """The checksum of every header as it must be, or nearly nothing that is bent would be looked at."""
    mended, at = bytearray(tar), 0
    while at + BLOCK <= len(mended):
        header = mended[at : at + BLOCK]
        if any(header):
            header[148:156] = b" " * 8
            mended[at + 148 : at + 156] = b"%06o\0 " % sum(header)
        digits = bytes(header[124:136]).strip(b"\0 ")
        try:
            size = int(digits or b"0", 8)
        except ValueError:
            size = 0
        at += BLOCK + (size + BLOCK - 1) // BLOCK * BLOCK if 0 <= size <= len(mended) else BLOCK
    return bytes(mended)


def _check(directory: Path) -> None:
    index = TocIndex((directory / "index").read_bytes())
    read_everything(index, limit=50)
    with (directory / "content").open("rb") as content:
        for number in range(index.chunk_count):
            chunk = index.chunk(number)
            if not chunk.is_hole:
                content.seek(chunk.content_offset)
                assert hashlib.sha256(content.read(chunk.size)).digest() == chunk.digest_raw


def main() -> None:
    import atheris

    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
