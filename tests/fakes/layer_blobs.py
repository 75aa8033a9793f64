"""Small layer blobs of every format, made with zlib and zstandard, so that tests can bend any byte."""

import hashlib
import io
import json
import struct
import tarfile
import zlib
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import zstandard

from registry_storage.descriptor import Descriptor
from registry_storage.digest import Digest

GZIP_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
ZSTD_LAYER = "application/vnd.oci.image.layer.v1.tar+zstd"
TOC_NAME = "stargz.index.json"


class Chunk(NamedTuple):
    """The same fields as `registry_storage.toc.chunk.Chunk`."""

    number: int
    blob_offset: int
    blob_size: int
    inner_offset: int
    size: int
    content_offset: int
    digest_raw: bytes
    is_hole: bool = False


@dataclass
class Layer:
    """A blob with what a manifest and a TOC would say of it."""

    blob: bytes
    media_type: str
    annotations: dict[str, str]
    toc: bytes
    toc_offset: int
    chunks: list[Chunk] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(self.media_type, Digest.of(self.blob), len(self.blob), self.annotations)


def gzip_member(data: bytes, level: int = 6) -> bytes:
    engine = zlib.compressobj(level, wbits=31)
    return engine.compress(data) + engine.flush()


def zstd_frame(data: bytes, *, told: bool = True, level: int = 3) -> bytes:
    """One frame; `told`: with its content size in the header."""
    return zstandard.ZstdCompressor(level=level, write_content_size=told, write_checksum=True).compress(data)


def tar_entry(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def skippable(payload: bytes) -> bytes:
    return bytes.fromhex("502a4d18") + struct.pack("<I", len(payload)) + payload


def _go_gzip(extra: bytes) -> bytes:
    return (
        bytes.fromhex("1f8b08040000000000ff")
        + struct.pack("<H", len(extra))
        + extra
        + bytes.fromhex("010000ffff")
        + bytes(8)
    )


def estargz_footer(toc_offset: int) -> bytes:
    return _go_gzip(b"SG" + struct.pack("<H", 22) + b"%016xSTARGZ" % toc_offset)


def legacy_footer(toc_offset: int) -> bytes:
    return _go_gzip(b"%016xSTARGZ" % toc_offset)


def external_footer() -> bytes:
    return _go_gzip(b"SG" + struct.pack("<H", 17) + b"STARGZEXTERNALTOC")


def toc_json(chunks: list[Chunk]) -> bytes:
    entries: list[dict[str, Any]] = [
        {
            "name": f"f{chunk.number}",
            "type": "reg",
            "size": chunk.size,
            "offset": chunk.blob_offset,
            "innerOffset": chunk.inner_offset,
            "chunkDigest": f"sha256:{chunk.digest_raw.hex()}",
        }
        for chunk in chunks
    ]
    return json.dumps({"version": 1, "entries": entries}).encode()


def _chunks_of(pieces: list[tuple[bytes, list[tuple[int, bytes]]]], end: int) -> list[Chunk]:
    """Pieces as (compressed, [(inner offset, payload)]), laid one behind the other from 0 on."""
    chunks: list[Chunk] = []
    offset = content = 0
    for compressed, payloads in pieces:
        for inner, payload in payloads:
            digest = hashlib.sha256(payload).digest()
            chunks.append(Chunk(len(chunks), offset, len(compressed), inner, len(payload), content, digest))
            content += len(payload)
        offset += len(compressed)
    assert offset == end
    return chunks


def estargz(payloads: list[bytes], *, footer: str = "", shared: bool = False) -> Layer:
    """`footer`: "", "legacy" or "external"; `shared`: all payloads in one member, by inner offset."""
    groups = [payloads] if shared else [[payload] for payload in payloads]
    pieces = []
    for group in groups:
        inner, text, placed = 0, b"", []
        for payload in group:
            placed.append((inner, payload))
            # What really follows a payload: tar padding and the next header.
            text += payload + bytes(-len(payload) % 512) + tarfile.TarInfo("next").tobuf()
            inner = len(text)
        pieces.append((gzip_member(text), placed))
    data = b"".join(compressed for compressed, _ in pieces)
    chunks = _chunks_of(pieces, len(data))
    toc = toc_json(chunks)
    blob = data
    if footer == "external":
        blob += external_footer()
    else:
        blob += gzip_member(tar_entry(TOC_NAME, toc))
        blob += (legacy_footer if footer == "legacy" else estargz_footer)(len(data))
    annotations = {"containerd.io/snapshot/stargz/toc.digest": str(Digest.of(toc))}
    return Layer(blob, GZIP_LAYER, annotations, toc, len(data), chunks, payloads)


def zstd_chunked(payloads: list[bytes], kind: str, *, told: bool = True) -> Layer:
    """`kind`: "podman", "podman-old" or "stargz"."""
    pieces = [(zstd_frame(payload, told=told), [(0, payload)]) for payload in payloads]
    data = b"".join(compressed for compressed, _ in pieces)
    chunks = _chunks_of(pieces, len(data))
    toc = toc_json(chunks)
    packed = zstd_frame(toc)
    toc_offset = len(data) + 8
    blob = data + skippable(packed)
    position = (toc_offset, len(packed), len(toc))
    text = ":".join(map(str, (*position, 1)))
    if kind == "podman":
        split = b'{"type":2,"payload":"","position":0}\n'
        packed_split = zstd_frame(split)
        split_position = (len(blob) + 8, len(packed_split), len(split))
        blob += skippable(packed_split)
        blob += skippable(struct.pack("<7Q", *position, 1, *split_position) + b"GNUlInUx")
        annotations = {
            "io.github.containers.zstd-chunked.manifest-checksum": str(Digest.of(packed)),
            "io.github.containers.zstd-chunked.manifest-position": text,
            "io.github.containers.zstd-chunked.tarsplit-position": ":".join(map(str, split_position)),
        }
    else:
        blob += skippable(struct.pack("<4Q", *position, 1) + b"GnUlInUx")
        annotations = {
            "io.containers.zstd-chunked.manifest-checksum": str(Digest.of(packed)),
            "io.containers.zstd-chunked.manifest-position": text,
        }
        if kind == "stargz":
            annotations["containerd.io/snapshot/stargz/toc.digest"] = str(Digest.of(toc))
    return Layer(blob, ZSTD_LAYER, annotations, toc, toc_offset, chunks, payloads)
