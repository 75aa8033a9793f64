"""Which lazily pullable format a layer has: by its descriptor's annotations first, then by its footer."""

from dataclasses import dataclass, replace

from ..descriptor import Descriptor
from ..digest import Digest
from ..errors import FormatError, InvalidDigestError, NotLazyError
from .base import Compression, ExternalToc, LayerFormat, TocLocation
from .estargz import ESTARGZ
from .estargz import TOC_DIGEST_ANNOTATION as STARGZ_TOC_DIGEST
from .zstd_chunked import (
    OLD_CHECKSUM,
    OLD_POSITION,
    PODMAN_CHECKSUM,
    PODMAN_POSITION,
    PODMAN_TAR_SPLIT,
    ZSTD_CHUNKED_PODMAN,
    ZSTD_CHUNKED_PODMAN_OLD,
    ZSTD_CHUNKED_STARGZ,
    parse_position,
    parse_tar_split_position,
)

_LAYER = "application/vnd.oci.image.layer.v1.tar"
_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
_COMPRESSIONS = {
    _LAYER: Compression.NONE,
    f"{_LAYER}+gzip": Compression.GZIP,
    f"{_LAYER}+zstd": Compression.ZSTD,
    _DOCKER_LAYER: Compression.NONE,
    f"{_DOCKER_LAYER}.gzip": Compression.GZIP,
    f"{_DOCKER_LAYER}.zstd": Compression.ZSTD,
}
_FOREIGN = (
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
)


@dataclass(frozen=True, slots=True)
class LazyLayer:
    """What the descriptor of a lazily pullable layer says."""

    format: LayerFormat
    toc_digest: Digest
    blob_size: int
    toc: TocLocation | None = None
    """Where the annotations say that the TOC is; None: only the footer tells."""

    def locate_toc(self, tail: bytes) -> TocLocation | ExternalToc:
        """What the footer says, which must not contradict the annotations.

        `tail`: the last bytes of the blob, ``format.footer_size`` of them or more. Raises FormatError.
        """
        got = self.format.parse_footer(tail, self.blob_size)
        wanted = self.toc
        if wanted is None:
            return got
        if isinstance(got, ExternalToc) or not _agree(wanted, got):
            raise FormatError(
                f"{self.format.name} footer: TOC position: wanted as annotated {wanted}, got {got}",
                field="TOC position",
            )
        return wanted


def _agree(annotated: TocLocation, footer: TocLocation) -> bool:
    """The same place; the tar-split counts only where both tell its place."""
    if annotated.tar_split is None or footer.tar_split is None:
        annotated, footer = replace(annotated, tar_split=None), replace(footer, tar_split=None)
    return replace(annotated, compressed_digest=None) == footer


def layer_compression(media_type: str) -> Compression:
    """The compression that a layer's media type names. Raises NotLazyError, with the reason, for others."""
    if media_type.endswith("+encrypted"):
        raise NotLazyError(f"the layer is encrypted (media type {media_type!r:.100})")
    if media_type.startswith(_FOREIGN):
        raise NotLazyError(f"the layer is a foreign one, not in registries (media type {media_type!r:.100})")
    compression = _COMPRESSIONS.get(media_type)
    if compression is None:
        raise NotLazyError(f"the media type is not one of a layer that we know: {media_type!r:.100}")
    return compression


def detect(descriptor: Descriptor) -> LazyLayer:
    """The format of the layer, or NotLazyError with the reason; FormatError for malformed annotations."""
    compression = layer_compression(descriptor.media_type)
    if descriptor.urls:
        raise NotLazyError("the layer is a foreign one: it comes from urls of its own")
    annotations = descriptor.annotations
    if STARGZ_TOC_DIGEST in annotations and PODMAN_CHECKSUM in annotations:
        raise NotLazyError(
            f"two TOC digests of different kinds: annotations {STARGZ_TOC_DIGEST} and {PODMAN_CHECKSUM}"
        )
    match compression:
        case Compression.GZIP:
            return _detect_gzip(descriptor)
        case Compression.ZSTD:
            return _detect_zstd(descriptor)
        case _:
            raise NotLazyError("the layer is not compressed, so it cannot hold a TOC")


def _detect_gzip(descriptor: Descriptor) -> LazyLayer:
    if STARGZ_TOC_DIGEST not in descriptor.annotations:
        raise NotLazyError(
            f"a plain gzip layer: no annotation {STARGZ_TOC_DIGEST}, so no part of it could be verified alone"
        )
    return LazyLayer(ESTARGZ, _digest(descriptor, STARGZ_TOC_DIGEST), descriptor.size)


def _detect_zstd(descriptor: Descriptor) -> LazyLayer:
    annotations, size = descriptor.annotations, descriptor.size
    if PODMAN_CHECKSUM in annotations:
        toc = _position(descriptor, PODMAN_POSITION)
        split = annotations.get(PODMAN_TAR_SPLIT)
        if toc is not None and split is not None:
            split_place = parse_tar_split_position(f"annotation {PODMAN_TAR_SPLIT}", split, size)
            toc = replace(toc, tar_split=split_place)
        return LazyLayer(ZSTD_CHUNKED_PODMAN, _digest(descriptor, PODMAN_CHECKSUM), size, toc)
    old_checksum = _digest(descriptor, OLD_CHECKSUM) if OLD_CHECKSUM in annotations else None
    if STARGZ_TOC_DIGEST in annotations:
        toc = _position(descriptor, OLD_POSITION, old_checksum)
        return LazyLayer(ZSTD_CHUNKED_STARGZ, _digest(descriptor, STARGZ_TOC_DIGEST), size, toc)
    if old_checksum is not None:
        return LazyLayer(ZSTD_CHUNKED_PODMAN_OLD, old_checksum, size, _position(descriptor, OLD_POSITION))
    raise NotLazyError(
        f"a plain zstd layer: no annotation {PODMAN_CHECKSUM}, {OLD_CHECKSUM} or {STARGZ_TOC_DIGEST}, "
        "so no part of it could be verified alone"
    )


def _position(
    descriptor: Descriptor, key: str, compressed_digest: Digest | None = None
) -> TocLocation | None:
    text = descriptor.annotations.get(key)
    if text is None:
        return None
    return parse_position(f"annotation {key}", text, descriptor.size, compressed_digest)


def _digest(descriptor: Descriptor, key: str) -> Digest:
    try:
        return Digest.parse(descriptor.annotations[key])
    except InvalidDigestError as error:
        raise FormatError(f"annotation {key}: {error}", field=key) from None
