"""What the cache can give up: chunks of open layers, contents of closed ones, whole blobs."""

import logging
import re
from array import array
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import trio

from ..cache.eviction import PINNED, REFERENCED, UNREFERENCED, Victim
from ..cache.ledger import Ledger
from ..cache.root import LayerKey, Root
from ..digest import Digest
from .layer import Layer
from .whole_blob import WholeBlobs

_log = logging.getLogger(__name__)

GROUP = 8
"""Chunks that are used and evicted together: a byte of `present`, a byte of `touched`."""
IDLE_SECONDS = 600.0
"""A blob that somebody read later than that is still being read."""
_SET = re.compile(rb"[^\0]")
_LONG_AGO = float("-inf")


class Ranks:
    """How dear a layer is, by its links.

    A plain layer that is in use is never given up: whoever reads what is missing of it waits for its whole blob.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def now(self) -> dict[LayerKey, int]:
        """Of all layers that have a link."""
        pinned = {image.reference for image in self._ledger.images() if image.pinned}
        ranks: dict[LayerKey, int] = {}
        for link in self._ledger.links():
            key = LayerKey(link.layer_digest, link.toc_digest)
            used = PINNED if key.is_plain else REFERENCED
            rank = PINNED if link.reference in pinned else used if link.uses else UNREFERENCED
            ranks[key] = max(rank, ranks.get(key, UNREFERENCED))
        return ranks


class _Shelf:
    """The chunks of one open layer, and when each group of them was used last."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self._touched = layer.content.touched
        self._used_at = array("d", [0.0]) * len(self._touched)

    def collect_uses(self, now: float) -> None:
        touched = bytes(self._touched)
        for found in _SET.finditer(touched):
            self._touched[found.start()] = 0
            self._used_at[found.start()] = now

    def victims(self, rank: int) -> Iterator[Victim]:
        content = self.layer.content
        if self.layer.key.is_plain:
            # To bring a chunk back takes its blob from the beginning. It goes as a whole, after others.
            yield Victim(rank, max(self._used_at, default=0.0), partial(self._evict, range(content.chunk_count)))
            return
        for found in _SET.finditer(content.present_bits()):
            group = found.start()
            yield Victim(
                rank, self._used_at[group], partial(self._evict, range(group * GROUP, (group + 1) * GROUP))
            )

    def _evict(self, numbers: range) -> int:
        return self.layer.evict(number for number in numbers if number < self.layer.content.chunk_count)


class OpenLayers:
    """The layers that the pool has open."""

    def __init__(self, open_layers: Callable[[], list[Layer]], ranks: Ranks) -> None:
        self._open_layers = open_layers
        self._ranks = ranks
        self._shelves: dict[LayerKey, _Shelf] = {}

    def used_bytes(self) -> int:
        """See Source."""
        return sum(layer.content.disk_bytes for layer in self._open_layers())

    def kept_bytes(self) -> int:
        """See Source."""
        ranks = self._ranks.now()
        return sum(layer.content.disk_bytes for layer in self._open_layers() if ranks.get(layer.key) == PINNED)

    def collect_uses(self, now: float) -> None:
        """See Source."""
        for shelf in self._look():
            shelf.collect_uses(now)

    def victims(self) -> Iterator[Victim]:
        """See Source."""
        ranks = self._ranks.now()
        for shelf in self._look():
            rank = ranks.get(shelf.layer.key, UNREFERENCED)
            if rank < PINNED:
                yield from shelf.victims(rank)

    def _look(self) -> list[_Shelf]:
        layers = self._open_layers()
        for layer in layers:
            if layer.key not in self._shelves or self._shelves[layer.key].layer is not layer:
                self._shelves[layer.key] = _Shelf(layer)
        return [self._shelves[layer.key] for layer in layers]


class ClosedLayers:
    """Contents that earlier daemons left and nobody has opened yet, as measured at start."""

    def __init__(self, root: Root, open_layers: Callable[[], list[Layer]], ranks: Ranks) -> None:
        self._root = root
        self._open_layers = open_layers
        self._ranks = ranks
        self._sizes: dict[str, int] = {}

    def measure(self) -> None:
        """Look at the disk; in any thread, before the others."""
        for directory in self._root.layers.iterdir():
            self._sizes[directory.name] = _disk_bytes(directory / "content")

    def used_bytes(self) -> int:
        """See Source."""
        self._forget_open()
        return sum(self._sizes.values())

    def kept_bytes(self) -> int:
        """See Source."""
        self._forget_open()
        pinned = {str(key) for key, rank in self._ranks.now().items() if rank == PINNED}
        return sum(size for name, size in self._sizes.items() if name in pinned)

    def collect_uses(self, now: float) -> None:
        """Nobody uses them."""

    def victims(self) -> Iterator[Victim]:
        """See Source."""
        self._forget_open()
        ranks = {str(key): rank for key, rank in self._ranks.now().items()}
        for name in self._sizes:
            rank = ranks.get(name, UNREFERENCED)
            if rank < PINNED:
                yield Victim(rank, _LONG_AGO, partial(self._evict, name))

    def _forget_open(self) -> None:
        for layer in self._open_layers():
            self._sizes.pop(str(layer.key), None)

    def _evict(self, name: str) -> int:
        if any(name == str(layer.key) for layer in self._open_layers()):
            return 0
        for part in ("present", "content"):
            (self._root.layers / name / part).unlink(missing_ok=True)
        return self._sizes.pop(name, 0)


class Blobs:
    """Whole blobs, for those who save or push."""

    def __init__(self, root: Root, blobs: WholeBlobs) -> None:
        self._root = root
        self._blobs = blobs

    def used_bytes(self) -> int:
        """See Source."""
        return sum(map(_disk_bytes, self._root.blobs.glob("*")))

    def kept_bytes(self) -> int:
        """See Source."""
        return 0

    def collect_uses(self, now: float) -> None:
        """The blobs know it themselves."""

    def victims(self) -> Iterator[Victim]:
        """See Source."""
        now = trio.current_time()
        for path in list(self._root.blobs.glob("*")):
            if len(path.name) != 64:  # one that is being fetched
                continue
            digest = Digest(path.name)
            used_at = self._blobs.read_at(digest)
            if now - used_at > IDLE_SECONDS:
                yield Victim(UNREFERENCED, used_at, partial(self._evict, digest, path))

    def _evict(self, digest: Digest, path: Path) -> int:
        size = _disk_bytes(path)
        self._blobs.forget(digest)
        path.unlink(missing_ok=True)
        return size


def _disk_bytes(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0
