"""An image as its registry describes it: the manifest of this host's platform, and the config."""

import logging
from dataclasses import dataclass

from ..cache.documents import Documents
from ..cache.ledger import Ledger
from ..descriptor import INDEXES, MANIFESTS, MAX_CONFIG_BYTES, Descriptor, Index, Manifest, Platform, parse_diff_ids
from ..digest import Digest
from ..errors import FormatError, InvalidDocumentError, NotFoundError
from ..formats.detect import LazyLayer, detect
from ..reference import Reference
from ..registry.client import RegistryClient

_log = logging.getLogger(__name__)


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


class Images:
    """Resolves references; what was resolved once is known without the network."""

    def __init__(self, registry: RegistryClient, documents: Documents, ledger: Ledger, platform: Platform) -> None:
        self._registry = registry
        self._documents = documents
        self._ledger = ledger
        self._platform = platform

    def known(self, text: str) -> ResolvedImage | None:
        """The image that `text` led to when it was last resolved, if its manifest is on disk."""
        image = self._ledger.image(text)
        if image is None or image.manifest_digest is None:
            return None
        data = self._documents.load(image.manifest_digest)
        if data is None:
            return None
        return ResolvedImage(Reference.parse(text), image.manifest_digest, Manifest.parse(data, f"manifest of {text}"))

    async def fetch(self, text: str) -> ResolvedImage:
        """Ask the registry what `text` is now.

        Raises InvalidReferenceError, InvalidDocumentError, RegistryError, VerificationError.
        """
        reference = Reference.parse(text)
        digest, media_type, data = await self._registry.fetch_manifest(reference)
        if media_type in INDEXES:
            chosen = Index.parse(data, f"index of {text}").select(self._platform)
            if chosen is None:
                raise NotFoundError(f"{text}: the index has no image for {self._platform}")
            digest, media_type, data = await self._registry.fetch_manifest(reference, chosen.digest)
        if media_type not in MANIFESTS:
            raise InvalidDocumentError(f"manifest of {text}: media type {media_type!r:.100} is not supported")
        manifest = Manifest.parse(data, f"manifest of {text}")
        self._documents.store(data)
        self._ledger.put_image(text, digest)
        return ResolvedImage(reference, digest, manifest)

    async def by_manifest(self, reference: Reference, digest: Digest) -> ResolvedImage:
        """The image of a known manifest, from disk or, when it is gone from there, from the registry."""
        data = await self._manifest(reference, digest)
        return ResolvedImage(reference, digest, Manifest.parse(data, f"manifest {digest} of {reference}"))

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
            self._documents.store(data)
        return data

    async def diff_id(self, image: ResolvedImage, position: int) -> Digest:
        """The diffID of the layer at `position`. Raises InvalidDocumentError when the config has not one per layer."""
        diff_ids = parse_diff_ids(await self.config(image), f"config of {image.reference}")
        if len(diff_ids) != len(image.manifest.layers):
            raise InvalidDocumentError(
                f"config of {image.reference}: wanted {len(image.manifest.layers)} diff_ids, got {len(diff_ids)}"
            )
        return diff_ids[position]
