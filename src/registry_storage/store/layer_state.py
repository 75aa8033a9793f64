"""What ``/.registry-storage/<layer digest>.json`` at a layer's root says of the layer.

    digest, tocDigest          of the layer
    size                       bytes of its blob
    fetchedSize                bytes of the blob that the chunks take that are here
    fetchedPercent             of the bytes of its files: those that are here
    lastError                  null, or {time, message}: why something of it could not be fetched, since the daemon runs
"""

import json
import time
from typing import Any
from weakref import WeakKeyDictionary

import trio

from ..layer.layer import Layer
from ..toc.index import TocIndex

NAME = b".registry-storage"
"""At a layer's root; never listed. The lane knows it, too: _ext/lane_answer.pxd."""
DOCUMENT_BYTES = 1024
"""Always, filled up with spaces: the kernel reads no further than the size that it was told before."""
_MAX_ERROR = 400


def document_name(layer: Layer) -> bytes:
    """The only name in the directory."""
    return f"{layer.key.layer_digest}.json".encode()


class LayerStates:
    """Counts what is here in a thread, and only when chunks have come or gone."""

    def __init__(self) -> None:
        self._counted: WeakKeyDictionary[Layer, tuple[bytes, tuple[int, int, int]]] = WeakKeyDictionary()

    async def document(self, layer: Layer) -> bytes:
        """The document as it is now, `DOCUMENT_BYTES` long."""
        present = layer.content.present_bits()
        known, counts = self._counted.get(layer, (None, (0, 0, 0)))
        if known != present:
            counts = await trio.to_thread.run_sync(_count, layer.index, present)
            self._counted[layer] = present, counts
        return _render(layer, *counts)


def _count(index: TocIndex, present: bytes) -> tuple[int, int, int]:
    """Bytes of the blob that are here, bytes of the files that are here, and of all that is no hole."""
    blob_bytes = file_bytes = whole = 0
    last = -1
    for number in range(index.chunk_count):
        chunk = index.chunk(number)
        if chunk.is_hole:
            continue
        whole += chunk.size
        if present[number >> 3] & 1 << (number & 7):
            file_bytes += chunk.size
            if chunk.blob_offset != last:  # small files share a piece, and follow each other
                blob_bytes += chunk.blob_size
                last = chunk.blob_offset
    return blob_bytes, file_bytes, whole


def _render(layer: Layer, blob_bytes: int, file_bytes: int, whole: int) -> bytes:
    size, error = layer.descriptor.size, layer.chunks.last_error
    said: dict[str, Any] = {
        "digest": str(layer.key.layer_digest),
        "tocDigest": str(layer.key.toc_digest),
        "size": size,
        "fetchedSize": min(blob_bytes, size),
        "fetchedPercent": round(100 * file_bytes / whole, 2) if whole else 100.0,
        "lastError": None,
    }
    if error is not None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(error.seconds))
        message = error.message.encode("ascii", "backslashreplace")[:_MAX_ERROR].decode()
        said["lastError"] = {"time": stamp, "message": message}
    text = json.dumps(said, indent=1).encode()
    return text.ljust(DOCUMENT_BYTES - 1) + b"\n"
