"""The info file, as each generation of podman reads it."""

import json

from registry_storage.descriptor import Descriptor
from registry_storage.digest import Digest
from registry_storage.formats.base import Compression
from registry_storage.store.info import build_info

LAYER, TOC, DIFF = (Digest.of(text) for text in (b"layer", b"toc", b"diff"))


def info(name: Digest) -> dict[str, object]:
    document = build_info(
        name,
        descriptor=Descriptor("application/vnd.oci.image.layer.v1.tar+zstd", LAYER, 1234),
        toc_digest=TOC,
        diff_id=DIFF,
        compression=Compression.ZSTD,
        diff_size=5678,
    )
    assert document.endswith(b"}\n")
    parsed = json.loads(document)
    assert isinstance(parsed, dict)
    return parsed


def test_under_the_layer_digest_it_is_what_podman_4_reads() -> None:
    assert info(LAYER) == {
        "diff-digest": str(DIFF),
        "compressed-diff-digest": str(LAYER),
        "compressed-size": 1234,
        "diff-size": 5678,
        "compression": 4,
    }


def test_under_the_toc_digest_no_unverified_diff_digest_is_given() -> None:
    assert info(TOC) == {
        "toc-digest": str(TOC),
        "flags": {"expected-layer-diffid": str(DIFF)},
        "compressed-diff-digest": str(LAYER),
        "compressed-size": 1234,
        "diff-size": -1,
        "compression": 4,
    }
