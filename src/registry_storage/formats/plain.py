"""Layers in no lazily pullable format: their index is made from the tar itself, and its blob space is the tar's.

A chunk's `blob_offset` is where its bytes begin in the uncompressed tar. Whoever can produce a range of the tar can
bring a chunk again: today by streaming the blob from its start (`layer/tar_of_blob.py`); with checkpoints of the
decompressor every few MiB, from the nearest one.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from ..descriptor import Descriptor
from ..digest import Digest
from ..errors import FormatError, NotLazyError
from .base import Bytes, Compression, DecodeJob, ExternalToc, TocLocation
from .detect import LazyLayer, layer_compression
from .pieces import Status


@dataclass(frozen=True, slots=True)
class PlainTar:
    """The LayerFormat of a range of an uncompressed tar."""

    compression: Compression
    """Of the blob."""
    name: str = "plain tar"
    footer_size: int = 0

    def parse_footer(self, tail: bytes, blob_size: int) -> TocLocation | ExternalToc:
        """There is none."""
        raise FormatError("a plain layer has no footer")

    def open_toc(self, raw: bytes, location: TocLocation, toc_digest: Digest) -> bytes:
        """There is none."""
        raise FormatError("a plain layer has no TOC")

    def decode(self, piece: Bytes, inner_offset: int, size: int) -> bytearray:
        """See LayerFormat."""
        if inner_offset + size > len(piece):
            raise FormatError(f"tar: wanted {inner_offset + size} bytes, got {len(piece)}")
        return bytearray(memoryview(piece)[inner_offset : inner_offset + size])

    def decode_many(self, span: Bytes, jobs: Sequence[DecodeJob]) -> list[tuple[int, bytes]]:
        """See LayerFormat."""
        view, results = memoryview(span), []
        for at, piece_size, inner_offset, size, wanted in jobs:
            data = bytes(view[at + inner_offset : at + piece_size][:size])
            got = hashlib.sha256(data).digest()
            if len(data) < size:
                results.append((int(Status.TRUNCATED), b""))
            else:
                results.append((int(Status.OK), data) if got == wanted else (int(Status.MISMATCH), got))
        return results


def plain(descriptor: Descriptor) -> LazyLayer:
    """The layer as a plain one, whatever else it is; the layer digest stands for the TOC digest.

    Raises NotLazyError for what is no tar in a registry: foreign, encrypted, or of another media type.
    """
    compression = layer_compression(descriptor.media_type)
    if descriptor.urls:
        raise NotLazyError("the layer is a foreign one: it comes from urls of its own")
    return LazyLayer(PlainTar(compression), descriptor.digest, descriptor.size)
