"""What the running daemon says of itself: ``GET /v1/status``."""

import os
import time
from pathlib import Path
from typing import Any

import trio

from . import __version__
from .cache.ledger import Ledger, Link
from .cache.root import LayerKey, Root
from .control.routes import Json, Request
from .layer.pool import Pool


class Status:
    """Knows everybody who has something to tell."""

    def __init__(self, root: Root, ledger: Ledger, pool: Pool, mountpoint: Path, images: Path) -> None:
        self._root = root
        self._ledger = ledger
        self._pool = pool
        self._mountpoint = mountpoint
        self._images = images
        self._started = time.time()
        self._started_on_clock = time.monotonic()

    async def answer(self, request: Request) -> Json:
        """One document; `started` in seconds since 1970. The layers are those that have a link, oldest first.

            version, pid, started, uptime_seconds, mountpoint, root, images
            layers[]
                layer_digest, toc_digest
                open               somebody has looked at it since the daemon runs
                present_chunks     on disk
                chunk_count        of the layer; null while it is not open
                disk_bytes         that its content takes on disk
                content_bytes      of all its regular files
                uses               over all links
                links[]            number, reference, name_digest, manifest_digest, uses
        """
        layers: dict[LayerKey, list[Link]] = {}
        for link in self._ledger.links():
            layers.setdefault(LayerKey(link.layer_digest, link.toc_digest), []).append(link)
        on_disk = await trio.to_thread.run_sync(self._measure, list(layers))
        return {
            "version": __version__,
            "pid": os.getpid(),
            "started": self._started,
            "uptime_seconds": time.monotonic() - self._started_on_clock,
            "mountpoint": str(self._mountpoint),
            "root": str(self._root.path),
            "images": str(self._images),
            "layers": [self._layer(key, links) | on_disk[key] for key, links in layers.items()],
        }

    def _layer(self, key: LayerKey, links: list[Link]) -> dict[str, Any]:
        opened = next((layer for link in links if (layer := self._pool.peek(link.number)) is not None), None)
        return {
            "layer_digest": str(key.layer_digest),
            "toc_digest": str(key.toc_digest),
            "open": opened is not None,
            "chunk_count": None if opened is None else opened.content.chunk_count,
            "uses": sum(link.uses for link in links),
            "links": [
                {
                    "number": link.number,
                    "reference": link.reference,
                    "name_digest": str(link.name_digest),
                    "manifest_digest": str(link.manifest_digest),
                    "uses": link.uses,
                }
                for link in links
            ],
        }

    def _measure(self, keys: list[LayerKey]) -> dict[LayerKey, dict[str, int]]:
        """From the files themselves, open or not."""
        return {
            key: {
                "present_chunks": _bits(self._root.layer(key) / "present"),
                **_sizes(self._root.layer(key) / "content"),
            }
            for key in keys
        }


def _bits(path: Path) -> int:
    try:
        return int.from_bytes(path.read_bytes(), "little").bit_count()
    except OSError:
        return 0


def _sizes(path: Path) -> dict[str, int]:
    try:
        found = path.stat()
    except OSError:
        return {"disk_bytes": 0, "content_bytes": 0}
    return {"disk_bytes": found.st_blocks * 512, "content_bytes": found.st_size}
