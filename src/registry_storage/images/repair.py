"""Opens the store, after whatever happened to it: what is listed afterwards is complete, and nothing else is there."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from ..digest import Digest
from ..errors import CacheError, InvalidDocumentError
from . import files, names
from .records import ImageRecord, LayerRecord, chain_of, pack, parse_images, parse_layers
from .store import ImageStore

_log = logging.getLogger(__name__)

T = TypeVar("T")


def open_store(path: Path, mountpoint: Path) -> ImageStore:
    """The store at `path`, made when missing, with layers below `mountpoint` wherever they were before.

    An entry that is not complete makes podman refuse every image, so an image that lost something is taken off the
    list, with a warning. What no list names is left for `ImageStore.discard`: a podman may be about to use it.
    Raises OSError and CacheError.
    """
    make_store(path)
    layers = _load(path / "overlay-layers/layers.json", parse_layers)
    images = _load(path / "overlay-images/images.json", parse_images)
    store = ImageStore(path, mountpoint, images, layers)
    for layer in layers:
        _mend_layer(store, layer)
    broken = {layer.id: problem for layer in layers if (problem := _problem_of_layer(store, layer))}
    sound = {layer.id: layer for layer in layers if layer.id not in broken}
    whole = {layer: record for layer, record in sound.items() if chain_of(layer, sound) is not None}
    kept = [image for image in images if not _lost(store, image, whole, broken)]
    if len(kept) < len(images):
        store.list_images({image.id: image for image in kept})
    if len(whole) < len(layers):
        store.list_layers(whole)
    return store


def make_store(path: Path) -> None:
    """What an empty store has, where it is missing: podman refuses every command for a store without it."""
    for directory in ("", "overlay", "overlay/l", "overlay-layers", "overlay-images"):
        files.make_directory(path / directory)
    files.make_lock(path / "overlay-layers/layers.lock")
    files.make_lock(path / "overlay-images/images.lock")
    for name in ("overlay-layers/layers.json", "overlay-images/images.json"):
        if not (path / name).exists():
            files.write_durably(path / name, pack(()))


def _load(path: Path, parse: Callable[[bytes, str], list[T]]) -> list[T]:
    try:
        return parse(path.read_bytes(), str(path))
    except InvalidDocumentError as error:
        _log.error("%s; it is put aside, and the store is empty", error)
        path.replace(path.with_name(f"{path.name}.broken"))
        files.write_durably(path, pack(()))
        return []


def _mend_layer(store: ImageStore, layer: LayerRecord) -> None:
    """Write again what follows from the list, and let the layer lead to where the mount is now."""
    directory, link = store.directory(layer.id), names.link_name(layer.id)
    if not directory.is_dir():
        return
    chain = chain_of(layer.id, store.layers)
    wanted = {"link": link}
    if chain is not None and len(chain) > 1:
        wanted["lower"] = ":".join(f"l/{names.link_name(below.id)}" for below in chain[-2::-1])
    for name, text in wanted.items():
        path = directory / name
        if not path.is_file() or path.read_text("utf-8", "replace") != text:
            files.write_durably(path, text.encode())
    short = store.path / "overlay/l" / link
    if not short.is_symlink() or str(short.readlink()) != f"../{layer.id}/diff":
        files.link_durably(short, f"../{layer.id}/diff")
    diff = directory / "diff"
    if diff.is_symlink():
        old = diff.readlink()
        new = store.mountpoint.joinpath(*old.parts[-3:])
        if old != new:
            files.link_durably(diff, str(new))


def _problem_of_layer(store: ImageStore, layer: LayerRecord) -> str:
    try:
        store.target(layer.id)
    except (OSError, CacheError) as error:
        return str(error)
    return ""


def _lost(
    store: ImageStore, image: ImageRecord, layers: dict[str, LayerRecord], broken: dict[str, str]
) -> bool:
    chain = chain_of(image.layer, store.layers) or []
    problems = [f"layer {record.id}: {broken[record.id]}" for record in chain if record.id in broken]
    if image.layer not in layers and not problems:
        problems = [f"layer {image.layer} or one below it is not listed"]
    problems += _problems_of_documents(store, image)
    if problems:
        _log.warning(
            "image %s is taken out of the image store; add it again: %s",
            ", ".join(name for name, _ in image.names), problems[0],
        )  # fmt: skip
    return bool(problems)


def _problems_of_documents(store: ImageStore, image: ImageRecord) -> Iterable[str]:
    directory = store.big_data(image.id)
    data = {key: digest for key, (digest, _) in image.big_data().items()}
    for key, digest in data.items():
        path = directory / names.big_data_file(key)
        if _digest_of(path) == digest:
            continue
        # Each manifest is there under two names when it is the first.
        twin = next((other for other in data if other != key and data[other] == digest), None)
        other_path = directory / names.big_data_file(twin) if twin is not None else None
        if other_path is not None and _digest_of(other_path) == digest:
            files.write_durably(path, other_path.read_bytes())
            continue
        yield f"{path} is not there or damaged"


def _digest_of(path: Path) -> Digest | None:
    try:
        return Digest.of(path.read_bytes())
    except OSError:
        return None
