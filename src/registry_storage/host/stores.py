"""Whether podman is told of our stores as its version needs it, and finds in them what is there."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import ConfigError, ProgramError
from ..names import CONTROL, DAEMON
from ..podman.storage_conf import IMAGE_STORES, StorageConf
from .finding import Finding, failure, ok, warning
from .podman import PodmanVersion
from .storage_lines import Stores, layer_entry, line

_MENDED_AT_START = f"systemctl restart {DAEMON}: it mends the store when it starts"


def check_storage_conf(
    load: Callable[[], StorageConf], mountpoint: Path | None, images: Path, podman: PodmanVersion | None
) -> Iterator[Finding]:
    """``storage.conf``; `mountpoint` is where the running daemon serves, if one does; `podman` None: unknown."""
    try:
        conf = load()
    except ConfigError as error:
        yield failure("storage.conf", str(error), "mend the file: podman cannot read it either")
        return
    if (conf.layer_stores or conf.image_stores) and conf.driver not in ("", "overlay"):
        said = f"{conf.path}: the driver is {conf.driver}, which knows no additional stores"
        yield failure("storage.conf", said, 'driver = "overlay"')
    needs_images = podman is not None and podman.forgets_layers
    if needs_images:
        yield from _check_that_no_layers_are_forgotten(conf, podman)
    else:
        yield from _check_layer_stores(conf, mountpoint)
    yield from _check_image_stores(conf, images, needed=needs_images)


def _check_that_no_layers_are_forgotten(conf: StorageConf, podman: PodmanVersion | None) -> Iterator[Finding]:
    for store in conf.layer_stores:
        said = f"{conf.path} names the layer store {store}, and podman {podman} does not save layers from there: "
        said += "`podman run` that pulls works once, and the next command does not find the image"
        mend = f"take it out ({CONTROL} install does, where it wrote the file), and use {CONTROL} add"
        yield failure("storage.conf", said, mend)


def _check_layer_stores(conf: StorageConf, mountpoint: Path | None) -> Iterator[Finding]:
    lines = f"[storage.options] {Stores(mountpoint or Path('MOUNTPOINT'), None).lines()[0]}"
    if not conf.layer_stores:
        missing = f"{conf.path} names no additional layer store" if conf.exists else f"{conf.path} does not exist"
        yield failure("storage.conf", missing, f"{CONTROL} install, or add {lines}")
    for store in conf.layer_stores:
        path, colon, form = store.rpartition(":")
        if not colon or form != "ref":
            said = f"{conf.path}: {store} has no :ref at its end, so podman looks for names that are not there"
            yield failure("storage.conf", said, f'write "{layer_entry(Path(store if not colon else path))}"')
        elif mountpoint is not None and Path(path) != mountpoint and len(conf.layer_stores) == 1:
            said = f"{conf.path} names {path}, but the daemon serves {mountpoint}"
            yield failure("storage.conf", said, f"make them the same: {lines}")
        else:
            yield ok("storage.conf", f"{conf.path} names {path}")


def _check_image_stores(conf: StorageConf, images: Path, *, needed: bool) -> Iterator[Finding]:
    if str(images) in conf.image_stores:
        yield ok("storage.conf", f"{conf.path} names {images}")
        return
    said = f"{conf.path} does not name the image store {images}"
    mend = f"{CONTROL} install, or add [storage.options] {line(IMAGE_STORES, str(images))}"
    try:
        added = len(_ids(images))
    except OSError:
        added = 0
    if needed:
        yield failure("storage.conf", f"{said}, and this podman has no other way to lazy images", mend)
    elif added:
        yield warning("storage.conf", f"{said}, so podman does not see the {added} images in it", mend)
    else:
        yield ok("storage.conf", f"{said}; only images that are added ({CONTROL} add) need it")


def check_image_stores(
    load: Callable[[], StorageConf], images: Path, listed_images: Callable[[], frozenset[str]]
) -> Iterator[Finding]:
    """The image stores that ``storage.conf`` names, ours at `images` also when it does not."""
    try:
        named = load().image_stores
    except ConfigError:  # said before
        named = ()
    for other in map(Path, named):
        if other != images and not other.is_dir():
            mend = "make the directory, or take it out of storage.conf"
            yield failure("image store", f"{other} does not exist: every podman command fails", mend)
    told = str(images) in named
    try:
        ids = _ids(images)
        for name in ("overlay-images/images.lock", "overlay-layers/layers.lock"):
            (images / name).stat()
    except FileNotFoundError as error:
        if told:
            said = f"{error.filename} does not exist: every podman command fails"
            yield failure("image store", said, f"systemctl start {DAEMON}: it makes the store when it starts")
        return
    except (OSError, ValueError) as error:
        said = str(error) if isinstance(error, ValueError) else f"{images}: {error.strerror}"
        yield failure("image store", said, _MENDED_AT_START)
        return
    yield ok("image store", f"{images} has {len(ids)} images")
    if told and ids:
        yield from _check_that_podman_sees(ids, listed_images)


def _check_that_podman_sees(ids: frozenset[str], listed_images: Callable[[], frozenset[str]]) -> Iterator[Finding]:
    try:
        unseen = ids - listed_images()
    except ProgramError as error:
        if "not installed" not in str(error):
            yield failure("image store", str(error), "mend what it names, else look into the daemon's log")
        return
    if unseen:
        said = f"podman does not see {len(unseen)} of the {len(ids)} added images, such as {min(unseen)[:12]}"
        yield failure("image store", said, _MENDED_AT_START)
    else:
        yield ok("image store", "podman sees every added image")


def _ids(images: Path) -> frozenset[str]:
    """Of the images that are listed under a name. Raises OSError, and ValueError for a list that cannot be read."""
    path = images / "overlay-images/images.json"
    try:
        return frozenset(image["id"] for image in json.loads(path.read_bytes()) if image.get("names"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: not a list of images: {error}") from None
