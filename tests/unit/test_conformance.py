"""Our compressions pass the suite that we ship; compressions with a defect do not."""

import gzip
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from registry_storage.convert.options import LayerKind
from registry_storage.digest import Digest
from registry_storage.errors import FormatError, VerificationError
from registry_storage.formats.base import (
    Bytes,
    Compression,
    Compressor,
    DecodeJob,
    LayerFormat,
    TarSplit,
    TocLocation,
    Trailer,
)
from registry_storage.formats.estargz import ESTARGZ, EStargzWriter
from registry_storage.formats.pieces import decode_each
from registry_storage.formats.unpacking import Unpacking
from registry_storage.formats.zstd_chunked import ZSTD_CHUNKED_PODMAN, ZSTD_CHUNKED_STARGZ, ZstdChunkedWriter
from registry_storage.testing import Codec, LayerConformance


def unpack_zstd(blob: bytes) -> bytes:
    unpacking = Unpacking(Compression.ZSTD)
    return b"".join([*unpacking.feed(blob), *unpacking.finish()])


GZIP = Codec("eStargz", EStargzWriter(6), ESTARGZ, gzip.decompress, known=True)
PODMAN = Codec(
    "podman", ZstdChunkedWriter(3, podman=True), ZSTD_CHUNKED_PODMAN, unpack_zstd,
    LayerKind.ZSTD_CHUNKED_PODMAN, known=True,
)  # fmt: skip
STARGZ = Codec(
    "stargz", ZstdChunkedWriter(3, podman=False), ZSTD_CHUNKED_STARGZ, unpack_zstd,
    LayerKind.ZSTD_CHUNKED_STARGZ, known=True,
)  # fmt: skip


class TestEStargz(LayerConformance):
    codec = GZIP


class TestZstdChunkedOfPodman(LayerConformance):
    codec = PODMAN


class TestZstdChunkedOfStargz(LayerConformance):
    codec = STARGZ


# A third one -------------------------------------------------------------------------------------------------


class PlainFormat:
    """Nothing is compressed: the smallest implementation that can be."""

    name = "plain"
    compression = Compression.NONE
    footer_size = 24
    media_type = "application/x-plain"
    ends_tar = False

    def compress(self, span: Bytes, ends: list[int]) -> tuple[bytes, list[int]]:
        return bytes(span)[: ends[-1]] if ends else b"", [b - a for a, b in zip([0, *ends], ends, strict=False)]

    def finish(self, toc: bytes, data_size: int, tar_size: int, tar_split: TarSplit | None) -> Trailer:
        footer = data_size.to_bytes(8, "big") + len(toc).to_bytes(8, "big") + b"PLAINTOC"
        return Trailer(toc + footer, b"", Digest.of(toc), {"x.plain.toc": str(Digest.of(toc))})

    def parse_footer(self, tail: bytes, blob_size: int) -> TocLocation:
        footer = tail[-24:]
        offset, size = int.from_bytes(footer[:8], "big"), int.from_bytes(footer[8:16], "big")
        if footer[16:] != b"PLAINTOC" or offset + size + 24 != blob_size:
            raise FormatError("plain footer")
        return TocLocation(offset, size, size)

    def open_toc(self, raw: bytes, location: TocLocation, toc_digest: Digest) -> bytes:
        toc = raw[: location.require_compressed_size()]
        if Digest.of(toc) != toc_digest:
            raise VerificationError("plain TOC", wanted=str(toc_digest), got=str(Digest.of(toc)))
        return toc

    def decode(self, piece: Bytes, inner_offset: int, size: int) -> bytearray:
        data = bytearray(piece)[inner_offset : inner_offset + size]
        if len(data) != size:
            raise FormatError("plain piece")
        return data

    def decode_many(self, span: Bytes, jobs: Sequence[DecodeJob]) -> list[tuple[int, bytes]]:
        return decode_each(self, span, jobs)


class TestAThirdOne(LayerConformance):
    codec = Codec("plain", PlainFormat(), PlainFormat(), lambda blob: blob[: int.from_bytes(blob[-24:-16], "big")])


# Defects -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mutant:
    """A compressor with one defect."""

    inner: Compressor

    @property
    def media_type(self) -> str:
        return self.inner.media_type

    @property
    def ends_tar(self) -> bool:
        return self.inner.ends_tar

    def compress(self, span: Bytes, ends: list[int]) -> tuple[bytes, list[int]]:
        return self.inner.compress(span, ends)

    def finish(self, toc: bytes, data_size: int, tar_size: int, tar_split: TarSplit | None) -> Trailer:
        return self.inner.finish(toc, data_size, tar_size, tar_split)


class WrongTocOffset(Mutant):
    def finish(self, toc: bytes, data_size: int, tar_size: int, tar_split: TarSplit | None) -> Trailer:
        return self.inner.finish(toc, data_size + 1, tar_size, tar_split)


class DigestOfWrongBytes(Mutant):
    def finish(self, toc: bytes, data_size: int, tar_size: int, tar_split: TarSplit | None) -> Trailer:
        trailer = self.inner.finish(toc, data_size, tar_size, tar_split)
        return replace(trailer, toc_digest=Digest.of(trailer.blob))


class TarForgotten(Mutant):
    """The tar that the end adds, or adds not, is told wrong."""

    def finish(self, toc: bytes, data_size: int, tar_size: int, tar_split: TarSplit | None) -> Trailer:
        trailer = self.inner.finish(toc, data_size, tar_size, tar_split)
        return replace(trailer, tar=trailer.tar[512:] if trailer.tar else bytes(512))


