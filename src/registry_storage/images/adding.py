"""An image becomes one of the store: resolved, its layers made available, published."""

import base64
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from ..cache.root import LayerKey
from ..descriptor import Descriptor, Platform, load_json
from ..digest import Digest
from ..errors import InvalidDocumentError, NotLazyError
from ..formats.detect import LazyLayer, detect, layer_compression
from ..formats.plain import plain
from ..layer.image import ResolvedImage
from ..layer.layer import Layer
from ..layer.pool import Pool
from ..reference import Reference
from .names import layer_id
from .progress import Progress
from .records import LayerRecord
from .store import ImageStore, NewImage, NewLayer
from .together import together

UNCOMPRESSED_SIZE = "io.containers.estargz.uncompressed-size"


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that publishing an image needs; nothing of it is seen yet."""

    image: ResolvedImage
    new: NewImage
    toc_digests: dict[Digest, Digest]
    """The tree that each layer digest shall be shown with."""
    lazy: tuple[Layer, ...]
    """Opened for it."""


class Preparation:
    """Of one image. Used by the event loop."""

    def __init__(self, pool: Pool, store: ImageStore, image: ResolvedImage, progress: Progress) -> None:
        self._pool = pool
        self._store = store
        self._image = image
        self._progress = progress
        self._layers: dict[LayerKey, Layer] = {}

    async def run(self, name: str) -> Prepared:
        """Raises RegistryStorageError and OSError; messages name the layer."""
        descriptors = self._image.manifest.layers
        if not descriptors:
            raise InvalidDocumentError(f"{name}: an image without layers")
        lazy = {descriptor.digest: self._detect(descriptor) for descriptor in descriptors}
        by_digest = {descriptor.digest: descriptor for descriptor in descriptors}
        # Configs and TOCs are fetched at the same time: one round trip after the manifest.
        await together(
            [
                lambda: self._pool.config(self._image),
                *(
                    self._opening(by_digest[digest], lazy)
                    for digest in by_digest
                    if lazy[digest].toc_digest != digest
                ),
            ]
        )
        diff_ids = await self._pool.diff_ids(self._image)
        kept, whole = self._choose(diff_ids, lazy)
        await together([self._unpacking(by_digest[digest]) for digest in whole])
        for digest in whole:
            lazy[digest] = plain(by_digest[digest])
        new: list[NewLayer] = []
        created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for descriptor, diff_id in zip(descriptors, diff_ids, strict=True):
            parent = new[-1].record.id if new else None
            old = kept.get(layer_id(parent, diff_id))
            new.append(old or self._new(descriptor, diff_id, parent, lazy[descriptor.digest], created))
        return Prepared(
            self._image,
            NewImage(
                name, await self._pool.manifest(self._image), await self._pool.config(self._image), created, new
            ),
            {
                layer.record.layer_digest: lazy[layer.record.layer_digest].toc_digest
                for layer in new
                if layer.record.id not in kept
            },
            tuple(layer for key, layer in self._layers.items() if key.layer_digest != key.toc_digest),
        )

    def _detect(self, descriptor: Descriptor) -> LazyLayer:
        try:
            return detect(descriptor)
        except NotLazyError:
            return plain(descriptor)

    def _opening(self, descriptor: Descriptor, lazy: dict[Digest, LazyLayer]) -> Callable[[], Awaitable[object]]:
        async def work() -> None:
            found = lazy[descriptor.digest]
            try:
                layer = await self._pool.open_layer(self._image, descriptor, found)
            except NotLazyError:  # its TOC is elsewhere, and not there
                lazy[descriptor.digest] = plain(descriptor)
                return
            self._layers[LayerKey(descriptor.digest, found.toc_digest)] = layer
            self._progress.opened(descriptor.digest, descriptor.size)

        return work

    def _unpacking(self, descriptor: Descriptor) -> Callable[[], Awaitable[object]]:
        async def work() -> None:
            progress = self._progress.unpacking(descriptor.digest, descriptor.size)
            layer = await self._pool.unpack_layer(self._image, descriptor, progress)
            self._layers[LayerKey(descriptor.digest, descriptor.digest)] = layer
            self._progress.unpacked(descriptor.digest, descriptor.size)

        return work

    def _choose(
        self, diff_ids: tuple[Digest, ...], lazy: dict[Digest, LazyLayer]
    ) -> tuple[dict[str, NewLayer], dict[Digest, None]]:
        """What of the store is kept, by id; and the layer digests of what must be unpacked whole.

        A layer that only claims its diffID is never taken for another one that claims it too: then the new one is
        unpacked, and verified, instead.
        """
        kept: dict[str, NewLayer] = {}
        whole: dict[Digest, None] = {}
        parent: str | None = None
        for descriptor, diff_id in zip(self._image.manifest.layers, diff_ids, strict=True):
            parent = layer_id(parent, diff_id)
            old, toc_digest = self._store.layers.get(parent), lazy[descriptor.digest].toc_digest
            if old is not None and (
                old.verified or (old.layer_digest, old.toc_digest) == (descriptor.digest, toc_digest)
            ):
                kept[parent] = NewLayer(old, self._store.target(parent))
                self._progress.kept(descriptor.digest, descriptor.size)
            elif old is not None or toc_digest == descriptor.digest:
                whole[descriptor.digest] = None
        return kept, whole

    def _new(
        self, descriptor: Descriptor, diff_id: Digest, parent: str | None, lazy: LazyLayer, created: str
    ) -> NewLayer:
        key = LayerKey(descriptor.digest, lazy.toc_digest)
        layer, verified = self._layers[key], lazy.toc_digest == descriptor.digest
        told = descriptor.annotations.get(UNCOMPRESSED_SIZE, "")
        if verified:
            diff_size = layer.index.blob_size
        else:
            diff_size = int(told) if told.isascii() and told.isdigit() else layer.index.total_file_bytes
        record = LayerRecord(
            id=layer_id(parent, diff_id),
            parent=parent,
            created=created,
            layer_digest=descriptor.digest,
            layer_size=descriptor.size,
            diff_id=diff_id,
            diff_size=diff_size,
            compression=int(layer_compression(descriptor.media_type)),
            toc_digest=lazy.toc_digest,
            verified=verified,
        )
        split = self._pool.tar_split(key) if verified else None
        return NewLayer(record, target_of(self._image.reference, descriptor.digest), split)


def target_of(reference: Reference, layer_digest: Digest) -> str:
    """Where a layer is in the mount, below the mount point."""
    return f"{base64.b64encode(str(reference).encode()).decode('ascii')}/{layer_digest}/diff"


def parse_target(target: str) -> tuple[str, Digest]:
    """The reference and the layer digest that `target_of` was given. Raises ValueError."""
    reference, digest, _ = target.split("/")
    return base64.b64decode(reference, validate=True).decode("ascii"), Digest.parse(digest)


def parse_platform(config: bytes) -> Platform | None:
    """The platform that an image's config names; None where it names none."""
    document = load_json(config, "config")
    names = [document.get(key) for key in ("os", "architecture")]
    if not all(isinstance(name, str) and name for name in names):
        return None
    variant = document.get("variant")
    return Platform(str(names[0]), str(names[1]), variant if isinstance(variant, str) and variant else None)
