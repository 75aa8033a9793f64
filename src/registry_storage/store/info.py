"""The ``info`` file of a layer, as each generation of podman reads it (containers-storage's layer structure)."""

import json
from typing import Any

from ..descriptor import Descriptor
from ..digest import Digest
from ..formats.base import Compression


def build_info(
    name_digest: Digest,
    *,
    descriptor: Descriptor,
    toc_digest: Digest,
    diff_id: Digest,
    compression: Compression,
    diff_size: int,
) -> bytes:
    """One JSON object and a newline; `diff_size` is the size of the files, in bytes.

    Asked for by the TOC digest (podman ≥ 5.1) it holds no ``diff-digest``: podman would then reuse the layer for
    other images by a diffID that nobody has verified. Nor does it tell a ``diff-size`` (-1: unknown): podman
    compares it with the tar that it makes of the tree when an image is committed, and that tar is not the layer's.
    """
    info: dict[str, Any] = {
        "compressed-diff-digest": str(descriptor.digest),
        "compressed-size": descriptor.size,
        "compression": int(compression),
    }
    if name_digest == toc_digest:
        info |= {"toc-digest": str(toc_digest), "flags": {"expected-layer-diffid": str(diff_id)}, "diff-size": -1}
    else:
        info |= {"diff-digest": str(diff_id), "diff-size": diff_size}
    return json.dumps(info).encode() + b"\n"
