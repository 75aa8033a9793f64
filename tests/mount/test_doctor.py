"""doctor and explain as they are used: beside a daemon, with faults planted one by one."""

import json
import os
import shutil
import signal
import subprocess
import sys
from typing import Any

import pytest

from registry_storage.descriptor import OCI_INDEX, OCI_MANIFEST, Descriptor
from registry_storage.digest import Digest
from tests.fakes.images import BuiltImage, BuiltLayer, File, build_layer, put_image
from tests.fakes.layer_blobs import GZIP_LAYER, gzip_member
from tests.fakes.registry import FakeRegistry
from tests.fakes.tar_images import put_image as put_tar_image

from .conftest import Daemon

DATA = bytes(range(256)) * 500


@pytest.fixture(autouse=True)
def prepared(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """storage.conf names the daemon's mount."""
    daemon.arguments = (*daemon.arguments, "--certs-dir", str(daemon.directory / "certs.d"))
    path = daemon.directory / "storage.conf"
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(path))
    write_storage_conf(daemon, f"{daemon.mountpoint}:ref")


def write_storage_conf(daemon: Daemon, store: str, images: str = "") -> None:
    roots = f'graphroot = "{daemon.directory}/graph"\nrunroot = "{daemon.directory}/run"\n'
    text = f'[storage]\ndriver = "overlay"\n{roots}[storage.options]\n'
    text += f'additionallayerstores = ["{store}"]\n' if store else ""
    text += f'additionalimagestores = ["{images}"]\n' if images else ""
    (daemon.directory / "storage.conf").write_text(text)


def control(daemon: Daemon, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "registry_storage.ctl", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=daemon.environment())


def doctor(daemon: Daemon, *words: str) -> list[dict[str, Any]]:
    """What it says about everything that is not ok; the status must fit."""
    options = ("--root", str(daemon.root), "--certs-dir", str(daemon.directory / "certs.d"))
    said = control(daemon, "doctor", "--json", *options, *words)
    assert said.returncode in (0, 1), said.stderr
    found = json.loads(said.stdout)
    assert said.returncode == int(any(one["level"] == "failure" for one in found))
    return [one for one in found if one["level"] != "ok"]


def put(registry: FakeRegistry) -> BuiltImage:
    return put_image(registry, [build_layer([File("file", DATA)])])


def the_only(found: list[dict[str, Any]], subject: str) -> dict[str, Any]:
    assert [one["subject"] for one in found] == [subject]
    assert found[0]["mend"]
    return found[0]


def test_all_is_well(daemon: Daemon, registry: FakeRegistry) -> None:
    image = put(registry)
    daemon.start()
    (daemon.layer(image) / "diff").stat()
    assert doctor(daemon) == []
    said = control(daemon, "doctor", "--root", str(daemon.root))
    assert said.returncode == 0
    assert f"ok       registry {registry.host}: {image.reference}: there, and served in ranges" in said.stdout
    assert f"ok       mount: {daemon.mountpoint} is served" in said.stdout


def test_no_daemon_and_a_dead_mount(daemon: Daemon) -> None:
    daemon.start()
    daemon.stop(signal.SIGKILL)
    found = {one["subject"]: one for one in doctor(daemon)}
    assert set(found) == {"daemon", "mount"}
    assert "the mount of a daemon that is gone" in found["mount"]["said"]
    assert "umount -l" in found["mount"]["mend"]


def test_ref_is_missing(daemon: Daemon) -> None:
    write_storage_conf(daemon, str(daemon.mountpoint))
    daemon.start()
    assert ":ref" in the_only(doctor(daemon), "storage.conf")["mend"]


def test_an_unreachable_registry(daemon: Daemon) -> None:
    daemon.start()
    found = the_only(doctor(daemon, "127.0.0.1:1/team/app:v1"), "registry 127.0.0.1:1")
    assert "nothing listens at 127.0.0.1:1" in found["said"]


