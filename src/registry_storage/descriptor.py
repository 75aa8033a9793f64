"""Descriptors, manifests, indexes and image configs of the OCI image specification and of docker's schema 2."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .digest import Digest
from .errors import InvalidDigestError, InvalidDocumentError

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEXES = frozenset({OCI_INDEX, DOCKER_INDEX})

MAX_MANIFEST_BYTES = 4 << 20
"""Registries refuse larger ones (distribution specification, "Pushing Manifests")."""
MAX_CONFIG_BYTES = 16 << 20
MAX_LAYERS = 1024
MAX_BLOB_BYTES = 1 << 44

_MOST_NAMED = 16
"""Platforms in one message."""


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image runs on (image-index.md)."""

    os: str
    architecture: str
    variant: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Platform":
        """``os/architecture[/variant]``; raises InvalidDocumentError."""
        parts = text.split("/")
        if len(parts) not in (2, 3) or not all(parts):
            raise InvalidDocumentError(f"platform: wanted os/architecture[/variant], got {text!r}")
        return cls(*parts)

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Points at a blob or a manifest (descriptor.md)."""

    media_type: str
    digest: Digest
    size: int
    """Bytes of what it points at."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    platform: Platform | None = None
    urls: tuple[str, ...] = ()
    """Where the blob may also be had; foreign layers are nowhere else."""

    @classmethod
    def from_json(cls, value: object, what: str) -> "Descriptor":
        """From a parsed JSON object; `what` names it in errors. Raises InvalidDocumentError."""
        document = _mapping(value, what)
        try:
            digest = Digest.parse(_string(document.get("digest"), f"{what}: digest"))
        except InvalidDigestError as error:
            raise InvalidDocumentError(f"{what}: {error}") from None
        size = document.get("size")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MAX_BLOB_BYTES:
            raise InvalidDocumentError(f"{what}: size: wanted 0 to {MAX_BLOB_BYTES}, got {size!r:.100}")
        given = document.get("annotations")
        annotations = {
            key: _string(text, f"{what}: annotation {key!r:.100}")
            for key, text in _mapping({} if given is None else given, f"{what}: annotations").items()
        }
        platform = document.get("platform")
        return cls(
            media_type=_string(document.get("mediaType", ""), f"{what}: mediaType"),
            digest=digest,
            size=size,
            annotations=annotations,
            platform=None if platform is None else _platform(platform, f"{what}: platform"),
            urls=tuple(_string(url, f"{what}: url") for url in _list(document.get("urls") or [], what)),
        )


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image of one platform (manifest.md)."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    """Base layer first."""

    @classmethod
    def parse(cls, data: bytes, what: str) -> "Manifest":
        """Raises InvalidDocumentError."""
        document = load_json(data, what)
        layers = _list(document.get("layers"), f"{what}: layers")
        if len(layers) > MAX_LAYERS:
            raise InvalidDocumentError(f"{what}: layers: wanted at most {MAX_LAYERS}, got {len(layers)}")
        return cls(
            config=Descriptor.from_json(document.get("config"), f"{what}: config"),
            layers=tuple(Descriptor.from_json(layer, f"{what}: layer {i}") for i, layer in enumerate(layers)),
        )


@dataclass(frozen=True, slots=True)
class Index:
    """Manifests of several platforms (image-index.md)."""

    manifests: tuple[Descriptor, ...]

    @classmethod
    def parse(cls, data: bytes, what: str) -> "Index":
        """Raises InvalidDocumentError."""
        manifests = _list(load_json(data, what).get("manifests"), f"{what}: manifests")
        return cls(tuple(Descriptor.from_json(item, f"{what}: manifest {i}") for i, item in enumerate(manifests)))

    def select(self, wanted: Platform) -> Descriptor | None:
        """The first manifest for `wanted`; a variant counts only where both sides name one."""
        for descriptor in self.manifests:
            got = descriptor.platform
            if got is None or (got.os, got.architecture) != (wanted.os, wanted.architecture):
                continue
            if got.variant and wanted.variant and got.variant != wanted.variant:
                continue
            return descriptor
        return None

    def lacks(self, *wanted: Platform) -> str:
        """In words, for a message: what it has instead of `wanted`."""
        known = [str(one.platform) for one in self.manifests if one.platform and one.platform.os]
        more = " …" if len(known) > _MOST_NAMED else ""
        has = ", ".join(known[:_MOST_NAMED]) or "none that names a platform"
        return f"the index has no image for {', '.join(map(str, wanted))}; it has {has}{more}"


def parse_diff_ids(config: bytes, what: str) -> tuple[Digest, ...]:
    """The ``rootfs.diff_ids`` of an image config (config.md), base layer first. Raises InvalidDocumentError."""
    rootfs = _mapping(load_json(config, what).get("rootfs"), f"{what}: rootfs")
    diff_ids = _list(rootfs.get("diff_ids"), f"{what}: diff_ids")
    try:
        return tuple(Digest.parse(_string(text, f"{what}: diff_ids")) for text in diff_ids)
    except InvalidDigestError as error:
        raise InvalidDocumentError(f"{what}: diff_ids: {error}") from None


def load_json(data: bytes, what: str) -> dict[str, Any]:
    """A JSON object; raises InvalidDocumentError."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidDocumentError(f"{what}: not JSON: {error}") from None
    return _mapping(document, what)


def _mapping(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidDocumentError(f"{what}: wanted an object, got {type(value).__name__}")
    return value


def _list(value: object, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidDocumentError(f"{what}: wanted an array, got {type(value).__name__}")
    return value


def _string(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise InvalidDocumentError(f"{what}: wanted a string, got {type(value).__name__}")
    return value


def _platform(value: object, what: str) -> Platform:
    document = _mapping(value, what)
    return Platform(
        os=_string(document.get("os", ""), f"{what}: os"),
        architecture=_string(document.get("architecture", ""), f"{what}: architecture"),
        variant=_string(document["variant"], f"{what}: variant") if document.get("variant") else None,
    )
