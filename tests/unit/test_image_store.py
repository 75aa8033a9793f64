"""The additional image store is readable at every moment, and after every crash."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from registry_storage.digest import Digest
from registry_storage.errors import CacheError
from registry_storage.images import files
from registry_storage.images.host import referenced_layers
from registry_storage.images.names import big_data_file, layer_id, link_name
from registry_storage.images.repair import open_store
from registry_storage.images.store import ImageStore
from tests.fakes.image_stores import check_readable, new_image, new_layer

MOUNT = Path("/mnt/store")


class Crash(BaseException):
    """The process ends here."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "images"


@pytest.fixture
def store(path: Path) -> ImageStore:
    return open_store(path, MOUNT)


def test_names_are_those_of_containers_storage() -> None:
    base, top = Digest.of(b"base"), Digest.of(b"top")
    assert layer_id(None, base) == base.hex
    assert layer_id(base.hex, top) == Digest.of(f"{base.hex}+{top.hex}".encode()).hex
    assert big_data_file("manifest") == "manifest"
    assert big_data_file("sha256:ab") == "=c2hhMjU2OmFi"
    assert len(link_name(base.hex)) == 26
    assert link_name(base.hex) != link_name(top.hex)


def test_a_new_store_is_empty_and_readable(path: Path) -> None:
    old = os.umask(0o077)
    try:
        open_store(path, MOUNT)
    finally:
        os.umask(old)
    assert check_readable(path) == {}
    for found in (path, *path.rglob("*")):
        assert found.stat().st_mode & 0o777 == (0o755 if found.is_dir() else 0o644), found


def test_a_published_image_can_be_read_and_opened_again(store: ImageStore, path: Path) -> None:
    image = new_image("docker.io/library/a:1", "base", "middle", "top")
    record = store.publish(image)
    ids = [layer.record.id for layer in image.layers]
    assert check_readable(path) == {image.name: ids}
    again = open_store(path, MOUNT)
    assert again.images == {record.id: record}
    assert [layer.id for layer in again.chain(record)] == ids
    assert again.target(ids[1]) == image.layers[1].target
    for found in path.rglob("*"):
        if not found.is_symlink():
            assert found.stat().st_mode & 0o777 == (0o755 if found.is_dir() else 0o644), found


def test_images_share_layers_and_a_name_moves_in_one_step(store: ImageStore, path: Path) -> None:
    first, second = new_image("a:1", "base", "one"), new_image("b:1", "base", "two")
    store.publish(first)
    store.publish(second)
    assert len(store.layers) == 3
    moved = new_image("a:1", "base", "three")
    store.publish(moved)
    assert check_readable(path)["a:1"] == [layer.record.id for layer in moved.layers]
    assert set(check_readable(path)) == {"a:1", "b:1"}
    assert store.unlist(()) == [], "a podman may have listed the image"
    store.drop_nameless()
    assert store.unlist(()) == [first.layers[1].record.id]
    store.discard()
    assert set(check_readable(path)) == {"a:1", "b:1"}
    assert len(list((path / "overlay").iterdir())) == 4  # three layers and l


def test_two_manifests_of_one_config_are_one_image_with_two_names(store: ImageStore, path: Path) -> None:
    gzip, zstd = new_image("a:gzip", "base", variant="gzip"), new_image("a:zstd", "base", variant="zstd")
    store.publish(gzip)
    record = store.publish(zstd)
    assert record.manifest_of("a:gzip") == Digest.of(gzip.manifest)
    assert record.manifest_of("a:zstd") == Digest.of(zstd.manifest)
    assert set(check_readable(path)) == {"a:gzip", "a:zstd"}
    store.withdraw("a:gzip")
    assert set(check_readable(path)) == {"a:zstd"}
    store.withdraw("a:zstd")
    assert check_readable(path) == {}
    assert store.drop_nameless()
    assert not store.drop_nameless()
    assert store.images == {}


