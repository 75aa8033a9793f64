"""What stands in ``layers.json`` and ``images.json`` (containers/storage, layers.go and images.go)."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..digest import Digest
from ..errors import InvalidDocumentError
from .names import MANIFEST_KEY, manifest_key

_OURS = "registry-storage"
"""A key of our own in each record; containers-storage skips keys that it does not know."""


@dataclass(frozen=True, slots=True)
class LayerRecord:
    """A layer in the store."""

    id: str
    parent: str | None
    created: str
    """RFC 3339, UTC."""
    layer_digest: Digest
    layer_size: int
    """Bytes of the blob."""
    diff_id: Digest
    diff_size: int
    """Bytes of the tar, or of the files where that is not known."""
    compression: int
    toc_digest: Digest
    """Of the TOC that describes the tree; the layer digest where the tree was made from the tar itself."""
    verified: bool = False
    """The whole tar was hashed, and its digest is the diffID."""

    def to_json(self) -> dict[str, Any]:
        """As containers-storage reads it."""
        document: dict[str, Any] = {"id": self.id}
        if self.parent is not None:
            document["parent"] = self.parent
        return document | {
            "created": self.created,
            "compressed-diff-digest": str(self.layer_digest),
            "compressed-size": self.layer_size,
            "diff-digest": str(self.diff_id),
            "diff-size": self.diff_size,
            "compression": self.compression,
            _OURS: {"toc-digest": str(self.toc_digest), "verified": self.verified},
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "LayerRecord":
        """What `to_json` made. Raises KeyError, TypeError, ValueError."""
        return cls(
            id=Digest.parse(f"sha256:{document['id']}").hex,
            parent=document.get("parent"),
            created=document["created"],
            layer_digest=Digest.parse(document["compressed-diff-digest"]),
            layer_size=int(document["compressed-size"]),
            diff_id=Digest.parse(document["diff-digest"]),
            diff_size=int(document["diff-size"]),
            compression=int(document["compression"]),
            toc_digest=Digest.parse(document[_OURS]["toc-digest"]),
            verified=bool(document[_OURS]["verified"]),
        )


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """An image in the store: one config, and the manifests that lead to it."""

    config_digest: Digest
    names: tuple[tuple[str, Digest], ...]
    """Each reference with the manifest that it is pinned to; none: it is removed, and podmans may have listed it."""
    manifests: tuple[tuple[Digest, int], ...]
    """Every manifest that a name was ever pinned to, with its bytes; the first one stays the image's own."""
    config_size: int
    layer: str
    """Id of the top layer."""
    created: str

    @property
    def id(self) -> str:
        """The image's id."""
        return self.config_digest.hex

    def manifest_of(self, name: str) -> Digest | None:
        """The manifest that `name` is pinned to."""
        return dict(self.names).get(name)

    def big_data(self) -> dict[str, tuple[Digest, int]]:
        """Keys, and digest and bytes of what they hold."""
        return {
            str(self.config_digest): (self.config_digest, self.config_size),
            MANIFEST_KEY: self.manifests[0],
            **{manifest_key(digest): (digest, size) for digest, size in self.manifests},
        }

    def to_json(self) -> dict[str, Any]:
        """As containers-storage reads it."""
        data = self.big_data()
        signatures: dict[str, list[int]] = {str(digest): [] for digest, _ in self.manifests}
        return {
            "id": self.id,
            "digest": str(self.manifests[0][0]),
            "names": [name for name, _ in self.names],
            "layer": self.layer,
            "metadata": json.dumps({"signatures-sizes": signatures}),
            "big-data-names": list(data),
            "big-data-sizes": {key: size for key, (_, size) in data.items()},
            "big-data-digests": {key: str(digest) for key, (digest, _) in data.items()},
            "created": self.created,
            _OURS: {name: str(digest) for name, digest in self.names},
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "ImageRecord":
        """What `to_json` made. Raises KeyError, TypeError, ValueError."""
        config = Digest.parse(f"sha256:{document['id']}")
        names = tuple((str(name), Digest.parse(document[_OURS][name])) for name in document["names"])
        sizes = document["big-data-sizes"]
        manifests = tuple(
            (Digest.parse(text), int(sizes[key]))
            for key, text in document["big-data-digests"].items()
            if key not in (str(config), MANIFEST_KEY)
        )
        known = {digest for digest, _ in manifests}
        if not known or not all(digest in known for _, digest in names):
            raise ValueError("an image or a name without a manifest")
        layer = Digest.parse(f"sha256:{document['layer']}").hex
        return cls(config, names, manifests, int(sizes[str(config)]), layer, document["created"])


def chain_of(top: str, layers: Mapping[str, LayerRecord]) -> list[LayerRecord] | None:
    """The layers of an image from the base up; None when one is missing."""
    chain: list[LayerRecord] = []
    at: str | None = top
    while at is not None:
        record = layers.get(at)
        if record is None or len(chain) > len(layers):
            return None
        chain.append(record)
        at = record.parent
    return chain[::-1]


def pack(records: Iterable[LayerRecord | ImageRecord]) -> bytes:
    """The file that holds `records`."""
    return json.dumps([record.to_json() for record in records]).encode()


def parse_layers(data: bytes, what: str) -> list[LayerRecord]:
    """The records of a ``layers.json`` that we wrote. Raises InvalidDocumentError."""
    return [_parsed(LayerRecord.from_json, item, what) for item in _array(data, what)]


def parse_images(data: bytes, what: str) -> list[ImageRecord]:
    """The records of an ``images.json`` that we wrote. Raises InvalidDocumentError."""
    return [_parsed(ImageRecord.from_json, item, what) for item in _array(data, what)]


def _array(data: bytes, what: str) -> Sequence[Any]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidDocumentError(f"{what}: not JSON: {error}") from None
    if not isinstance(document, list):
        raise InvalidDocumentError(f"{what}: wanted an array, got {type(document).__name__}")
    return document


def _parsed(parse: Any, item: object, what: str) -> Any:
    try:
        return parse(item)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidDocumentError(f"{what}: a record that is not ours: {error}") from None
