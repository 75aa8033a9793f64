"""All layers that are known: from a path of the store to a layer that can be read."""

import logging
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import trio

from ..cache.documents import Documents
from ..cache.eviction import Eviction
from ..cache.ledger import UNSEEN, Ledger, Link
from ..cache.root import LayerKey, Root
from ..cache.shared_state import SharedState
from ..descriptor import Descriptor, Platform
from ..digest import Digest
from ..errors import (
    CacheError,
    InvalidDocumentError,
    NoSuchNodeError,
    NotFoundError,
    NotLazyError,
    RegistryStorageError,
    UnavailableError,
)
from ..formats.detect import LazyLayer, detect
from ..reference import Reference
from ..registry.client import RegistryClient
from .activity import Activity
from .background import Background
from .completion import Completed, complete_layer
from .image import Images, ResolvedImage
from .layer import Layer
from .opener import Opener
from .plain import tar_split_of
from .programs import Programs
from .single_flight import SingleFlight
from .spare import SpareTime
from .start import Start
from .tar_pass import TAR_SPLIT

_log = logging.getLogger(__name__)

T = TypeVar("T")
MAX_OPENED_AHEAD = 128
"""Layers of an image that are opened when the first is asked for."""
FAILURE_SECONDS = 2.0
"""How long a failure answers for those who ask the same at once; then it is tried again."""


