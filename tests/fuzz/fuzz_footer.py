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
    """Every layer as it is, once by its blob and once by its annotations."""
    blobs = [bytes([kind, 0, 0, 0]) + layer.blob for kind, layer in enumerate(LAYERS)]
    texts = [
        bytes([kind, 1, 0, key]) + text.encode()
        for kind, layer in enumerate(LAYERS)
        for key, text in enumerate(layer.annotations.values())
    ]
    return blobs + texts


def one_input(data: bytes) -> None:
            annotations = {name: text for name, text in annotations.items() if "position" not in name}
    byte 3, bit 1 whether the position is annotated; byte 2: how much of the blob's size is denied.
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
        blob = rest
        if mode & 2:
            annotations = {k: text for k, text in annotations.items() if not k.endswith("position")}
    descriptor = replace(layer.descriptor, size=max(len(blob) - less, 0), annotations=annotations)
    with suppress(RegistryStorageError):
        check(descriptor, blob, layer.toc)
    with suppress(RegistryStorageError):
        assert open_external_toc(blob, Digest.of(layer.toc)) == layer.toc


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
    # A changed digest annotation that is right after all would need a collision.
    assert lazy.format.open_toc(blob[location.offset :], location, lazy.toc_digest) == toc


def main() -> None:
    import atheris

    atheris.instrument_all()
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
