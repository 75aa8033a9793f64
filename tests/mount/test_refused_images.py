"""An image that is not what its digests say, or that nobody honest made, is refused with one line, without a trace."""

import gzip
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from registry_storage.convert.documents import OCI_CONFIG, OCI_GZIP_LAYER
from registry_storage.descriptor import OCI_INDEX, OCI_MANIFEST
from registry_storage.digest import Digest
from tests.fakes import tar_images
from tests.fakes.image_stores import check_readable
from tests.fakes.images import KINDS, File, build_layer
from tests.fakes.registry import FakeRegistry

from .conftest import Daemon
from .test_added_images import FILES, added, ctl, running, store, trees

__all__ = ["running"]
REPOSITORY = "team/bad"
TAR = tar_images.tar({"a": b"a" * 10_000})
BLOB = gzip.compress(TAR, mtime=0)


@dataclass
class Image:
    """One that can be bent before it is put into the registry."""

    registry: FakeRegistry
    tag: str = "v1"
    layers: list[dict[str, Any]] = field(default_factory=list)
    diff_ids: object = field(default_factory=lambda: [str(Digest.of(TAR))])
    more: dict[str, Any] = field(default_factory=dict)
    manifest: bytes = b""

    def layer(self, blob: bytes = BLOB) -> dict[str, Any]:
        """One more; its descriptor."""
        self.layers.append(tar_images.describe(self.registry, REPOSITORY, blob, OCI_GZIP_LAYER))
        return self.layers[-1]

    def serve(self, digest: str, blob: bytes) -> None:
        """The registry has this instead of what the digest says."""
        self.registry.blobs[REPOSITORY, digest] = blob

    def config(self, document: object) -> dict[str, Any]:
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        return tar_images.describe(self.registry, REPOSITORY, data, OCI_CONFIG)

    def put(self) -> Digest:
        rootfs = {"type": "layers", "diff_ids": self.diff_ids}
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": self.config({"architecture": "amd64", "os": "linux", "rootfs": rootfs}),
            "layers": self.layers,
        } | self.more
        self.manifest = json.dumps(manifest).encode()
        return self.registry.put_manifest(REPOSITORY, "v1", self.manifest, OCI_MANIFEST)


# What is wrong with each, and what is said of it.


def blob_of_other_bytes(image: Image) -> str:
    image.serve(image.layer()["digest"], gzip.compress(TAR, mtime=1))
    return "the blob: wanted sha256:"


def blob_cut_off(image: Image) -> str:
    image.serve(image.layer()["digest"], BLOB[:-20])
    return ""


def blob_with_more_behind_it(image: Image) -> str:
    image.serve(image.layer()["digest"], BLOB + b"more")
    return ""


def blob_smaller_than_the_manifest_says(image: Image) -> str:
    image.layer()["size"] += 1
    return ""


def blob_larger_than_the_manifest_says(image: Image) -> str:
    image.layer()["size"] -= 1
    return ""


def blob_that_is_missing(image: Image) -> str:
    image.layer()["digest"] = str(Digest.of(b"missing"))
    return "404"


def diff_id_of_another_tar(image: Image) -> str:
    image.layer()
    image.diff_ids = [str(Digest.of(b"other"))]
    return "the diffID of its tar: wanted sha256:"


def too_many_diff_ids(image: Image) -> str:
    image.layer()
    image.diff_ids = [str(Digest.of(TAR))] * 2
    return "wanted 1 diff_ids, got 2"


def too_few_diff_ids(image: Image) -> str:
    image.layer()
    image.diff_ids = []
    return "wanted 1 diff_ids, got 0"


def diff_ids_of_another_kind(image: Image) -> str:
    image.layer()
    image.diff_ids = {"0": "sha256:0"}
    return "diff_ids"


def diff_id_that_is_no_digest(image: Image) -> str:
    image.layer()
    image.diff_ids = ["sha256:0"]
    return "diff_ids"


def config_without_diff_ids(image: Image) -> str:
    image.layer()
    image.more["config"] = image.config({"architecture": "amd64", "os": "linux"})
    return "rootfs"


def config_that_is_not_json(image: Image) -> str:
    image.layer()
    image.more["config"] = image.config(b"\x00 not json")
    return "config"


def config_of_other_bytes(image: Image) -> str:
    image.layer()
    image.more["config"] = config = image.config({"os": "linux", "rootfs": {"diff_ids": [str(Digest.of(TAR))]}})
    image.serve(config["digest"], json.dumps({"os": "plan9", "rootfs": {"diff_ids": [str(Digest.of(TAR))]}}).encode())
    return "wanted sha256:"


def manifest_of_another_digest(image: Image) -> str:
    image.layer()
    image.tag = f"@{Digest.of(b'other')}"
    image.put()
    image.registry.manifests[REPOSITORY, str(Digest.of(b"other"))] = (OCI_MANIFEST, image.manifest)
    return "wanted sha256:"