class Pool:
    """Wires the ledger, the cache and the registry. Used from the event loop's thread only."""

    def __init__(
        self,
        root: Root,
        ledger: Ledger,
        registry: RegistryClient,
        nursery: trio.Nursery,
        *,
        platform: Platform,
        prefetch: bool,
        background_fetch: bool,
        lookup_timeout_seconds: float,
        shared_state: SharedState,
        opened: Callable[[int, Layer], None],
        eviction: Eviction,
    ) -> None:
        """`opened` is told the layer number of each link whose layer was opened, and the layer."""
        self._opened = opened
        self._root = root
        self._ledger = ledger
        self._registry = registry
        self._nursery = nursery
        self._timeout = lookup_timeout_seconds
        self._images = Images(registry, Documents(root.documents), ledger, platform)
        self._activity = Activity()
        self.background = Background(
            self._activity, prefetch=prefetch, rest=background_fetch, has_room=eviction.has_room
        )
        self._opener = Opener(
            root, registry, self._images, nursery, self._activity, shared_state=shared_state, eviction=eviction
        )
        self.memory = self._opener.memory
        self.loose = self._opener.loose
        self.spare = SpareTime(self._activity, eviction.has_room)
        self._programs = Programs(nursery, self.spare) if prefetch else None
        self._layers: dict[LayerKey, Layer] = {}
        self._by_number: dict[int, Layer] = {}
        self._image_flights: SingleFlight[str, ResolvedImage] = SingleFlight(nursery)
        self._layer_flights: SingleFlight[LayerKey, Layer] = SingleFlight(nursery)
        self._config_flights: SingleFlight[Digest, bytes] = SingleFlight(nursery)
        self._expected: set[Digest] = set()
        """Manifests whose layers are open or being opened."""
        self._failures: dict[object, tuple[float, Exception]] = {}

    # Images

    async def image(self, text: str) -> ResolvedImage:
        """The image of a reference: as known, else as the registry says. Raises RegistryStorageError."""
        return self._images.known(text) or await self._resolve(text)

    async def resolve(self, reference: Reference, platform: Platform | None) -> ResolvedImage:
        """What the registry says now, for `platform` or this host's; the result's reference is its digest's.

        Nothing but the manifest is remembered. Raises RegistryStorageError.
        """
        image = await self._in_time(f"image {reference}", self._images.resolve, reference, platform)
        return replace(image, reference=reference.with_digest(image.manifest_digest))

    async def diff_ids(self, image: ResolvedImage) -> tuple[Digest, ...]:
        """The diffID of each layer, base first. Raises RegistryStorageError."""
        await self.config(image)
        return await self._images.diff_ids(image)

    async def image_of(self, link: Link) -> ResolvedImage:
        """The image through which `link` was made, although its tag may have moved since."""
        reference = Reference.parse(link.reference)
        return await self._in_time(f"image {link.reference}", self._images.by_manifest, reference, link.manifest_digest)

    async def config(self, image: ResolvedImage) -> bytes:
        """The image's config. Raises RegistryStorageError."""
        return await self._config_flights.run(
            image.manifest.config.digest,
            lambda: self._in_time(f"config of {image.reference}", self._images.config, image),
        )

    async def manifest(self, image: ResolvedImage) -> bytes:
        """The image's manifest, byte for byte. Raises RegistryStorageError."""
        return await self._in_time(f"manifest of {image.reference}", self._images.manifest, image)

    async def diff_id(self, link: Link) -> Digest:
        """The diffID of the link's layer. Raises RegistryStorageError."""
        image = await self.image_of(link)
        await self.config(image)
        return await self._images.diff_id(image, self.position(image, link))

    @staticmethod
    def position(image: ResolvedImage, link: Link) -> int:
        """Where the link's layer is in its image, the base layer being 0. Raises NotFoundError."""
        return image.part(link)[0]

    # Links and layers

    async def link(self, text: str, name_digest: Digest) -> Link:
        """The layer that podman calls `name_digest` under the reference `text`.

        Raises NotLazyError, NotFoundError, and what resolving the image raises.
        """
        known = self._ledger.link(text, name_digest)
        if known is not None:
            return known
        with _about(text, name_digest):
            return await self._new_link(text, name_digest)

    async def _new_link(self, text: str, name_digest: Digest) -> Link:
        image = self._images.known(text)
        found = self._find(image, name_digest) if image else None
        if image is None or found is None:
            image = await self._resolve(text)
            found = self._find(image, name_digest)
        if found is None:
            raise NotFoundError(f"{text}: no layer has the digest {name_digest}")
        _, descriptor, lazy = found
        return self._ledger.put_link(text, name_digest, image.manifest_digest, descriptor.digest, lazy.toc_digest)

    def _find(self, image: ResolvedImage, name_digest: Digest) -> tuple[int, Descriptor, LazyLayer] | None:
        """A lazily pullable layer, or one that has been unpacked whole here."""
        try:
            return image.find(name_digest)
        except NotLazyError:
            found = image.find_plain(name_digest)
            if found is None or not (self._root.layer(LayerKey(name_digest, name_digest)) / "index").exists():
                raise
            return found

    def keep(self, image: ResolvedImage, descriptor: Descriptor, toc_digest: Digest) -> Link:
        """Show a layer under the image's reference and its layer digest, from now on without the network.

        Raises CacheError where another tree of that name is in use.
        """
        self._images.remember(image)
        link = self._ledger.put_link(
            str(image.reference), descriptor.digest, image.manifest_digest, descriptor.digest, toc_digest
        )
        if link.toc_digest != toc_digest:
            raise CacheError(
                f"layer {descriptor.digest} of {image.reference}: in use with the TOC {link.toc_digest}, "
                f"wanted {toc_digest}"
            )
        return link

    async def complete(self, link: Link, diff_id: Digest) -> Completed:
        """Bring the rest of a layer in one pass, and compare the whole with `diff_id`.

        Gives way to readers. Raises VerificationError, FormatError, RegistryError and OSError.
        """
        layer = await self.layer(link)
        path = self._root.layer(layer.key) / TAR_SPLIT
        return await complete_layer(layer, diff_id, path, self._activity, self._opener.streams)

    def tar_split(self, key: LayerKey) -> Path | None:
        """The tar-split of a layer that was unpacked whole here, where it has one."""
        return tar_split_of(self._root.layer(key))

    def peek(self, number: int) -> Layer | None:
        """The open layer of a layer number, if it is open."""
        return self._by_number.get(number)

    async def layer(self, link: Link) -> Layer:
        """The layer of a link, opened. Raises RegistryStorageError or OSError."""
        layer = self._by_number.get(link.number)
        if layer is not None:
            return layer
        with _about(link.reference, link.layer_digest):
            return await self._open_link(link)

    async def _open_link(self, link: Link) -> Layer:
        image = await self.image_of(link)
        _, descriptor, lazy = image.part(link)
        known = LayerKey(descriptor.digest, lazy.toc_digest) in self._layers
        if not known and image.manifest_digest not in self._expected:
            self._expected.add(image.manifest_digest)
            self._nursery.start_soon(self._open_all, image, link.uses == 0)
        layer = await self.open_layer(image, descriptor, lazy)
        if link.number not in self._by_number:
            self._by_number[link.number] = layer
            self._opened(link.number, layer)
        return layer

    async def open_layer(self, image: ResolvedImage, descriptor: Descriptor, lazy: LazyLayer) -> Layer:
        """A layer of an image, whatever it will be called. Raises RegistryStorageError or OSError.

        A plain one that is not here is unpacked, which may take longer than the time for a lookup: then this raises
        UnavailableError, and it goes on.
        """
        if lazy.toc_digest == descriptor.digest:
            what = f"layer {descriptor.digest} of {image.reference}"
            return await self._in_time(what, self.unpack_layer, image, descriptor, lambda _: None)
        layer = await self._open_once(image, descriptor, lazy)
        layer.source.offer(image.reference.name, self._registry.open_blob(image.reference, descriptor))
        return layer

    async def unpack_layer(
        self, image: ResolvedImage, descriptor: Descriptor, progress: Callable[[int], None]
    ) -> Layer:
        """A layer that is unpacked whole, whatever its format; streamed from the registry when it is not here.

        `progress` is called in a thread with the bytes of the blob that were taken so far. Raises as `open_layer`.
        """
        key = LayerKey(descriptor.digest, descriptor.digest)
        layer = self._layers.get(key)
        if layer is None:
            layer = await self._layer_flights.run(
                key, lambda: self._open(key, self._opener.open_plain, image, descriptor, progress)
            )
        layer.source.offer(image.reference.name, self._registry.open_blob(image.reference, descriptor))
        return layer

    async def _open_all(self, image: ResolvedImage, new: bool) -> None:
        """Whoever asks for one layer will ask for the others and the config: all of them in one round trip.

        `new`: nobody uses the image yet, so its container will be started when podman has it.
        """

        async def open_ahead(descriptor: Descriptor) -> None:
            try:
                await self.open_layer(image, descriptor, detect(descriptor))
            except (RegistryStorageError, OSError) as error:
                _log.debug("layer %s of %s: not opened ahead: %s", descriptor.digest, image.reference, error)

        config: bytes | None = None

        async def fetch_config() -> None:
            nonlocal config
            try:
                config = await self.config(image)
            except (RegistryStorageError, OSError) as error:
                _log.debug("config of %s: not fetched ahead: %s", image.reference, error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch_config)
            for descriptor in image.manifest.layers[:MAX_OPENED_AHEAD]:
                nursery.start_soon(open_ahead, descriptor)
        if new and config is not None and self._programs is not None:
            try:
                self._programs.start(image.manifest_digest, Start.of(config, f"config of {image.reference}"))
            except InvalidDocumentError as error:
                _log.debug("programs of %s are not fetched ahead: %s", image.reference, error)

    async def _open_once(self, image: ResolvedImage, descriptor: Descriptor, lazy: LazyLayer) -> Layer:
        key = LayerKey(descriptor.digest, lazy.toc_digest)
        layer = self._layers.get(key)
        if layer is None:
            what = f"layer {descriptor.digest} of {image.reference}"
            layer = await self._layer_flights.run(
                key,
                lambda: self._remembering_failure(
                    key, lambda: self._in_time(what, self._open, key, self._opener.open_lazy, image, descriptor, lazy)
                ),
            )
        if self._programs is not None:
            self._programs.know(layer, image.manifest_digest, image.manifest.layers.index(descriptor))
        return layer

    async def layer_by_number(self, number: int) -> Layer:
        """The layer of a layer number. Raises NoSuchNodeError for a number that was never given."""
        layer = self._by_number.get(number)
        if layer is not None:
            return layer
        link = self._ledger.link_by_number(number)
        if link is None:
            raise NoSuchNodeError(f"no layer has the number {number}")
        return await self.layer(link)

    # Use

    def add_use(self, link: Link, graph_roots: Collection[Path] | None) -> int:
        """Podman announces a use of the layer: fetch what it will need.

        `graph_roots`: where it keeps its layers; None when that cannot be seen.
        """
        for path in (UNSEEN,) if graph_roots is None else graph_roots:
            self._ledger.add_graph_root(str(path))
        uses = self._ledger.add_use(link.number)
        layer = self._by_number.get(link.number)
        if layer is not None:
            self.background.want(layer)
        return uses

    def drop_use(self, link: Link) -> int:
        """Podman takes a use back."""
        uses = self._ledger.drop_use(link.number)
        layer = self._by_number.get(link.number)
        if layer is not None and not any(
            other.uses for other in self._ledger.links() if self._by_number.get(other.number) is layer
        ):
            self.background.forget(layer)
        return uses

    def open_layers(self) -> list[Layer]:
        """All that are open."""
        return list(self._layers.values())

    def forget(self, link: Link) -> None:
        """The link goes; its layer stays open for what the kernel still holds of it, and for other links."""
        layer = self._by_number.pop(link.number, None)
        if layer is not None and layer not in self._by_number.values():
            self.background.forget(layer)

    async def resume(self, completes: Callable[[Link], bool]) -> None:
        """Go on with the background work of an earlier daemon for the layers that are in use.

        `completes`: somebody else brings the rest of the link's layer.
        """
        for link in self._ledger.links():
            if link.uses:
                try:
                    self.background.want(await self.layer(link), rest=not completes(link))
                except (RegistryStorageError, OSError) as error:
                    _log.warning("layer %s of %s: not resumed: %s", link.layer_digest, link.reference, error)

    def hold(self) -> None:
        """Leave the contents to the next worker, whole: no thread of ours changes them from here on."""
        for layer in self._layers.values():
            layer.content.hold()

    # How

    async def _resolve(self, text: str) -> ResolvedImage:
        return await self._image_flights.run(
            text,
            lambda: self._remembering_failure(
                text, lambda: self._in_time(f"image {text}", self._images.fetch, text)
            ),
        )

    async def _open(self, key: LayerKey, how: Callable[..., Awaitable[Layer]], *arguments: object) -> Layer:
        layer = self._layers[key] = await how(key, *arguments)
        return layer

    async def _in_time(self, what: str, work: Callable[..., Awaitable[T]], *arguments: object) -> T:
        with trio.move_on_after(self._timeout):
            return await work(*arguments)
        raise UnavailableError(f"{what}: no answer within {self._timeout:g} s")

    async def _remembering_failure(self, key: object, work: Callable[[], Awaitable[T]]) -> T:
        """Those who ask again at once get the same error without another try: podman asks three times in a row."""
        now = trio.current_time()
        until, error = self._failures.get(key, (0.0, None))
        if error is not None and now < until:
            raise error
        try:
            result = await work()
        except (RegistryStorageError, OSError) as failure:
            self._failures = {k: v for k, v in self._failures.items() if v[0] > now}
            self._failures[key] = (trio.current_time() + FAILURE_SECONDS, failure)
            raise
        self._failures.pop(key, None)
        return result


@contextmanager
def _about(reference: str, layer: Digest) -> Iterator[None]:
    """Errors know which layer is not served for them, and how long that took to find out."""
    started = trio.current_time()
    try:
        yield
    except RegistryStorageError as error:
        seconds = round(trio.current_time() - started, 3)
        error.about = {"reference": reference, "layer": str(layer), "seconds": seconds}
        raise
