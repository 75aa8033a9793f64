"""The images that were added: what ``registry-storagectl add``, ``remove``, ``list`` and ``refresh`` do."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import trio

from ..cache.ledger import Ledger, Link
from ..descriptor import Platform
from ..errors import CacheError, DiffIdError, FormatError, NotFoundError, RegistryStorageError
from ..layer.pool import Pool
from ..reference import Reference
from .adding import Preparation, parse_platform, parse_target
from .host import referenced_layers
from .names import big_data_file
from .progress import Progress
from .records import ImageRecord, LayerRecord
from .store import ImageStore

_log = logging.getLogger(__name__)

T = TypeVar("T")
SETTLE_SECONDS = 3.0
"""For a podman that has listed images to end; additions wait meanwhile."""
AGAIN_SECONDS = 600.0
"""Until it is looked again whether the host still needs what was removed."""


class AddedImages:
    """The store, written by one task at a time; used by the event loop.

    A layer in the store is a use of its link, so that nobody drops it.
    """

    def __init__(
        self,
        store: ImageStore,
        pool: Pool,
        ledger: Ledger,
        *,
        graph_roots: Callable[[], Iterable[Path]],
        grace_seconds: float,
    ) -> None:
        """`graph_roots`: of this host's podmans, whose own layers stand upon ours."""
        self._store = store
        self._pool = pool
        self._ledger = ledger
        self._graph_roots = graph_roots
        self._grace = grace_seconds
        self._writing = trio.Lock()
        self._removed = trio.Event()
        self._removed.set()
        self._published = trio.Event()
        self._published.set()
        self._not_completable: set[str] = set()

    # For people

    async def add(self, text: str, platform: Platform | None, progress: Progress) -> dict[str, Any]:
        """Publish what the reference leads to now; a name that is there moves. Raises RegistryStorageError, OSError."""
        reference = Reference.parse(text)
        name = str(reference)
        image = await self._pool.resolve(reference, platform)
        known = self._store.find(name)
        if known is not None and known.manifest_of(name) == image.manifest_digest:
            return self._describe(name, known) | {"outcome": "unchanged"}
        prepared = await Preparation(self._pool, self._store, image, progress).run(name)
        async with self._writing:
            before = dict(self._store.layers)
            targets = {layer: self._store.target(layer) for layer in before}
            links = []
            try:
                for layer in prepared.new.layers:
                    digest = layer.record.layer_digest
                    if digest in prepared.toc_digests and not self._is_kept(layer.record):
                        descriptor = next(one for one in image.manifest.layers if one.digest == digest)
                        links.append(self._pool.keep(image, descriptor, prepared.toc_digests[digest]))
                        self._pool.add_use(links[-1], (self._store.path,))
                record = await trio.to_thread.run_sync(self._store.publish, prepared.new)
            except (RegistryStorageError, OSError):
                for link in links:
                    self._pool.drop_use(link)
                raise
            for layer_id, old in before.items():
                if self._store.layers.get(layer_id) != old:
                    self._drop_use(targets[layer_id])
        for opened in prepared.lazy:
            self._pool.background.want(opened, rest=False)
        self._removed.set()
        self._published.set()
        _log.info("image is added", extra={"reference": name, "manifest": str(image.manifest_digest)})
        return self._describe(name, record) | {
            "outcome": "added" if known is None else "moved",
            "new_layers": len(self._store.layers.keys() - before.keys()),
        }

    async def refresh(self, name: str, progress: Progress) -> dict[str, Any]:
        """Move an added tag to what the registry says now, for the platform that it was added for. Raises as `add`."""
        name = str(Reference.parse(name))
        image = self._store.find(name)
        if image is None:
            raise NotFoundError(f"{name}: not one of the added images")
        config = self._store.big_data(image.id) / big_data_file(str(image.config_digest))
        return await self.add(name, parse_platform(config.read_bytes()), progress)

    async def remove(self, text: str) -> dict[str, Any]:
        """Take a name away. Raises NotFoundError."""
        name = str(Reference.parse(text))
        async with self._writing:
            image = await trio.to_thread.run_sync(self._store.withdraw, name)
        if image is None:
            raise NotFoundError(f"{name}: not one of the added images")
        self._removed.set()
        _log.info("image is removed", extra={"reference": name})
        return self._describe(name, image) | {"outcome": "removed"}

    def list(self) -> list[dict[str, Any]]:
        """Every name, with what it leads to."""
        return [self._describe(name, image) for image in self._store.images.values() for name, _ in image.names]

    def _describe(self, name: str, image: ImageRecord) -> dict[str, Any]:
        layers = self._store.chain(image)
        return {
            "name": name,
            "manifest_digest": str(image.manifest_of(name)),
            "image_id": image.id,
            "layers": [
                {"layer_digest": str(layer.layer_digest), "size": layer.layer_size, "verified": layer.verified}
                for layer in layers
            ],
        }

    # In the background

    async def run(self) -> None:
        """Clean up after removals, and once after the start, until cancelled."""
        while True:
            with trio.move_on_after(AGAIN_SECONDS):
                await self._removed.wait()
            self._removed = trio.Event()
            try:
                await self.sweep()
            except (RegistryStorageError, OSError) as error:
                _log.warning("what was removed from the image store stays for now: %s", error)

    async def run_completions(self) -> None:
        """Bring what is missing of lazy layers, one after the other, until cancelled."""
        while True:
            with trio.move_on_after(AGAIN_SECONDS):
                await self._published.wait()
            self._published = trio.Event()
            for record in list(self._store.layers.values()):
                try:
                    if not record.verified and record.id not in self._not_completable:
                        await self._complete(record)
                except (RegistryStorageError, OSError) as error:
                    _log.warning("layer %s: not complete yet: %s", record.layer_digest, error)

    def completes(self, link: Link) -> bool:
        """Whether `run_completions` brings the rest of the link's layer."""
        return any(
            not record.verified and self._link(self._store.target(layer)) == link
            for layer, record in self._store.layers.items()
        )

    async def _complete(self, record: LayerRecord) -> None:
        link = self._link(self._store.target(record.id)) if record.id in self._store.layers else None
        if link is None:
            return
        try:
            completed = await self._pool.complete(link, record.diff_id)
        except DiffIdError as error:
            await self._refuse(record, error)
            return
        except FormatError:  # what is streamed again will be the same
            self._not_completable.add(record.id)
            raise
        async with self._writing:
            if self._store.layers.get(record.id) == record:
                await trio.to_thread.run_sync(
                    self._store.complete, record.id, completed.tar_size, completed.tar_split
                )
        _log.info("layer %s: complete, its diffID is %s", record.layer_digest, record.diff_id)

    async def _refuse(self, record: LayerRecord, error: RegistryStorageError) -> None:
        """The layer is not what its image's config claims: no image may be built from it."""
        async with self._writing:
            for image in list(self._store.images.values()):
                if record in self._store.chain(image):
                    for name, _ in image.names:
                        _log.error("image %s is taken out of the image store: %s", name, error)
                        await trio.to_thread.run_sync(self._store.withdraw, name)
        self._removed.set()

    async def sweep(self) -> None:
        """Remove what no image has and the host does not build upon: a grace later from the lists, then the files."""
        await trio.sleep(self._grace)
        async with self._writing:
            if await trio.to_thread.run_sync(self._store.drop_nameless):
                # Whoever has listed them must not be told to read the lists again before it has ended.
                await trio.sleep(min(self._grace, SETTLE_SECONDS))
                await trio.to_thread.run_sync(self._store.announce)
            before = dict(self._store.layers)
            targets = {layer: self._store.target(layer) for layer in before}
            gone = await trio.to_thread.run_sync(self._store.unlist, await self._referenced())
        await trio.sleep(self._grace)
        async with self._writing:
            # A podman that had read the lists may have built upon a layer in between.
            missed = (await self._referenced()).intersection(gone)
            needed = _with_parents(missed, before)
            if needed:
                await trio.to_thread.run_sync(self._store.list_layers, needed | self._store.layers)
            await trio.to_thread.run_sync(self._store.discard)
            for layer in gone:  # what was added again meanwhile has a use of its own
                if layer not in needed:
                    self._drop_use(targets[layer])

    async def _referenced(self) -> set[str]:
        return await trio.to_thread.run_sync(self._look_at_host)

    def _look_at_host(self) -> set[str]:
        return referenced_layers(root for root in self._graph_roots() if root != self._store.path)

    def _is_kept(self, new: LayerRecord) -> bool:
        old = self._store.layers.get(new.id)
        return old is not None and (old.verified or not new.verified)

    def _link(self, target: str) -> Link | None:
        try:
            return self._ledger.link(*parse_target(target))
        except ValueError as error:
            raise CacheError(f"{target}: not a layer of ours: {error}") from None

    def _drop_use(self, target: str) -> None:
        link = self._link(target)
        if link is not None:
            self._pool.drop_use(link)


def _with_parents(layers: Iterable[str], records: dict[str, LayerRecord]) -> dict[str, LayerRecord]:
    found: dict[str, LayerRecord] = {}
    for layer in layers:
        at: str | None = layer
        while at is not None and at in records:
            found[at] = records[at]
            at = records[at].parent
    return found


