"""A layer of an image becomes one that can be read: its index is loaded or made, its content attached."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import trio

from ..cache.content import Content, state_bytes
from ..cache.eviction import Eviction
from ..cache.private_copy import map_private_copy
from ..cache.root import LayerKey, Root, write_atomically
from ..cache.shared_state import SharedState
from ..descriptor import Descriptor
from ..errors import FormatError
from ..formats.detect import LazyLayer
from ..formats.plain import plain
from ..registry.client import RegistryClient
from ..toc.index import TocIndex
from .activity import Activity
from .arriving import Arriving
from .chunks import ChunkFetcher
from .image import Images, ResolvedImage
from .layer import Layer
from .loose import LooseChunks
from .memory import MemoryBudget, give_back_memory
from .plain import remove_layer, unpack_layer
from .source import BlobSource, ByteSource
from .tar_of_blob import TarOfBlob
from .toc_source import fetch_toc

_log = logging.getLogger(__name__)

STREAMS = 3
"""Layers that are unpacked whole at the same time; they wait for the network, so they have threads of their own."""
MEMORY_BYTES = 128 << 20
"""For what is being fetched and decoded, all layers together; a single larger chunk goes alone."""


class Opener:
    """Opens each layer once; who asks for one twice is the pool's concern. Used from the event loop's thread only."""

    def __init__(
        self,
        root: Root,
        registry: RegistryClient,
        images: Images,
        nursery: trio.Nursery,
        activity: Activity,
        *,
        shared_state: SharedState,
        eviction: Eviction,
    ) -> None:
        """`nursery`: where the layers fetch their chunks."""
        self._root = root
        self._registry = registry
        self._images = images
        self._nursery = nursery
        self._activity = activity
        self._shared_state = shared_state
        self._eviction = eviction
        self._workers = trio.CapacityLimiter(max(2, os.cpu_count() or 2))
        self.streams = trio.CapacityLimiter(STREAMS)
        """Threads for passes over whole blobs."""
        self.memory = MemoryBudget(MEMORY_BYTES)
        self.loose = LooseChunks(eviction.make_room)
        self._arriving = Arriving(eviction)

    async def open_lazy(
        self, key: LayerKey, image: ResolvedImage, descriptor: Descriptor, lazy: LazyLayer
    ) -> Layer:
        """A layer whose TOC is fetched where it is not here. Raises RegistryStorageError and OSError."""
        directory = self._root.layer(key)
        source = BlobSource()
        blob = self._registry.open_blob(image.reference, descriptor)
        source.offer(image.reference.name, blob)
        started = trio.current_time()
        index = await self._load_index(key)
        found = index is not None
        if index is None:
            packed = await fetch_toc(self._registry, image.reference, descriptor, lazy, self._workers)
            directory.mkdir(mode=0o700, exist_ok=True)
            index = self._keep_index(directory / "index", packed)
            del packed
            give_back_memory()
        _log.info(
            "layer is served lazily",
            extra={
                "reference": str(image.reference),
                "layer": str(descriptor.digest),
                "toc": str(lazy.toc_digest),
                "format": lazy.format.name,
                "found": "on disk" if found else "at the registry",
                "inodes": index.inode_count,
                "seconds": round(trio.current_time() - started, 3),
            },
        )
        return self._opened_layer(key, descriptor, lazy, index, source, source)

    async def open_plain(
        self, key: LayerKey, image: ResolvedImage, descriptor: Descriptor, progress: Callable[[int], None]
    ) -> Layer:
        """A layer that is streamed whole where it is not here; `progress` is called in a thread with bytes of the blob.

        Raises RegistryStorageError and OSError.
        """
        directory = self._root.layer(key)
        source = BlobSource()
        source.offer(image.reference.name, self._registry.open_blob(image.reference, descriptor))
        started = trio.current_time()
        index = await self._load_index(key)
        fresh = index is None
        if index is None:
            position = image.manifest.layers.index(descriptor)
            diff_id = await self._images.diff_id(image, position)
            await trio.to_thread.run_sync(remove_layer, directory)
            with self._arriving.layer(str(descriptor.digest)) as grew:
                await unpack_layer(directory, source, descriptor, diff_id, self.streams, progress, grew)
            index = await self._load_index(key, verify=False)
            if index is None:
                raise FormatError(f"layer {descriptor.digest}: its index cannot be read back from {directory}")
        _log.info(
            "layer is unpacked whole",
            extra={
                "reference": str(image.reference),
                "layer": str(descriptor.digest),
                "found": "at the registry" if fresh else "on disk",
                "inodes": index.inode_count,
                "seconds": round(trio.current_time() - started, 3),
            },
        )
        tar = TarOfBlob(str(descriptor.digest), source, descriptor.size, self._workers)
        layer = self._opened_layer(key, descriptor, plain(descriptor), index, source, tar)
        if fresh:  # every digest was computed from the bytes that were written
            chunks = range(index.chunk_count)
            layer.content.mark_ready([number for number in chunks if not index.chunk(number).is_hole])
        return layer

    def _opened_layer(
        self,
        key: LayerKey,
        descriptor: Descriptor,
        lazy: LazyLayer,
        index: TocIndex,
        source: BlobSource,
        pieces: ByteSource,
    ) -> Layer:
        """`pieces`: where chunks come from; the blob itself but for a plain layer."""
        state = self._shared_state.region(key, state_bytes(index.chunk_count))
        content = Content(
            self._root.layer(key), size=index.content_size, chunk_count=index.chunk_count, state=state
        )
        content.grown = self._eviction.grew
        chunks = ChunkFetcher(
            str(descriptor.digest),
            lazy.format,
            index,
            content,
            pieces,
            self._activity,
            self._nursery,
            self._workers,
            self.memory,
            self.loose,
            from_start=key.is_plain,
        )
        return Layer(key, descriptor, lazy.format, index, content, source, chunks, self.loose)

    def _keep_index(self, path: Path, packed: bytes) -> TocIndex:
        """A new index, written for the next daemon if the disk has room, and then mapped like any other."""
        try:
            write_atomically(path, packed)
            with path.open("rb") as file:
                return TocIndex(map_private_copy(file.fileno(), path.parent))
        except OSError as error:
            if not self._eviction.make_room(2 * len(packed)):
                _log.warning("%s cannot be written: %s; it is made again by the next daemon", path, error.strerror)
        except (FormatError, ValueError) as error:
            _log.warning("%s was changed by somebody else: %s", path, error)
        return TocIndex(packed, verify=False)

    async def _load_index(self, key: LayerKey, *, verify: bool = True) -> TocIndex | None:
        path = self._root.layer(key) / "index"

        def load() -> TocIndex | None:
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                if (path.parent / "content").exists():
                    _log.warning("%s is missing; it will be made again", path)
                return None
            try:
                return TocIndex(map_private_copy(descriptor, path.parent), verify=verify)
            except (FormatError, ValueError) as error:
                _log.warning("%s is damaged; it will be made again: %s", path, error)
                path.unlink(missing_ok=True)
                return None
            finally:
                os.close(descriptor)

        return await trio.to_thread.run_sync(load, limiter=self._workers)
