"""What an image is to become."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..descriptor import Descriptor, Platform
from ..errors import InvalidInputError
from ..formats.base import LayerFormat
from ..formats.estargz import ESTARGZ
from ..formats.zstd_chunked import ZSTD_CHUNKED_PODMAN, ZSTD_CHUNKED_STARGZ
from .options import LayerKind, WriteOptions
from .prefetch import Wishes

LAZY_FORMATS: Mapping[LayerKind, LayerFormat] = {
    LayerKind.ESTARGZ: ESTARGZ,
    LayerKind.ZSTD_CHUNKED_PODMAN: ZSTD_CHUNKED_PODMAN,
    LayerKind.ZSTD_CHUNKED_STARGZ: ZSTD_CHUNKED_STARGZ,
}


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """Options of one conversion."""

    layer: WriteOptions
    """Of every layer; prioritized files come from `wishes`."""
    oci: bool = False
    """Docker's media types become OCI's."""
    platforms: tuple[Platform, ...] = ()
    """Of an index, the images to convert; the result is an index where there are several."""
    all_platforms: bool = False
    """All of an index is converted, and what is no image comes along."""
    default_platform: Platform = field(default_factory=lambda: Platform("linux", "amd64"))
    """The image of an index where neither of both is given."""
    wishes: Wishes = field(default_factory=Wishes)
    reuse: bool = False
    """Layers in the wanted format already stay as they are."""
    jobs: int = 1
    """Threads of one layer's conversion."""

    def __post_init__(self) -> None:
        if self.wishes:
            replace(self.layer, prioritized=("x",))  # raises where files cannot come first
        if self.platforms and self.all_platforms:
            raise InvalidInputError("wanted some platforms or all of them, got both")

    @property
    def needs_oci(self) -> bool:
        """zstd layers have no media type of docker's."""
        return self.oci or self.layer.kind in (LayerKind.ZSTD_CHUNKED_PODMAN, LayerKind.ZSTD_CHUNKED_STARGZ)


@dataclass(frozen=True, slots=True)
class LayerResult:
    """What became of one layer."""

    source: Descriptor
    result: Descriptor
    diff_id: str
    toc_digest: str | None
    outcome: str
    """``converted``, ``resumed``, ``kept`` (in the wanted format) or ``left`` (cannot be converted)."""
    stored: str
    """``uploaded``, ``existing``, ``mounted`` or ``left`` (foreign: not stored)."""

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "source": str(self.source.digest),
            "sourceSize": self.source.size,
            "digest": str(self.result.digest),
            "size": self.result.size,
            "mediaType": self.result.media_type,
            "diffID": self.diff_id,
            "tocDigest": self.toc_digest,
            "outcome": self.outcome,
            "stored": self.stored,
        }


@dataclass(frozen=True, slots=True)
class ImageResult:
    """What became of one image of one platform."""

    platform: str
    source_manifest: str
    manifest: str
    layers: tuple[LayerResult, ...]

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "platform": self.platform,
            "sourceManifest": self.source_manifest,
            "manifest": self.manifest,
            "layers": [layer.to_json() for layer in self.layers],
        }


@dataclass(frozen=True, slots=True)
class Converted:
    """What was published."""

    media_type: str
    digest: str
    images: tuple[ImageResult, ...]
    external_toc: str | None = None
    """Digest of the image ``<reference>-esgztoc``."""

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "digest": self.digest,
            "mediaType": self.media_type,
            "externalToc": self.external_toc,
            "images": [image.to_json() for image in self.images],
        }