def test_removing_keeps_files_until_they_are_discarded(store: ImageStore, path: Path) -> None:
    image = new_image("a:1", "base", "top")
    store.publish(image)
    assert store.withdraw("a:1") is not None
    assert store.withdraw("a:1") is None
    assert len(store.layers) == 2, "a podman that has read images.json needs them"
    stamp = (path / "overlay-images/images.lock").read_bytes()
    store.drop_nameless()
    assert (path / "overlay-images/images.lock").read_bytes() == stamp, "nobody reads the list again for that"
    store.announce()
    assert (path / "overlay-images/images.lock").read_bytes() != stamp
    base, top = (layer.record.id for layer in image.layers)
    assert store.unlist({base}) == [top], "the host builds upon the base"
    assert (path / "overlay" / top / "diff").is_symlink()
    store.discard()
    assert not (path / "overlay" / top).exists()
    store.unlist(())
    store.discard()
    assert sorted(os.listdir(path / "overlay")) == ["l"]
    assert os.listdir(path / "overlay/l") == []
    assert sorted(os.listdir(path / "overlay-images")) == ["images.json", "images.lock"]


def test_discarding_does_not_ask_where_a_link_leads(
    store: ImageStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = path / "overlay/gone"
    link.symlink_to("/a/mount/that/nobody/serves")
    look = os.stat

    def watched(target: Any, **how: Any) -> os.stat_result:
        assert how.get("follow_symlinks") is False or Path(target) != link
        return look(target, **how)

    monkeypatch.setattr(os, "stat", watched)
    store.discard()
    assert not link.is_symlink()


def test_what_was_verified_replaces_a_claim_and_not_the_other_way(store: ImageStore) -> None:
    claim = new_layer(None, "base", verified=False, blob="lazy")
    verified = new_layer(None, "base", blob="plain")
    image = new_image("a:1", "base")

    def publish(name: str, layer: object) -> None:
        store.publish(type(image)(name, image.manifest, image.config, image.created, [layer]))  # type: ignore[list-item]

    publish("a:1", claim)
    assert store.target(claim.record.id) == claim.target
    other = new_layer(None, "base", verified=False, blob="another")
    with pytest.raises(CacheError, match="both claim the diffID"):
        publish("b:1", other)
    publish("b:1", verified)
    assert store.target(claim.record.id) == verified.target
    publish("c:1", claim)
    assert store.target(claim.record.id) == verified.target
    assert store.layers[claim.record.id].verified


def test_a_layer_becomes_verified_with_its_tar_split(store: ImageStore, path: Path, tmp_path: Path) -> None:
    image = new_image("a:1", "base", verified=False)
    store.publish(image)
    split = tmp_path / "split"
    split.write_bytes(b"tar-split")
    layer = image.layers[0].record.id
    store.complete(layer, 4096, split)
    assert store.tar_split(layer).read_bytes() == b"tar-split"
    record = open_store(path, MOUNT).layers[layer]
    assert (record.verified, record.diff_size) == (True, 4096)


def _steps(store: ImageStore) -> Iterator[Callable[[], object]]:
    yield lambda: store.publish(new_image("a:1", "base", "one"))
    yield lambda: store.publish(new_image("b:1", "base", "two", "three"))
    yield lambda: store.publish(new_image("a:1", "base", "four"))
    yield lambda: store.withdraw("b:1")
    yield store.drop_nameless
    yield store.announce
    yield lambda: store.unlist(())
    yield store.discard
    yield lambda: store.publish(new_image("b:1", "base", "two", "three"))


_CHANGES = ("rename", "replace", "symlink_to", "unlink", "chmod", "mkdir")


def test_a_crash_before_any_change_leaves_a_readable_store_that_repair_makes_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call that changes a name on the disk is in turn the first one that does not happen any more."""
    count, left = itertools.count(), -1

    def counted(name: str) -> None:
        original = getattr(Path, name)

        def change(self: Path, *arguments: object, **options: object) -> object:
            if left >= 0 and next(count) >= left:
                raise Crash
            return original(self, *arguments, **options)

        monkeypatch.setattr(Path, name, change)

    for name in _CHANGES:
        counted(name)
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, lambda _: None)
    for crash_at in range(1, 2000):
        path = tmp_path / str(crash_at)
        left = -1
        store = open_store(path, MOUNT)
        count, left = itertools.count(), crash_at
        try:
            for step in _steps(store):
                step()
        except Crash:
            pass
        else:
            assert crash_at > 100
            return
        left = -1
        before = check_readable(path)
        store = open_store(path, MOUNT)
        assert check_readable(path) == before, "repair takes nothing away that was whole"
        store.drop_nameless()
        store.unlist(())
        store.discard()
        assert check_readable(path) == before
        assert set(os.listdir(path / "overlay")) == {"l", *store.needed()}
        store.publish(new_image("c:1", "base", "five"))
        assert "c:1" in check_readable(path)
    raise AssertionError("never came to the end")


@pytest.mark.parametrize("damage", ["cut", "garbage", "missing"])
def test_each_damaged_file_costs_at_most_the_images_that_need_it(path: Path, damage: str) -> None:
    store = open_store(path, MOUNT)
    store.publish(new_image("a:1", "base", "one"))
    store.publish(new_image("b:1", "other", "two"))
    victims = [found for found in sorted(path.rglob("*")) if found.is_symlink() or found.is_file()]
    assert len(victims) > 20
    for victim in victims:
        data = None if victim.is_symlink() else victim.read_bytes()
        target = victim.readlink() if data is None else None
        victim.unlink()
        if data is not None and damage == "cut":
            victim.write_bytes(data[: len(data) // 2])
        elif data is not None and damage == "garbage":
            victim.write_bytes(b"\xff" * len(data))
        store = open_store(path, MOUNT)
        left = set(check_readable(path))
        if victim.name not in ("layers.json", "images.json"):
            assert left & {"a:1", "b:1"}, victim
        for name, texts in (("a:1", ("base", "one")), ("b:1", ("other", "two"))):
            store.publish(new_image(name, *texts))
        assert set(check_readable(path)) == {"a:1", "b:1"}
        store.discard()
        assert target is None or victim.readlink() == target


def test_layers_follow_the_mount_point(path: Path) -> None:
    image = new_image("a:1", "base")
    open_store(path, MOUNT).publish(image)
    store = open_store(path, Path("/elsewhere"))
    assert store.target(image.layers[0].record.id) == image.layers[0].target
    link = store.directory(image.layers[0].record.id) / "diff"
    assert link.readlink() == Path("/elsewhere", image.layers[0].target)


_READER = """\
import fcntl, os, sys
file = os.open(sys.argv[1], os.O_RDONLY)
fcntl.lockf(file, fcntl.LOCK_SH)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_reader_that_holds_the_lock_is_waited_for(
    store: ImageStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = subprocess.Popen(
        [sys.executable, "-c", _READER, path / "overlay-images/images.lock"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"held\n"
        monkeypatch.setattr(files, "LOCK_SECONDS", 0.05)
        with pytest.raises(CacheError, match="has held the lock"):
            store.publish(new_image("a:1", "base"))
        assert check_readable(path) == {}
        assert reader.stdin is not None
        reader.stdin.close()
        reader.wait()
        store.publish(new_image("a:1", "base"))
    assert set(check_readable(path)) == {"a:1"}


def test_every_change_of_a_list_changes_its_stamp(store: ImageStore, path: Path) -> None:
    locks = [path / "overlay-layers/layers.lock", path / "overlay-images/images.lock"]
    before = [lock.read_bytes() for lock in locks]
    store.publish(new_image("a:1", "base"))
    after = [lock.read_bytes() for lock in locks]
    assert all(old != new for old, new in zip(before, after, strict=True))


def test_the_hosts_own_records_say_what_is_in_use(tmp_path: Path) -> None:
    graph, run = tmp_path / "graph", tmp_path / "run"
    for directory in (graph / "overlay-layers", graph / "overlay-images", run / "overlay-layers"):
        directory.mkdir(parents=True)
    (graph / "overlay-layers/layers.json").write_text(json.dumps([{"id": "x", "parent": "a"}, {"id": "y"}]))
    (run / "overlay-layers/volatile-layers.json").write_text(json.dumps([{"id": "c", "parent": "b"}]))
    images = [{"id": "i", "layer": "d", "mapped-layers": ["e"]}, {"id": "j"}]
    (graph / "overlay-images/images.json").write_text(json.dumps(images))
    assert referenced_layers([graph, run, tmp_path / "missing"]) == {"a", "b", "d", "e"}
    (graph / "overlay-layers/layers.json").write_text("{")
    with pytest.raises(CacheError):
        referenced_layers([graph])
