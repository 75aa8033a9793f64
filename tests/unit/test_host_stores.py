"""What doctor says of storage.conf and of the stores that it names, and how our lines get into it."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from registry_storage.errors import ConfigError, ProgramError
from registry_storage.host import stores
from registry_storage.host.finding import Finding, Level
from registry_storage.host.podman import PodmanVersion
from registry_storage.host.storage_lines import Stores, with_stores
from registry_storage.images.repair import make_store
from registry_storage.podman.storage_conf import StorageConf, place
from tests.unit.test_host_local import only

MOUNTPOINT = Path("/var/lib/registry-storage/store")
IMAGES = Path("/var/lib/registry-storage/images")
BOTH = Stores(MOUNTPOINT, IMAGES)
OLD, NEW = PodmanVersion(5, 4, 2), PodmanVersion(5, 8, 6)


def conf(
    tmp_path: Path, text: str, *, images: Path = IMAGES, podman: PodmanVersion | None = OLD
) -> Sequence[Finding]:
    path = tmp_path / "storage.conf"
    path.write_text(text)
    load = lambda: StorageConf.load({"CONTAINERS_STORAGE_CONF": str(path)})  # noqa: E731
    return list(stores.check_storage_conf(load, MOUNTPOINT, images, podman))


def storage(layers: str | None, driver: str = "overlay", images: Path | None = IMAGES) -> str:
    lines = [f'[storage]\ndriver = "{driver}"\n[storage.options]']
    lines += [f'additionallayerstores = ["{layers}"]'] if layers else []
    lines += [f'additionalimagestores = ["{images}"]'] if images else []
    return "\n".join(lines) + "\n"


def all_ok(findings: Iterable[Finding]) -> bool:
    return {finding.level for finding in findings} == {Level.OK}


# storage.conf.


def test_a_right_storage_conf(tmp_path: Path) -> None:
    assert all_ok(conf(tmp_path, storage(f"{MOUNTPOINT}:ref")))


@pytest.mark.parametrize(
    ("text", "said", "mend"),
    [
        (storage(str(MOUNTPOINT)), "has no :ref at its end", f'write "{MOUNTPOINT}:ref"'),
        (storage("/elsewhere:ref"), f"names /elsewhere, but the daemon serves {MOUNTPOINT}", "make them the same"),
        ('[storage]\ndriver = "overlay"\n', "names no additional layer store", "registry-storagectl install"),
        ("[storage", "not TOML", "mend the file"),
        ("x = " + "[" * 100_000, "not TOML", "mend the file"),
        ('[storage.options]\nadditionallayerstores = "x"', "wanted a list of strings", "mend the file"),
        ("[storage]\ngraphroot = 7", "graphroot: wanted a string, got 7", "mend the file"),
    ],
)
def test_a_wrong_storage_conf(tmp_path: Path, text: str, said: str, mend: str) -> None:
    found = only(conf(tmp_path, text), Level.FAILURE)
    assert said in found.said
    assert mend in found.mend


def test_a_driver_without_layer_stores(tmp_path: Path) -> None:
    found = only(conf(tmp_path, storage(f"{MOUNTPOINT}:ref", "vfs")), Level.FAILURE)
    assert "the driver is vfs" in found.said


def test_a_missing_storage_conf(tmp_path: Path) -> None:
    load = lambda: StorageConf.load({"CONTAINERS_STORAGE_CONF": str(tmp_path / "none")})  # noqa: E731
    found = only(stores.check_storage_conf(load, None, IMAGES, OLD), Level.FAILURE)
    assert "does not exist" in found.said


def test_a_storage_conf_that_is_no_file(tmp_path: Path) -> None:
    load = lambda: StorageConf.load({"CONTAINERS_STORAGE_CONF": str(tmp_path)})  # noqa: E731
    assert "not a regular file" in only(stores.check_storage_conf(load, None, IMAGES, OLD), Level.FAILURE).said


def test_users_have_a_file_of_their_own(tmp_path: Path) -> None:
    own = tmp_path / "containers/storage.conf"
    own.parent.mkdir()
    own.touch()
    assert place({"XDG_CONFIG_HOME": str(tmp_path)}, user=1000) == own


def test_a_podman_that_forgets_layers_must_not_be_told_of_the_layer_store(tmp_path: Path) -> None:
    found = only(conf(tmp_path, storage(f"{MOUNTPOINT}:ref"), podman=NEW), Level.FAILURE)
    assert "the next command does not find the image" in found.said
    assert "registry-storagectl add" in found.mend
    assert all_ok(conf(tmp_path, storage(None), podman=NEW))


def test_a_podman_that_forgets_layers_needs_the_image_store(tmp_path: Path) -> None:
    found = only(conf(tmp_path, storage(None, images=None), podman=NEW), Level.FAILURE)
    assert "no other way" in found.said
    assert f'additionalimagestores = ["{IMAGES}"]' in found.mend


def test_other_podmans_need_the_image_store_for_what_was_added(tmp_path: Path) -> None:
    text = storage(f"{MOUNTPOINT}:ref", images=None)
    store = tmp_path / "images"
    assert all_ok(conf(tmp_path, text, images=store))
    add_image(store)
    assert "does not see the 1 images" in only(conf(tmp_path, text, images=store), Level.WARNING).said


# The image store.

IMAGE = "12" * 32


def add_image(store: Path) -> None:
    make_store(store)
    text = f'[{{"id": "{IMAGE}", "names": ["localhost/app:1"]}}, {{"id": "{"34" * 32}"}}]'
    (store / "overlay-images/images.json").write_text(text)


def look(
    tmp_path: Path, store: Path, *listed: str, named: Path | None = None, error: str = ""
) -> Sequence[Finding]:
    path = tmp_path / "storage.conf"
    path.write_text(storage(None, images=named or store))

    def list_images() -> frozenset[str]:
        if error:
            raise ProgramError(error)
        return frozenset(listed)

    load = lambda: StorageConf.load({"CONTAINERS_STORAGE_CONF": str(path)})  # noqa: E731
    return list(stores.check_image_stores(load, store, list_images))


def test_an_image_store_that_podman_sees(tmp_path: Path) -> None:
    store = tmp_path / "images"
    add_image(store)
    findings = look(tmp_path, store, IMAGE, "56" * 32)
    assert all_ok(findings)
    assert [finding.said for finding in findings] == [f"{store} has 1 images", "podman sees every added image"]


def test_an_empty_image_store_needs_no_podman(tmp_path: Path) -> None:
    make_store(tmp_path / "images")
    assert all_ok(look(tmp_path, tmp_path / "images", error="podman images: not to be asked"))


def test_an_image_that_podman_does_not_see(tmp_path: Path) -> None:
    add_image(tmp_path / "images")
    found = only(look(tmp_path, tmp_path / "images"), Level.FAILURE)
    assert f"does not see 1 of the 1 added images, such as {IMAGE[:12]}" in found.said
    assert "restart" in found.mend


def test_what_podman_says_of_a_broken_store_is_told(tmp_path: Path) -> None:
    add_image(tmp_path / "images")
    found = only(look(tmp_path, tmp_path / "images", error="podman images: it is broken"), Level.FAILURE)
    assert found.said == "podman images: it is broken"


def test_an_image_store_that_is_missing(tmp_path: Path) -> None:
    found = only(look(tmp_path, tmp_path / "images"), Level.FAILURE)
    assert "does not exist: every podman command fails" in found.said
    make_store(tmp_path / "images")
    (tmp_path / "images/overlay-layers/layers.lock").unlink()
    assert "layers.lock does not exist" in only(look(tmp_path, tmp_path / "images"), Level.FAILURE).said


def test_an_image_store_whose_list_cannot_be_read(tmp_path: Path) -> None:
    make_store(tmp_path / "images")
    (tmp_path / "images/overlay-images/images.json").write_text('{"id": 1}')
    assert "not a list of images" in only(look(tmp_path, tmp_path / "images"), Level.FAILURE).said


def test_an_image_store_of_somebody_else_that_is_missing(tmp_path: Path) -> None:
    make_store(tmp_path / "images")
    found = only(look(tmp_path, tmp_path / "images", named=tmp_path / "theirs"), Level.FAILURE)
    assert f"{tmp_path}/theirs does not exist" in found.said


# Our lines.


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# a comment\n",
        '[storage]\ndriver = "overlay"\nrunroot = "/run/x"',
        '[storage]\ndriver = "overlay"\n\n[storage.options]\n# additionallayerstores = []\n'
        '[storage.options.overlay]\nmountopt = "nodev"\n',
        '[storage]\n[storage.options] # here\nsize = ""\n[other]\nx = 1\n',
        storage(f"{MOUNTPOINT}:ref", images=None),
    ],
)
def test_the_stores_are_put_into_any_file(tmp_path: Path, text: str) -> None:
    changed = with_stores(text, BOTH)
    assert all_ok(conf(tmp_path, changed))
    assert with_stores(changed, BOTH) == changed
    for line in text.splitlines():
        assert line in changed
    assert ("graphroot" in changed) == ("[storage]" not in text), "podman wants both or no file"


def test_only_what_is_wanted_is_put_in(tmp_path: Path) -> None:
    changed = with_stores("", Stores(None, IMAGES))
    assert "additionallayerstores" not in changed
    assert all_ok(conf(tmp_path, changed, podman=NEW))


@pytest.mark.parametrize(
    "text",
    [
        storage("/other:ref"),
        "storage.driver = 'overlay'\nstorage.options.size = ''\n",
        "storage = {driver = 'vfs'}",
    ],
)
def test_what_cannot_be_changed_safely_is_told(text: str) -> None:
    with pytest.raises(ConfigError, match=r"add .*registry-storage/store:ref"):
        with_stores(text, BOTH)