def index_to_a_manifest_of_other_bytes(image: Image) -> str:
    image.layer()
    digest = image.put()
    entry = {"mediaType": OCI_MANIFEST, "digest": str(digest), "size": len(image.manifest),
             "platform": {"os": "linux", "architecture": "amd64"}}  # fmt: skip
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}).encode()
    image.registry.put_manifest(REPOSITORY, "index", index, OCI_INDEX)
    image.registry.manifests[REPOSITORY, str(digest)] = (OCI_MANIFEST, image.manifest[:-1] + b" ")
    image.tag = "index"
    return "wanted sha256:"


def manifest_without_layers(image: Image) -> str:
    return "without layers"


def hostile_tar(image: Image) -> str:
    tar = tar_images.tar({"../../escape": b"x"})
    image.layer(gzip.compress(tar, mtime=0))
    image.diff_ids = [str(Digest.of(tar))]
    return "'../../escape'"


def foreign_layer(image: Image) -> str:
    image.layer()["urls"] = ["https://elsewhere.example/blob"]
    return "foreign"


def toc_of_other_bytes(image: Image, kind: str) -> str:
    built = build_layer([File("a", b"a" * 10_000)], kind)
    changed = bytearray(built.blob)
    changed[built.toc_offset + 12] ^= 1
    image.serve(_lazy(image, built)["digest"], bytes(changed))
    return "TOC"


def hostile_toc(image: Image, kind: str) -> str:
    _lazy(image, build_layer([File("a/../../escape", b"a" * 10_000)], kind))
    return "a path with '..'"


def _lazy(image: Image, built: Any) -> dict[str, Any]:
    layer = image.layer(built.blob)
    layer["mediaType"], layer["annotations"] = built.descriptor.media_type, dict(built.descriptor.annotations)
    return layer


PLAIN: list[Callable[[Image], str]] = [
    blob_of_other_bytes, blob_cut_off, blob_with_more_behind_it, blob_smaller_than_the_manifest_says,
    blob_larger_than_the_manifest_says, blob_that_is_missing, diff_id_of_another_tar, too_many_diff_ids,
    too_few_diff_ids, diff_ids_of_another_kind, diff_id_that_is_no_digest, config_without_diff_ids,
    config_that_is_not_json, config_of_other_bytes, manifest_of_another_digest, index_to_a_manifest_of_other_bytes,
    manifest_without_layers, hostile_tar, foreign_layer,
]  # fmt: skip


def test_what_is_wrong_is_refused_with_one_line_and_leaves_nothing(running: Daemon, registry: FakeRegistry) -> None:
    for bend in PLAIN:
        image = Image(registry)
        words = bend(image)
        if not image.manifest:
            image.put()
        _refused(running, image, words, bend.__name__)


@pytest.mark.parametrize("kind", KINDS)
def test_a_lazy_layer_that_is_wrong_is_refused_in_the_same_way(
    running: Daemon, registry: FakeRegistry, kind: str
) -> None:
    for bend in (toc_of_other_bytes, hostile_toc):
        image = Image(registry)
        words = bend(image, kind)
        image.put()
        _refused(running, image, words, bend.__name__)


def _refused(daemon: Daemon, image: Image, words: str, why: str) -> None:
    name = f"{image.registry.host}/{REPOSITORY}{image.tag if image.tag[0] == '@' else f':{image.tag}'}"
    said = ctl(daemon, "add", name)
    assert said.returncode == 1, (why, said)
    assert said.stderr.startswith(f"{name}: "), (why, said)
    assert said.stderr.count("\n") == 1, (why, said)
    assert words in said.stderr, (why, said)
    assert check_readable(store(daemon)) == {}, why
    assert os.listdir(store(daemon) / "overlay") == ["l"], why
    assert sorted(os.listdir(store(daemon) / "overlay-images")) == ["images.json", "images.lock"], why
    assert os.listdir(daemon.root / "layers") == [], why
    assert os.listdir(daemon.mountpoint) == [], why


def test_of_an_image_with_one_bad_layer_nothing_is_seen_and_what_was_there_stays(
    running: Daemon, registry: FakeRegistry
) -> None:
    tar_images.put_image(registry, FILES)
    name = f"{registry.host}/team/app:v1"
    added(running, name)
    before = check_readable(store(running))
    tar_images.put_image(registry, [*FILES, {"new": b"new" * 1000}])
    last = max(registry.blobs, key=lambda key: list(registry.blobs).index(key))
    registry.blobs[last] = registry.blobs[last][:-4] + b"\0" * 4
    said = ctl(running, "refresh", name)
    assert said.returncode == 1
    assert said.stderr.splitlines()[-1].startswith(f"{name}: layer sha256:"), said
    assert check_readable(store(running)) == before
    assert [(tree / "etc/name").read_bytes() for tree in trees(running, name)] == [b"base", b"top"]