def test_a_registry_without_ranges(daemon: Daemon, registry: FakeRegistry) -> None:
    image = put(registry)
    registry.inject("ignore-range", path="/blobs/", times=None)
    daemon.start()
    found = the_only(doctor(daemon, image.reference), f"registry {registry.host}")
    assert "layers from there are never lazy" in found["said"]


def test_a_bad_auth_file(daemon: Daemon) -> None:
    (daemon.directory / "auth.json").write_text("{s3cret")
    (daemon.directory / "auth.json").chmod(0o600)
    daemon.start()
    found = the_only(doctor(daemon), "credentials")
    assert "auth.json: not JSON" in found["said"]
    assert "s3cret" not in found["said"]


def test_an_auth_file_that_others_may_read(daemon: Daemon) -> None:
    (daemon.directory / "auth.json").write_text("{}")
    (daemon.directory / "auth.json").chmod(0o644)
    daemon.start()
    assert "chmod 600" in the_only(doctor(daemon), "credentials")["mend"]


def test_refused_credentials(daemon: Daemon) -> None:
    with FakeRegistry(auth="bearer", users={"alice": "s3cret"}).in_thread() as private:
        image = put(private)
        daemon.start()
        found = the_only(doctor(daemon, image.reference), f"registry {private.host}")
        assert f"podman login {private.host}" in found["said"]


def test_a_broken_registries_conf(daemon: Daemon) -> None:
    daemon.start()
    daemon.registries_conf.write_text('[[registry]]\nprefix = "a.example"\n')
    assert "wanted a location" in the_only(doctor(daemon), "registries")["said"]


def test_a_broken_configuration(daemon: Daemon) -> None:
    daemon.start()
    file = daemon.directory / "config.toml"
    file.write_text("colour = 1\n")
    found = doctor(daemon, "--config", str(file))
    assert found[0]["subject"] == "configuration"
    assert "unknown key 'colour'" in found[0]["said"]


def test_a_certificate_that_cannot_be_used(daemon: Daemon) -> None:
    certs = daemon.directory / "certs.d" / "registry.example"
    certs.mkdir(parents=True)
    (certs / "ca.crt").write_text("nothing")
    daemon.start()
    assert f"{certs}/ca.crt" in the_only(doctor(daemon), "certificates")["said"]


