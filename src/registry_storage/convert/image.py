"""An image or index converted: layers first, then configs and manifests, the name last."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import trio

from ..descriptor import INDEXES, MANIFESTS, Descriptor, Index, Manifest, Platform, load_json, parse_diff_ids
from ..digest import Digest
from ..errors import InvalidDocumentError, NotFoundError
from ..layer.toc_source import EXTERNAL_SUFFIX
from .destinations import Destination
from .documents import (
    ATTESTED_DIGEST,
    NewLayer,
    external_toc_image,
    is_image,
    oci_type,
    rewrite_config,
    rewrite_index,
    rewrite_manifest,
)
from .image_options import Converted, ImageOptions, ImageResult, LayerResult
from .layers import Job, LayerFactory
from .report import Reporter
from .sources import Document, Source
from .work import WorkDirectory

_ATTESTATION = "vnd.docker.reference.type"


@dataclass(frozen=True, slots=True)
class PlannedImage:
    """An image whose layers will be converted."""

    document: Document
    manifest: Manifest
    config: bytes
    platform: str
    jobs: tuple[Job, ...]


@dataclass(frozen=True, slots=True)
class PlannedCopy:
    """A manifest that comes along as it is, with its blobs."""

    document: Document
    manifest: Manifest


@dataclass(slots=True)
class Plan:
    """What will be done."""

    root: Document
    entries: dict[int, PlannedImage | PlannedCopy] = field(default_factory=dict)
    """By position in the index; 0 for a root that is a manifest."""
    is_index: bool = False
    missing: list[str] = field(default_factory=list)
    """Wishes that nothing fulfils."""

    @property
    def images(self) -> list[PlannedImage]:
        """Those that are converted."""
        return [entry for entry in self.entries.values() if isinstance(entry, PlannedImage)]


class Conversion:
    """One image from a source to a destination."""

    def __init__(
        self,
        source: Source,
        destination: Destination,
        options: ImageOptions,
        work: WorkDirectory,
        reporter: Reporter,
    ) -> None:
        self._source = source
        self._destination = destination
        self._options = options
        self._reporter = reporter
        self._oci = options.needs_oci or destination.oci_only
        self._layers = LayerFactory(source, destination, options, work, reporter)

    async def plan(self) -> Plan:
        """Find out what there is; layers are read only where wishes need the names in them.

        Raises RegistryStorageError.
        """
        root = await self._source.fetch_root()
        plan = Plan(root)
        if root.media_type in MANIFESTS:
            image = await self._image(root, plan, None)
            if image is None:
                raise InvalidDocumentError(f"{self._source.name}: not an image with layers, so nothing to convert")
            for wanted in self._options.platforms:
                if Platform.parse(image.platform) != wanted:
                    raise NotFoundError(f"{self._source.name}: wanted {wanted}, but it is for {image.platform} only")
            plan.entries[0] = image
        elif root.media_type in INDEXES:
            await self._plan_index(root, plan)
        else:
            raise InvalidDocumentError(f"{self._source.name}: media type {root.media_type!r:.100} is not supported")
        for path in dict.fromkeys(plan.missing):
            self._reporter.message(f"no layer has {path}")
        return plan

    async def _plan_index(self, root: Document, plan: Plan) -> None:
        name, options = self._source.name, self._options
        index = Index.parse(root.data, f"index of {name}")
        chosen: set[int] = set()
        if options.all_platforms:
            chosen = set(range(len(index.manifests)))
        else:
            for wanted in options.platforms or (options.default_platform,):
                found = index.select(wanted)
                if found is None:
                    raise NotFoundError(f"{name}: {index.lacks(wanted)}")
                chosen.add(index.manifests.index(found))
        plan.is_index = options.all_platforms or len(chosen) > 1
        kept = {str(index.manifests[at].digest) for at in chosen}
        for at, descriptor in enumerate(index.manifests):
            attested = descriptor.annotations.get(ATTESTED_DIGEST)
            belongs = plan.is_index and _ATTESTATION in descriptor.annotations and attested in kept
            if at not in chosen and not belongs:
                what = descriptor.annotations.get(_ATTESTATION) or f"image for {descriptor.platform or 'no platform'}"
                self._reporter.message(f"left out: {what} {descriptor.digest}")
                continue
            if descriptor.media_type not in MANIFESTS:
                kind = descriptor.media_type or "no media type"
                self._reporter.message(f"left out: manifest {descriptor.digest} of {kind}, which is not supported")
                continue
            document = await self._source.fetch_manifest(descriptor)
            image = await self._image(document, plan, descriptor)
            if image is None:
                self._reporter.message(f"comes along as it is: manifest {descriptor.digest} without layers of files")
                manifest = Manifest.parse(document.data, f"manifest {descriptor.digest}")
                plan.entries[at] = PlannedCopy(document, manifest)
            else:
                plan.entries[at] = image

    async def _image(self, document: Document, plan: Plan, descriptor: Descriptor | None) -> PlannedImage | None:
        what = f"{self._source.name}: manifest {document.digest}"
        if not is_image(document.data, what) or (descriptor and _ATTESTATION in descriptor.annotations):
            return None
        manifest = Manifest.parse(document.data, what)
        config = await self._source.fetch_config(manifest.config)
        diff_ids = parse_diff_ids(config, f"{what}: config")
        if len(diff_ids) != len(manifest.layers):
            raise InvalidDocumentError(f"{what}: diff_ids: wanted {len(manifest.layers)}, got {len(diff_ids)}")
        prioritized = await self._prioritized(document.digest, manifest, plan)
        accesses = self._options.wishes.accesses(document.digest, prioritized)
        jobs = tuple(
            Job(layer, diff_id, first, read)
            for layer, diff_id, first, read in zip(manifest.layers, diff_ids, prioritized, accesses, strict=True)
        )
        return PlannedImage(document, manifest, config, platform_of(config), jobs)

    async def _prioritized(self, digest: Digest, manifest: Manifest, plan: Plan) -> Sequence[tuple[str, ...]]:
        wishes, count = self._options.wishes, len(manifest.layers)
        if not wishes:
            return [()] * count
        names: list[list[str]] = [[] for _ in range(count)]
        if wishes.need_names(digest):

            async def list_layer(at: int) -> None:
                names[at] = await self._layers.names(manifest.layers[at])

            async with trio.open_nursery() as nursery:
                for at in range(count):
                    nursery.start_soon(list_layer, at)
        chosen, missing = wishes.assign(digest, count, names)
        plan.missing += missing
        return chosen

    def outcome(self, job: Job) -> str:
        """For a dry run: what would become of a layer."""
        if not self._layers.convertible(job.descriptor):
            return "left"
        return "kept" if self._layers.is_wanted_already(job) else "converted"

    async def run(self, plan: Plan) -> Converted:
        """Do it. Raises RegistryStorageError, OSError and groups of them; then no name leads to anything new."""
        jobs = dict.fromkeys(job for image in plan.images for job in image.jobs)
        results: dict[Job, LayerResult] = {}

        async def convert(job: Job) -> None:
            results[job] = await self._layers.convert(job)

        async with trio.open_nursery() as nursery:
            for job in jobs:
                nursery.start_soon(convert, job)
        images: list[ImageResult] = []
        moved: dict[int, Descriptor] = {}
        last = b""
        for at, entry in plan.entries.items():
            if isinstance(entry, PlannedCopy):
                moved[at] = await self._copy(entry)
                continue
            layers = tuple(results[job] for job in entry.jobs)
            descriptor, last = await self._finish(entry, layers, named=not plan.is_index)
            moved[at] = descriptor
            platform, before = entry.platform, str(entry.document.digest)
            images.append(ImageResult(platform, before, str(descriptor.digest), layers))
        root = next(iter(moved.values()))
        if plan.is_index:
            last, media_type = rewrite_index(plan.root.data, moved, self._source.name, oci=self._oci)
            root = Descriptor(media_type, Digest.of(last), len(last))
        external = await self._publish_external(plan, results)
        await self._destination.publish(root, last)
        return Converted(root.media_type, str(root.digest), tuple(images), external)

    async def _finish(
        self, image: PlannedImage, layers: Sequence[LayerResult], *, named: bool
    ) -> tuple[Descriptor, bytes]:
        """Config and manifest of a converted image; `named`: the manifest is published later, under the name."""
        what = f"{self._source.name}: manifest {image.document.digest}"
        new = [
            None if result.outcome in ("left", "kept") else NewLayer(result.result, Digest.parse(result.diff_id))
            for result in layers
        ]
        config = rewrite_config(image.config, new, f"{what}: config")
        data, media_type = rewrite_manifest(image.document.data, config, new, what, oci=self._oci)
        await self._put(config, oci_type(image.manifest.config.media_type))
        descriptor = Descriptor(media_type, Digest.of(data), len(data))
        if not named:
            await self._destination.put_manifest(descriptor, data)
        return descriptor, data

    async def _copy(self, entry: PlannedCopy) -> Descriptor:
        document = entry.document
        for blob in (entry.manifest.config, *entry.manifest.layers):
            if not blob.urls and await self._destination.find_blob(blob.digest) is None:
                await self._put(await self._source.fetch_config(blob), blob.media_type)
        descriptor = Descriptor(document.media_type, document.digest, len(document.data))
        await self._destination.put_manifest(descriptor, document.data)
        return descriptor

    async def _put(self, data: bytes, media_type: str) -> None:
        descriptor = Descriptor(media_type, Digest.of(data), len(data))
        await self._destination.put_blob(descriptor, data, lambda _: None)

    async def _publish_external(self, plan: Plan, results: dict[Job, LayerResult]) -> str | None:
        """The image that holds the layers' TOCs; before the image that needs it."""
        if not self._layers.external:
            return None
        digests = dict.fromkeys(results[job].result.digest for image in plan.images for job in image.jobs)
        layers = [self._layers.external[digest] for digest in digests if digest in self._layers.external]
        config = load_json(plan.images[0].config, "config")
        platform = {key: config[key] for key in ("architecture", "os", "variant") if isinstance(config.get(key), str)}
        manifest, config_data = external_toc_image(layers, platform)
        await self._put(config_data, "application/vnd.oci.image.config.v1+json")
        descriptor = Descriptor("application/vnd.oci.image.manifest.v1+json", Digest.of(manifest), len(manifest))
        await self._destination.publish(descriptor, manifest, EXTERNAL_SUFFIX)
        return str(descriptor.digest)


def platform_of(config: bytes) -> str:
    """``os/architecture[/variant]`` as an image config has it."""
    document = load_json(config, "config")
    parts = [document.get(key) for key in ("os", "architecture", "variant")]
    return "/".join(part for part in parts if isinstance(part, str) and part)
