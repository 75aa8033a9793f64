"""The store itself: written so that podman can read it at any moment, also after a crash at any moment.

    overlay/<layer id>/diff            symbolic link into the mount
    overlay/<layer id>/link, lower     its short name, and those of the layers below it
    overlay/l/<short name>             -> ../<layer id>/diff
    overlay-layers/layers.json, layers.lock, <layer id>.tar-split.gz
    overlay-images/images.json, images.lock
    overlay-images/<image id>/         manifests and config

What is listed is complete: files come before ``layers.json``, that before ``images.json``; removing goes the other
way, with a pause before anything that a podman that read the lists earlier may still need.
"""

import logging
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..digest import Digest
from ..errors import CacheError
from . import files, names
from .records import ImageRecord, LayerRecord, chain_of, pack

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NewLayer:
    """A layer that can be read at `target`."""

    record: LayerRecord
    target: str
    """Its directory below the mount point."""
    tar_split: Path | None = None
    """A gzip file with the layer's tar-split; there where the record is verified, unless it cannot be made."""


@dataclass(frozen=True, slots=True)
class NewImage:
    """What is published under `name`; `layers` from the base up, at least one."""

    name: str
    manifest: bytes
    config: bytes
    created: str
    layers: Sequence[NewLayer]


class ImageStore:
    """The directory `path`, whose layers are below `mountpoint`. One thread at a time; blocks.

    `repair.open_store` makes it. Raises OSError and CacheError.
    """

    def __init__(
        self, path: Path, mountpoint: Path, images: Iterable[ImageRecord], layers: Iterable[LayerRecord]
    ) -> None:
        self.path = path
        self.mountpoint = mountpoint
        self.images: dict[str, ImageRecord] = {image.id: image for image in images}
        """By id; like `layers`, what the lists on disk say."""
        self.layers: dict[str, LayerRecord] = {layer.id: layer for layer in layers}

    # What is there

    def find(self, name: str) -> ImageRecord | None:
        """The image of that name."""
        return next((image for image in self.images.values() if image.manifest_of(name)), None)

    def chain(self, image: ImageRecord) -> list[LayerRecord]:
        """Its layers from the base up."""
        return chain_of(image.layer, self.layers) or []

    def target(self, layer: str) -> str:
        """Where in the mount the layer is. Raises CacheError when it is not below our mount point."""
        found = os.readlink(self.directory(layer) / "diff")
        prefix = f"{self.mountpoint}/"
        if not found.startswith(prefix):
            raise CacheError(f"{self.directory(layer) / 'diff'}: leads to {found}, not into {self.mountpoint}")
        return found.removeprefix(prefix)

    def directory(self, layer: str) -> Path:
        """Of a layer."""
        return self.path / "overlay" / layer

    def tar_split(self, layer: str) -> Path:
        """A layer's tar-split."""
        return self.path / "overlay-layers" / f"{layer}.tar-split.gz"

    def big_data(self, image: str) -> Path:
        """The directory of an image's documents."""
        return self.path / "overlay-images" / image

    # Adding

    def publish(self, image: NewImage) -> ImageRecord:
        """Add the image, or move its name to it; what else has the same config keeps its names."""
        record = self._record(image)
        for layer in image.layers:
            self._write_layer(layer)
        self._write_documents(record, image)
        layers = self.layers | {
            layer.record.id: layer.record for layer in image.layers if not self._is_kept(layer.record)
        }
        if layers != self.layers:
            self.list_layers(layers)
        images = {key: value for key, value in self._without(image.name).items() if key != record.id}
        self.list_images(images | {record.id: record})
        return record

    def _record(self, image: NewImage) -> ImageRecord:
        manifest, config = Digest.of(image.manifest), Digest.of(image.config)
        old = self.images.get(config.hex)
        named = dict(old.names) if old else {}
        manifests = dict(old.manifests) if old else {}
        return ImageRecord(
            config,
            tuple((named | {image.name: manifest}).items()),
            tuple((manifests | {manifest: len(image.manifest)}).items()),
            len(image.config),
            image.layers[-1].record.id,
            image.created,
        )

    def _is_kept(self, new: LayerRecord) -> bool:
        """Whether a layer that is listed under the same id stays what it is."""
        old = self.layers.get(new.id)
        if old is None:
            return False
        if old.verified:
            return True
        if new.verified:
            return False
        if (old.layer_digest, old.toc_digest) != (new.layer_digest, new.toc_digest):
            raise CacheError(
                f"layer {new.id}: {old.layer_digest} and {new.layer_digest} both claim the diffID {new.diff_id}, "
                "and neither is verified"
            )
        return True

    def _write_layer(self, layer: NewLayer) -> None:
        record = layer.record
        if self._is_kept(record):
            return
        directory, link = self.directory(record.id), names.link_name(record.id)
        target = f"{self.mountpoint}/{layer.target}"
        if layer.tar_split is not None:
            files.write_durably(self.tar_split(record.id), layer.tar_split.read_bytes())
        new = directory if directory.exists() else directory.with_name(f".{record.id}{files.NEW}")
        files.make_directory(new)
        files.link_durably(new / "diff", target)
        files.write_durably(new / "link", link.encode())
        if record.parent is not None:
            files.write_durably(new / "lower", self._lower(record.parent).encode())
        if new != directory:
            new.rename(directory)
            files.sync_directory(directory.parent)
        files.link_durably(self.path / "overlay/l" / link, f"../{record.id}/diff")

    def _lower(self, parent: str) -> str:
        """The short names of `parent` and everything below it, which is written already."""
        below = self.directory(parent) / "lower"
        more = below.read_text().split(":") if below.exists() else []
        return ":".join([f"l/{names.link_name(parent)}", *more])

    def _write_documents(self, record: ImageRecord, image: NewImage) -> None:
        directory = self.big_data(record.id)
        files.make_directory(directory)
        contents = {Digest.of(data): data for data in (image.manifest, image.config)}
        for key, (digest, _) in record.big_data().items():
            if digest in contents:
                files.write_durably(directory / names.big_data_file(key), contents[digest])
        files.sync_directory(directory.parent)

    def complete(self, layer: str, tar_size: int, tar_split: Path | None) -> None:
        """The layer's tar of `tar_size` bytes was hashed as a whole, and matched."""
        if tar_split is not None:
            files.write_durably(self.tar_split(layer), tar_split.read_bytes())
        self.list_layers(self.layers | {layer: replace(self.layers[layer], verified=True, diff_size=tar_size)})

    # Removing

    def withdraw(self, name: str) -> ImageRecord | None:
        """Take a name away; None when there is no such name.

        Without its last name an image stays listed until `drop_nameless`: podman lists images first, and asks
        for each by its id afterwards.
        """
        image = self.find(name)
        if image is not None:
            self.list_images(self._without(name))
        return image

    def _without(self, name: str) -> dict[str, ImageRecord]:
        return {
            key: replace(image, names=tuple(pair for pair in image.names if pair[0] != name))
            if image.manifest_of(name)
            else image
            for key, image in self.images.items()
        }

    def drop_nameless(self) -> bool:
        """Take images without a name off the list; whether there were any.

        The stamp stays: a podman that has listed them does not read the list again, and finds them. Give it the
        time to end before anything else is written, then call `announce`.
        """
        images = {key: image for key, image in self.images.items() if image.names}
        if len(images) == len(self.images):
            return False
        self._write_images(images)
        return True

    def announce(self) -> None:
        """Those who live long read the list of images again."""
        with files.stamped(self.path / "overlay-images/images.lock"):
            pass

    def needed(self) -> set[str]:
        """Ids of the layers of images."""
        return {layer.id for image in self.images.values() for layer in self.chain(image)}

    def unlist(self, in_use: Collection[str]) -> list[str]:
        """Take layers off the list that no image has, and nothing in `in_use` or above them needs."""
        kept = self.needed()
        for layer in in_use:
            kept |= {record.id for record in chain_of(layer, self.layers) or ()}
        gone = [layer for layer in self.layers if layer not in kept]
        if gone:
            self.list_layers({key: value for key, value in self.layers.items() if key in kept})
        return gone

    def discard(self) -> None:
        """Remove every file of layers and images that are not listed."""
        self._keep_only("overlay", {*self.layers, "l"})
        self._keep_only("overlay/l", {names.link_name(layer) for layer in self.layers})
        splits = {self.tar_split(layer).name for layer in self.layers}
        self._keep_only("overlay-layers", {"layers.json", "layers.lock", *splits})
        self._keep_only("overlay-images", {"images.json", "images.lock", *self.images})
        for image in self.images.values():
            self._keep_only(f"overlay-images/{image.id}", {names.big_data_file(key) for key in image.big_data()})

    def _keep_only(self, directory: str, kept: set[str]) -> None:
        for path in (self.path / directory).iterdir():
            if path.name not in kept:
                files.remove_tree(path)

    # Lists

    def list_layers(self, layers: dict[str, LayerRecord]) -> None:
        """Replace the list of layers; readers see the old one or the new one."""
        directory = self.path / "overlay-layers"
        with files.stamped(directory / "layers.lock"):
            files.write_durably(directory / "layers.json", pack(layers.values()))
        self.layers = layers

    def list_images(self, images: dict[str, ImageRecord]) -> None:
        """Replace the list of images."""
        with files.stamped(self.path / "overlay-images/images.lock"):
            self._write_images(images)

    def _write_images(self, images: dict[str, ImageRecord]) -> None:
        files.write_durably(self.path / "overlay-images/images.json", pack(images.values()))
        self.images = images
