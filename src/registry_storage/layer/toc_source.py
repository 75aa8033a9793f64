"""Fetches a layer's TOC and turns it into a packed index."""

import logging

import trio

from .. import traces
from ..descriptor import Descriptor, Manifest
from ..errors import FormatError, NotFoundError, NotLazyError, RegistryError, VerificationError
from ..formats.base import MAX_TOC_BYTES, ExternalToc, TocLocation
from ..formats.detect import LazyLayer
from ..formats.estargz import open_external_toc
from ..reference import Reference
from ..registry.client import RegistryClient
from ..registry.mirrors import ReadableBlob
from ..toc.index import build_index

_log = logging.getLogger(__name__)

MAX_BETWEEN_BYTES = 64 << 10
EXTERNAL_SUFFIX = "-esgztoc"
EXTERNAL_ANNOTATION = "containerd.io/snapshot/stargz/layer.digest"


def _end_of_blob(lazy: LazyLayer, blob_size: int) -> tuple[int, int]:
    """Offset and size of an end of the blob that probably holds its TOC, which is rarely above 1/40 of it."""
    size = min(blob_size, max(64 << 10, lazy.format.footer_size, min(blob_size // 40, 1 << 20)))
    return blob_size - size, size


async def _fetch_annotated(blob: ReadableBlob, lazy: LazyLayer, location: TocLocation) -> tuple[bytes, bytes]:
    """The TOC and the footer, in one round trip: podman's tar-split between them is fetched only where it is small."""
    size = _toc_size(location, blob.size)
    footer_start = max(0, blob.size - lazy.format.footer_size)
    if footer_start - (location.offset + size) <= MAX_BETWEEN_BYTES:
        start = min(location.offset, footer_start)
        both = await blob.fetch(start, blob.size - start)
        return both[location.offset - start :], both[footer_start - start :]
    footer: bytes | RegistryError = b""

    async def fetch_footer() -> None:
        nonlocal footer
        try:
            footer = await blob.fetch(footer_start, blob.size - footer_start)
        except RegistryError as error:
            footer = error

    toc: bytes | RegistryError = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fetch_footer)
        try:
            toc = await blob.fetch(location.offset, size)
        except RegistryError as error:
            toc = error
    if isinstance(toc, RegistryError):
        raise toc
    if isinstance(footer, RegistryError):
        raise footer
    return toc, footer


def _toc_size(location: TocLocation, blob_size: int) -> int:
    end = blob_size if location.compressed_size is None else location.offset + location.compressed_size
    if not 0 <= location.offset < end <= blob_size:
        raise FormatError(f"the TOC's place {location.offset} to {end} is not inside the blob of {blob_size} bytes")
    if end - location.offset > MAX_TOC_BYTES:
        raise FormatError(f"the TOC is too large: wanted at most {MAX_TOC_BYTES}, got {end - location.offset}")
    return end - location.offset


async def fetch_toc(
    registry: RegistryClient,
    reference: Reference,
    descriptor: Descriptor,
    lazy: LazyLayer,
    workers: trio.CapacityLimiter,
) -> bytes:
    """The packed index of a layer whose TOC has the digest that the manifest names.

    One request where the annotations say where the TOC is or the end of the blob holds it whole, else two.
    Raises FormatError, VerificationError, RegistryError; messages name the layer.
    """
    with traces.span("fetch TOC", layer=str(descriptor.digest)):
        return await _fetch(registry, reference, descriptor, lazy, workers)


async def _fetch(
    registry: RegistryClient,
    reference: Reference,
    descriptor: Descriptor,
    lazy: LazyLayer,
    workers: trio.CapacityLimiter,
) -> bytes:
    blob = registry.open_blob(reference, descriptor)
    try:
        if lazy.toc is None:
            start, size = _end_of_blob(lazy, descriptor.size)
            tail = await blob.fetch(start, size)
            location = lazy.locate_toc(tail)
            if isinstance(location, ExternalToc):
                return await _external(registry, reference, descriptor, lazy, workers, location)
            raw = tail[location.offset - start :] if location.offset >= start else b""
            if not raw:
                raw = await blob.fetch(location.offset, _toc_size(location, descriptor.size))
        else:
            location = lazy.toc
            raw, footer = await _fetch_annotated(blob, lazy, location)
            lazy.locate_toc(footer)
        return await _index(raw, location, lazy, descriptor, workers)
    except NotLazyError as error:
        raise NotLazyError(f"layer {descriptor.digest}: {error}") from error
    except FormatError as error:
        raise FormatError(f"layer {descriptor.digest}: {error}", entry=error.entry, field=error.field) from error
    except VerificationError as error:
        what = f"layer {descriptor.digest}: {error.what}"
        raise VerificationError(what, wanted=error.wanted, got=error.got) from error


async def _index(
    raw: bytes, location: TocLocation, lazy: LazyLayer, descriptor: Descriptor, workers: trio.CapacityLimiter
) -> bytes:
    def build() -> bytes:
        json = lazy.format.open_toc(raw, location, lazy.toc_digest)
        return build_index(json, blob_size=descriptor.size, toc_offset=location.offset)

    return await trio.to_thread.run_sync(build, limiter=workers)


async def _external(
    registry: RegistryClient,
    reference: Reference,
    descriptor: Descriptor,
    lazy: LazyLayer,
    workers: trio.CapacityLimiter,
    location: ExternalToc,
) -> bytes:
    """The TOC from the image that goes with this one (its tag ends with ``-esgztoc``)."""
    if reference.tag is None:
        raise NotLazyError("its TOC is in another image, which only a tag leads to, and the reference has none")
    companion = Reference(reference.host, reference.repository, reference.tag + EXTERNAL_SUFFIX)
    _, _, data = await registry.fetch_manifest(companion)
    for candidate in Manifest.parse(data, f"manifest of {companion}").layers:
        if candidate.annotations.get(EXTERNAL_ANNOTATION) == str(descriptor.digest):
            layer = await registry.fetch_document(companion, candidate, MAX_TOC_BYTES)
            break
    else:
        raise NotFoundError(f"{companion}: no TOC for layer {descriptor.digest}")

    def build() -> bytes:
        json = open_external_toc(layer, lazy.toc_digest)
        return build_index(json, blob_size=descriptor.size, toc_offset=location.data_end)

    return await trio.to_thread.run_sync(build, limiter=workers)
