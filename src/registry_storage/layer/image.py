"""An image as its registry describes it: the manifest of this host's platform, and the config."""

import logging
from collections import OrderedDict
from dataclasses import dataclass

from ..cache.documents import Documents
from ..cache.ledger import Ledger, Link
from ..descriptor import INDEXES, MANIFESTS, MAX_CONFIG_BYTES, Descriptor, Index, Manifest, Platform, parse_diff_ids
from ..digest import Digest
from ..errors import FormatError, InvalidDocumentError, NotFoundError
from ..formats.detect import LazyLayer, detect
from ..formats.plain import plain
from ..reference import Reference
from ..registry.client import RegistryClient

_log = logging.getLogger(__name__)

MAX_PARSED = 8
"""Manifests that are kept parsed: whoever pulls or looks into an image asks for its manifest with every path."""


@dataclass(frozen=True, slots=True)
class ResolvedImage:
    """A reference and the manifest that it leads to."""

    reference: Reference
    manifest_digest: Digest
    manifest: Manifest

    def find(self, name_digest: Digest) -> tuple[int, Descriptor, LazyLayer] | None:
        """The layer whose TOC digest or layer digest this is: position, descriptor, format.

        Raises NotLazyError or FormatError when the layer is there, but cannot be pulled lazily.
        """
        refusal: FormatError | None = None
        for position, descriptor in enumerate(self.manifest.layers):
            try:
                lazy = detect(descriptor)
            except FormatError as error:
                if descriptor.digest == name_digest:
                    refusal = error
                continue
            if name_digest in (lazy.toc_digest, descriptor.digest):
                return position, descriptor, lazy
        if refusal is not None:
            raise refusal
        return None


    def part(self, link: Link) -> tuple[int, Descriptor, LazyLayer]:
        """The layer of a link: position, descriptor, format. Raises NotFoundError, and as `find`."""
        if link.toc_digest == link.layer_digest:
            found = self.find_plain(link.layer_digest)
        else:
            found = self.find(link.name_digest)
        if found is None:
            raise NotFoundError(f"{link.reference}: manifest {link.manifest_digest} has no layer {link.name_digest}")
        return found

    def find_plain(self, layer_digest: Digest) -> tuple[int, Descriptor, LazyLayer] | None:
        """The layer of this digest, as one that is unpacked whole. Raises NotLazyError for what is no tar."""
        for position, descriptor in enumerate(self.manifest.layers):
            if descriptor.digest == layer_digest:
                return position, descriptor, plain(descriptor)
        return None


class Images:
    """Resolves references; what was resolved once is known without the network."""

    def __init__(self, registry: RegistryClient, documents: Documents, ledger: Ledger, platform: Platform) -> None:
        self._registry = registry
        self._documents = documents
        self._ledger = ledger
        self._platform = platform
        self._parsed: OrderedDict[Digest, Manifest] = OrderedDict()

    def known(self, text: str) -> ResolvedImage | None:
        """The image that `text` led to when it was last resolved, if its manifest is on disk."""
        image = self._ledger.image(text)
        if image is None or image.manifest_digest is None:
            return None
        data = self._documents.load(image.manifest_digest, expected=True)
        if data is None:
            return None
        manifest = self._parse(image.manifest_digest, data, f"manifest of {text}")
        return ResolvedImage(Reference.parse(text), image.manifest_digest, manifest)

    def remember(self, image: ResolvedImage) -> None:
        """The image's reference leads to its manifest from now on, without the network."""
        self._ledger.put_image(str(image.reference), image.manifest_digest)

    async def fetch(self, text: str) -> ResolvedImage:
        """Ask the registry what `text` is now, and remember it.

        Raises InvalidReferenceError, InvalidDocumentError, RegistryError, VerificationError.
        """
        image = await self.resolve(Reference.parse(text), self._platform)
        self._ledger.put_image(text, image.manifest_digest)
        return image

    async def resolve(self, reference: Reference, platform: Platform | None = None) -> ResolvedImage:
        """Ask the registry what `reference` is now, for `platform` or this host's; its manifest is kept.

        Raises as `fetch`.
        """
        platform = platform or self._platform
        digest, media_type, data = await self._registry.fetch_manifest(reference)
        if media_type in INDEXES:
            index = Index.parse(data, f"index of {reference}")
            chosen = index.select(platform)
            if chosen is None:
                raise NotFoundError(f"{reference}: {index.lacks(platform)}")
            digest, media_type, data = await self._registry.fetch_manifest(reference, chosen.digest)
        if media_type not in MANIFESTS:
            raise InvalidDocumentError(f"manifest of {reference}: media type {media_type!r:.100} is not supported")
        manifest = Manifest.parse(data, f"manifest of {reference}")
        self._documents.store(data)
        return ResolvedImage(reference, digest, manifest)

    async def by_manifest(self, reference: Reference, digest: Digest) -> ResolvedImage:
        """The image of a known manifest, from disk or, when it is gone from there, from the registry."""
        data = await self._manifest(reference, digest)
        return ResolvedImage(reference, digest, self._parse(digest, data, f"manifest {digest} of {reference}"))

    def _parse(self, digest: Digest, data: bytes, what: str) -> Manifest:
        """Of a document that was compared with its digest."""
        manifest = self._parsed.get(digest)
        if manifest is None:
            manifest = self._parsed[digest] = Manifest.parse(data, what)
        self._parsed.move_to_end(digest)
        while len(self._parsed) > MAX_PARSED:
            self._parsed.popitem(last=False)
        return manifest

    async def manifest(self, image: ResolvedImage) -> bytes:
        """The manifest's bytes, from disk or the registry."""
        return await self._manifest(image.reference, image.manifest_digest)

    async def _manifest(self, reference: Reference, digest: Digest) -> bytes:
        data = self._documents.load(digest)
        if data is None:
            _, _, data = await self._registry.fetch_manifest(reference, digest)
            self._documents.store(data)
        return data

    async def config(self, image: ResolvedImage) -> bytes:
        """The image config's bytes, from disk or the registry; length and digest are checked."""
        descriptor = image.manifest.config
        data = self._documents.load(descriptor.digest)
        if data is None:
            data = await self._registry.fetch_document(image.reference, descriptor, MAX_CONFIG_BYTES)
            _log.info("config %s of %s is fetched", descriptor.digest, image.reference)
            self._documents.store(data)
        return data

    async def diff_id(self, image: ResolvedImage, position: int) -> Digest:
        """The diffID of the layer at `position`. Raises InvalidDocumentError when the config has not one per layer."""
        return (await self.diff_ids(image))[position]

    async def diff_ids(self, image: ResolvedImage) -> tuple[Digest, ...]:
        """The diffID of each layer, base first. Raises InvalidDocumentError when the config has not one per layer."""
        diff_ids = parse_diff_ids(await self.config(image), f"config of {image.reference}")
        if len(diff_ids) != len(image.manifest.layers):
            raise InvalidDocumentError(
                f"config of {image.reference}: wanted {len(image.manifest.layers)} diff_ids, got {len(diff_ids)}"
            )
        return diff_ids