def test_a_proxy_that_is_none(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon.start()
    monkeypatch.setenv("HTTPS_PROXY", "ftp://proxy.example")
    assert "HTTPS_PROXY" in the_only(doctor(daemon), "proxy")["said"]


@pytest.mark.skipif(os.geteuid() != 0, reason="root hides the device from one process")
def test_no_device(daemon: Daemon) -> None:
    daemon.start()
    doctor = f"{sys.executable} -m registry_storage.ctl doctor --root {daemon.root}"
    inside = f"mount --bind /dev/null /dev/fuse && exec {doctor}"
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", inside]
    said = subprocess.run(command, capture_output=True, text=True, check=False, env=daemon.environment())
    assert said.returncode == 1, said.stderr
    assert "FAILURE  fuse: /dev/fuse is not the device of FUSE" in said.stdout


def explain(daemon: Daemon, name: str, *words: str) -> tuple[int, str]:
    said = control(daemon, "explain", name, *words)
    return said.returncode, said.stdout + said.stderr


@pytest.mark.parametrize("kind", ["podman", "estargz"])
def test_a_lazy_image_is_explained(daemon: Daemon, registry: FakeRegistry, kind: str) -> None:
    image = put_image(registry, [build_layer([File("file", DATA)], kind)])
    status, text = explain(daemon, image.reference)
    assert status == 0, text
    assert "1 of 1 layers are lazy here" in text
    assert "its TOC" in text
    assert "served" in text


def test_a_plain_image_is_explained_with_the_command_that_mends_it(daemon: Daemon, registry: FakeRegistry) -> None:
    blob = gzip_member(DATA)
    layer = build_layer([File("file", DATA)])
    plain = BuiltLayer(blob, Descriptor(GZIP_LAYER, Digest.of(blob), len(blob)), Digest.of(blob), {}, 0)
    image = put_image(registry, [layer, plain])
    status, text = explain(daemon, image.reference)
    assert status == 1
    assert "1 of 2 layers are lazy here" in text
    assert "a plain gzip layer: no annotation containerd.io/snapshot/stargz/toc.digest" in text
    assert f"registry-storagectl convert --zstd-chunked {image.reference} {registry.host}/team/app:v1-lazy" in text
    assert f"registry-storagectl add {image.reference}" in text
    assert f"{len(blob)} bytes are fetched first" in text
    document = json.loads(explain(daemon, image.reference, "--json")[1])
    assert [one["lazy"] for one in document["layers"]] == [True, False]


def test_a_platform_that_an_image_is_not_for_is_explained(daemon: Daemon, registry: FakeRegistry) -> None:
    manifest = put(registry).manifest
    entry = {"mediaType": OCI_MANIFEST, "digest": str(Digest.of(manifest)), "size": len(manifest)}
    index = {"schemaVersion": 2, "manifests": [entry | {"platform": {"os": "linux", "architecture": "s390x"}}]}
    registry.put_manifest("team/app", "many", json.dumps(index).encode(), OCI_INDEX)
    name = f"{registry.host}/team/app:many"
    status, text = explain(daemon, name, "--platform", "linux/riscv64")
    assert status == 1
    assert "the index has no image for linux/riscv64; it has linux/s390x" in text
    status, text = explain(daemon, name, "--platform", "linux/s390x")
    assert status == 0
    assert "  for      linux/s390x\n" in text


def new_podman(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that forgets layers of a layer store, as far as its version tells, and else the one that is here."""
    real = shutil.which("podman") or "/bin/false"
    program = daemon.directory / "bin/podman"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "podman version 5.8.6" || exec {real} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def test_a_podman_that_forgets_layers_is_led_to_the_image_store(
    daemon: Daemon, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_podman(daemon, monkeypatch)
    put_tar_image(registry, [{"motd": b"hello"}])
    plain = f"{registry.host}/team/app:v1"
    daemon.start()
    status, text = explain(daemon, plain)
    assert status == 1, "a plain layer is fetched as a whole"
    assert "podman 5.8.6 runs images that were added" in text
    assert f"registry-storagectl add {plain}" in text
    lazy = put_image(registry, [build_layer([File("file", DATA)])], "team/lazy:v1")
    status, text = explain(daemon, lazy.reference)
    assert status == 0
    assert f"to run it:\n  registry-storagectl add {lazy.reference}" in text
    found = doctor(daemon)
    assert [one["subject"] for one in found] == ["storage.conf", "storage.conf"]
    assert "does not save layers from there" in found[0]["said"]
    assert f'additionalimagestores = ["{daemon.root}/images"]' in found[1]["mend"]
    write_storage_conf(daemon, "", f"{daemon.root}/images")
    assert control(daemon, "add", plain, "--root", str(daemon.root)).returncode == 0
    assert doctor(daemon) == []
    listed = daemon.root / "images/overlay-images/images.json"
    (daemon.root / "images/overlay-layers/layers.lock").rename(daemon.directory / "layers.lock")
    assert "layers.lock does not exist" in the_only(doctor(daemon), "image store")["said"]
    (daemon.directory / "layers.lock").rename(daemon.root / "images/overlay-layers/layers.lock")
    listed.write_text("[")
    assert "not a list of images" in the_only(doctor(daemon), "image store")["said"]


def test_a_registry_without_ranges_is_explained(daemon: Daemon, registry: FakeRegistry) -> None:
    image = put(registry)
    registry.inject("ignore-range", path="/blobs/", times=None)
    status, text = explain(daemon, image.reference)
    assert status == 1
    assert "push it to a registry that serves ranges" in text


def test_a_refusal_is_explained(daemon: Daemon) -> None:
    with FakeRegistry(auth="basic", users={"alice": "s3cret"}).in_thread() as private:
        status, text = explain(daemon, put(private).reference)
        assert status == 1
        assert f"no credentials for {private.host}/team/app are known here: podman login {private.host}" in text
