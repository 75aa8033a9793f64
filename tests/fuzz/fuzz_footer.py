"""Fuzz target: annotations, footer and TOC member of a layer, as a registry may serve them.

    python -m tests.fuzz.fuzz_footer [libFuzzer options] [corpus directory]        (needs atheris)

Whatever the bytes: a place inside the blob and the TOC that its digest names, or an error of this package.
"""

import sys
from contextlib import suppress
from dataclasses import replace

from registry_storage.descriptor import Descriptor
from registry_storage.digest import Digest
from registry_storage.errors import RegistryStorageError
from registry_storage.formats.base import ExternalToc, TocLocation
from registry_storage.formats.detect import detect
from registry_storage.formats.estargz import open_external_toc
from tests.fakes import layer_blobs

LAYERS = (
    layer_blobs.estargz([b"payload"]),
    layer_blobs.estargz([b"payload"], footer="legacy"),
    layer_blobs.estargz([b"payload"], footer="external"),
    layer_blobs.zstd_chunked([b"payload"], "podman"),
    layer_blobs.zstd_chunked([b"payload"], "podman-old"),
    layer_blobs.zstd_chunked([b"payload"], "stargz"),
)
HEAD = 4


def seeds() -> list[bytes]:
    """Every layer as it is, by its blob and by its annotations, and with a harmless bend."""
    blobs = [bytes([kind, 4, 0, 0]) + layer.blob for kind, layer in enumerate(LAYERS)]
    bends = [bytes([kind, mode, 0, 0, 0, 30, 0]) for kind in range(len(LAYERS)) for mode in (0, 2)]
    texts = [
        bytes([kind, 1, 0, key]) + text.encode()
        for kind, layer in enumerate(LAYERS)
        for key, text in enumerate(layer.annotations.values())
    ]
    return blobs + bends + texts


def one_input(data: bytes) -> None:
    """Byte 0: the kind of layer; byte 1: bit 0 the rest is annotation number byte 3, bit 2 the rest is the blob,
    neither: the rest bends a good blob; bit 1 the position is not annotated; byte 2: how many bytes of the
    blob's size are denied.
    """
    if len(data) < HEAD:
        return
    kind, mode, less, key = data[:HEAD]
    rest = data[HEAD:]
    layer = LAYERS[kind % len(LAYERS)]
    annotations, blob = dict(layer.annotations), layer.blob
    if mode & 1:
        annotations[list(annotations)[key % len(annotations)]] = rest.decode("utf-8", "replace")
    else:
        blob = rest if mode & 4 else bend(layer.blob, rest)
        if mode & 2:
            annotations = {k: text for k, text in annotations.items() if not k.endswith("position")}
    descriptor = replace(layer.descriptor, size=max(len(blob) - less, 0), annotations=annotations)
    with suppress(RegistryStorageError):
        check(descriptor, blob, layer.toc)
    with suppress(RegistryStorageError):
        assert open_external_toc(blob, Digest.of(layer.toc)) == layer.toc


def bend(blob: bytes, edits: bytes) -> bytes:
    """`blob` with bytes changed: two bytes of distance from the end and one to be XORed, again and again."""
    bent = bytearray(blob)
    for high, low, change in zip(edits[::3], edits[1::3], edits[2::3], strict=False):
        bent[-1 - (high << 8 | low) % len(bent)] ^= change
    return bytes(bent)


def check(descriptor: Descriptor, blob: bytes, toc: bytes) -> None:
    """What a reader does with a layer."""
    lazy = detect(descriptor)
    location = lazy.locate_toc(blob[-lazy.format.footer_size :])
    if isinstance(location, ExternalToc):
        assert 0 <= location.data_end <= descriptor.size
        return
    assert isinstance(location, TocLocation)
    assert location.compressed_size is not None
    assert 0 <= location.offset < location.offset + location.compressed_size <= descriptor.size
    # Another TOC that its digest names would need a collision.
    assert lazy.format.open_toc(blob[location.offset :], location, lazy.toc_digest) == toc


def main() -> None:
    import atheris

    atheris.instrument_all()
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