class TwoAnnotations(Mutant):
    def finish(self, toc: bytes, data_size: int, tar_size: int, tar_split: TarSplit | None) -> Trailer:
        trailer = self.inner.finish(toc, data_size, tar_size, tar_split)
        keys = ("containerd.io/snapshot/stargz/toc.digest", "io.github.containers.zstd-chunked.manifest-checksum")
        return replace(trailer, annotations={**dict.fromkeys(keys, str(trailer.toc_digest)), **trailer.annotations})


class LandmarkForgotten(Mutant):
    def finish(self, toc: bytes, data_size: int, tar_size: int, tar_split: TarSplit | None) -> Trailer:
        changed = toc.replace(b'prefetch.landmark"', b'prefetch.nolandma"')
        return self.inner.finish(changed, data_size, tar_size, tar_split)


class ChunkDigestsSpoiled(Mutant):
    def finish(self, toc: bytes, data_size: int, tar_size: int, tar_split: TarSplit | None) -> Trailer:
        return self.inner.finish(_rotate_digests(toc), data_size, tar_size, tar_split)


def _rotate_digests(toc: bytes) -> bytes:
    parts = toc.split(b'igest":"sha256:')
    return b'igest":"sha256:'.join([parts[0], *(part[1:64] + part[:1] + part[64:] for part in parts[1:])])


class OffsetsOfTheNext(Mutant):
    """Each piece is said to be one byte longer, the last one shorter."""

    def compress(self, span: Bytes, ends: list[int]) -> tuple[bytes, list[int]]:
        blob, sizes = self.inner.compress(span, ends)
        if len(sizes) > 1:
            sizes = [sizes[0] + 1, *sizes[1:-1], sizes[-1] - 1]
        return blob, sizes


class PiecesTogether(Mutant):
    """One piece for all: none but the first can be read alone."""

    def compress(self, span: Bytes, ends: list[int]) -> tuple[bytes, list[int]]:
        if not ends:
            return b"", []
        blob, _ = self.inner.compress(span, ends[-1:])
        return blob, [len(blob) - len(ends) + 1] + [1] * (len(ends) - 1)


class LastByteLost(Mutant):
    def compress(self, span: Bytes, ends: list[int]) -> tuple[bytes, list[int]]:
        blob, sizes = self.inner.compress(bytes(span)[:-1] + b"\0", ends)
        return blob, sizes


class PiecesSwapped(Mutant):
    def compress(self, span: Bytes, ends: list[int]) -> tuple[bytes, list[int]]:
        parts = [bytes(span)[a:b] for a, b in zip([0, *ends], ends, strict=False)]
        if len(parts) > 2:
            parts[1], parts[2] = parts[2], parts[1]
        packed = [self.inner.compress(part, [len(part)])[0] for part in parts]
        return b"".join(packed), [len(part) for part in packed]


class DependsOnItsBatch(Mutant):
    """Pieces are compressed in another way when there are many."""

    def compress(self, span: Bytes, ends: list[int]) -> tuple[bytes, list[int]]:
        engine: Any = self.inner
        chosen: Compressor = replace(engine, level=1) if len(ends) > 3 else engine
        return chosen.compress(span, ends)


class FooterCut(Mutant):
    def finish(self, toc: bytes, data_size: int, tar_size: int, tar_split: TarSplit | None) -> Trailer:
        trailer = self.inner.finish(toc, data_size, tar_size, tar_split)
        return replace(trailer, blob=trailer.blob[:-1])


MUTANTS: list[Callable[[Compressor], Compressor]] = [
    WrongTocOffset, DigestOfWrongBytes, TarForgotten, TwoAnnotations, LandmarkForgotten, ChunkDigestsSpoiled,
    OffsetsOfTheNext, PiecesTogether, LastByteLost, PiecesSwapped, DependsOnItsBatch, FooterCut,
]  # fmt: skip


@dataclass(frozen=True)
class BlindDecompressor:
    """Reads well, and believes every chunk."""

    inner: LayerFormat

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def decode_many(self, span: Bytes, jobs: Sequence[DecodeJob]) -> list[tuple[int, bytes]]:
        return [(0, bytes(self.inner.decode(span[at : at + n], inner, size))) for at, n, inner, size, _ in jobs]


@dataclass(frozen=True)
class DeafToInnerOffsets(BlindDecompressor):
    def decode_many(self, span: Bytes, jobs: Sequence[DecodeJob]) -> list[tuple[int, bytes]]:
        return self.inner.decode_many(span, [(at, n, 0, size, wanted) for at, n, _, size, wanted in jobs])


def first_failure(codec: Codec) -> str | None:
    """The first test of the suite that a codec fails."""

    class Suite(LayerConformance):
        pass

    Suite.codec = codec
    for name in dir(Suite):
        if name.startswith("test_"):
            try:
                getattr(Suite(), name)()
            except pytest.skip.Exception:
                continue
            except (Exception, pytest.fail.Exception):
                return name
    return None


def test_a_compressor_without_a_defect_passes() -> None:
    assert first_failure(replace(GZIP, compressor=Mutant(GZIP.compressor))) is None


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
@pytest.mark.parametrize("codec", [GZIP, PODMAN, STARGZ], ids=lambda codec: codec.name)
def test_a_compressor_with_a_defect_fails(codec: Codec, mutant: Callable[[Compressor], Compressor]) -> None:
    assert first_failure(replace(codec, compressor=mutant(codec.compressor)))


@pytest.mark.parametrize("mutant", [BlindDecompressor, DeafToInnerOffsets])
@pytest.mark.parametrize("codec", [GZIP, STARGZ], ids=lambda codec: codec.name)
def test_a_decompressor_with_a_defect_fails(codec: Codec, mutant: Callable[[LayerFormat], Any]) -> None:
    assert first_failure(replace(codec, decompressor=mutant(codec.decompressor)))
