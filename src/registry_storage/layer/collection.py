"""Drops what nobody uses any more: links, images, and then every file that none of those names."""

import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import trio

from ..cache.documents import Documents
from ..cache.ledger import Ledger
from ..cache.root import LayerKey, Root
from ..descriptor import Manifest
from ..digest import Digest
from ..errors import InvalidInputError
from ..podman.graph_roots import UsedLayer
from .pool import Pool
from .repair import Repair
from .whole_blob import WholeBlobs

_log = logging.getLogger(__name__)

FRESH_SECONDS = 600.0
"""A younger file may belong to what is being made."""


@dataclass(slots=True)
class Collected:
    """What went."""

    links: int = 0
    images: int = 0
    layers: int = 0
    """Directories of layers; one that was open lost its contents only."""
    files: int = 0
    freed_bytes: int = 0

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self)


class Collection:
    """Used by the event loop's thread; files are removed in a worker thread."""

    def __init__(
        self,
        root: Root,
        ledger: Ledger,
        documents: Documents,
        pool: Pool,
        blobs: WholeBlobs,
        repair: Repair,
        now: Callable[[], float],
        files_now: Callable[[], float],
    ) -> None:
        """`now`, `files_now`: seconds since 1970, to compare with what the ledger says and with times of files."""
        self._root = root
        self._ledger = ledger
        self._documents = documents
        self._pool = pool
        self._blobs = blobs
        self._repair = repair
        self._now = now
        self._files_now = files_now

    async def run(self, unused_seconds: float) -> Collected:
        """Drop links and images that nobody has used for so long, and all files that belong to nothing."""
        await self._repair.run()
        _, used = await self._repair.used()
        collected, latest = Collected(), self._now() - unused_seconds
        self._drop_links(used, latest, collected)
        keys = {LayerKey(link.layer_digest, link.toc_digest) for link in self._ledger.links()}
        blobs = {key.layer_digest for key in keys}
        for layer in self._pool.open_layers():
            if layer.key not in keys:
                collected.freed_bytes += layer.evict(range(layer.content.chunk_count))
                collected.layers += 1
        keys |= {layer.key for layer in self._pool.open_layers()}
        self._blobs.forget_except(blobs)
        named = [image.manifest_digest for image in self._ledger.images() if image.manifest_digest is not None]
        named += [link.manifest_digest for link in self._ledger.links()]
        young = self._files_now() - min(unused_seconds, FRESH_SECONDS)

        def look() -> tuple[list[Path], list[Path]]:
            files = [*_unnamed(self._root.blobs, {digest.hex for digest in blobs}, young)]
            files += _unnamed(self._root.documents, {digest.hex for digest in self._documents_of(named)}, young)
            return [*_unnamed(self._root.layers, {str(key) for key in keys}, young)], files

        directories, files = await trio.to_thread.run_sync(look)
        for path in directories:
            if not self._is_linked(path.name):
                collected.freed_bytes += await _remove(path)
                collected.layers += 1
        for path in files:
            collected.freed_bytes += await _remove(path)
            collected.files += 1
        if collected != Collected():
            _log.info("collected what nobody uses", extra=collected.as_json())
        return collected

    def _drop_links(self, used: Iterable[UsedLayer], latest: float, collected: Collected) -> None:
        kept = set(used)
        for link in self._ledger.links():
            image = self._ledger.image(link.reference)
            pinned = image is not None and image.pinned
            if link.uses or pinned or link.changed > latest or UsedLayer(link.reference, link.name_digest) in kept:
                continue
            self._pool.forget(link)
            self._ledger.remove_link(link.number)
            collected.links += 1
        linked = {link.reference for link in self._ledger.links()}
        for image in self._ledger.images():
            if not image.pinned and image.reference not in linked and image.changed <= latest:
                self._ledger.remove_image(image.reference)
                collected.images += 1

    def _is_linked(self, name: str) -> bool:
        """Now: it may have been linked again meanwhile."""
        return any(name == str(LayerKey(link.layer_digest, link.toc_digest)) for link in self._ledger.links())

    def _documents_of(self, manifests: Iterable[Digest]) -> Iterator[Digest]:
        for digest in set(manifests):
            yield digest
            try:
                yield Manifest.parse(self._documents.load(digest) or b"", f"manifest {digest}").config.digest
            except InvalidInputError:
                continue


def _unnamed(directory: Path, names: set[str], latest: float) -> Iterator[Path]:
    """What is in a directory under another name, and older than `latest` (seconds since 1970)."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name not in names and entry.stat(follow_symlinks=False).st_mtime < latest:
                yield directory / entry.name


async def _remove(path: Path) -> int:
    """Out of the way at once, gone in a while; returns the bytes that it took on disk."""
    gone = path.with_name(f".{path.name}.gone") if path.name[0] != "." else path
    os.rename(path, gone)

    def remove() -> int:
        parts = [gone, *gone.rglob("*")] if gone.is_dir() else [gone]
        size = sum(part.lstat().st_blocks * 512 for part in parts)
        if gone.is_dir():
            shutil.rmtree(gone, ignore_errors=True)
        else:
            gone.unlink()
        return size

    return await trio.to_thread.run_sync(remove)
