"""What doctor looks at on the machine itself: each planted fault is found, named, and has a mend."""

import os
import stat
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from registry_storage.config import Settings
from registry_storage.descriptor import Descriptor
from registry_storage.digest import Digest
from registry_storage.errors import ProgramError
from registry_storage.host import local
from registry_storage.host.finding import Finding, Level
from registry_storage.host.local import Machine
from registry_storage.host.mounts import file_system_at
from registry_storage.host.podman import PodmanVersion


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    (tmp_path / "filesystems").write_text("nodev\tfuse\nnodev\toverlay\n")
    return Machine(
        release="6.18.5", filesystems=tmp_path / "filesystems", podman=lambda: PodmanVersion(5, 4, 2), user=os.geteuid()
    )


def only(findings: Iterable[Finding], level: Level) -> Finding:
    """The one that is not ok."""
    found = [finding for finding in findings if finding.level is not Level.OK]
    assert len(found) == 1, found
    assert found[0].level is level
    assert found[0].mend
    return found[0]


def test_a_healthy_machine_has_nothing_but_ok(machine: Machine, tmp_path: Path) -> None:
    findings = [*local.check_kernel(machine), *local.check_podman(machine)]
    findings += local.check_root(Settings(root=tmp_path / "root"), machine)
    assert {finding.level for finding in findings} == {Level.OK}


# Kernel and device.


def test_an_old_kernel(machine: Machine) -> None:
    assert "5.4 or later" in only(local.check_kernel(replace(machine, release="4.18.0-el8")), Level.FAILURE).mend


def test_a_kernel_that_cannot_deliver_requests_again(machine: Machine) -> None:
    assert "6.9" in only(local.check_kernel(replace(machine, release="6.1.0-13-amd64")), Level.WARNING).mend


def test_a_kernel_without_fuse(machine: Machine) -> None:
    machine.filesystems.write_text("nodev\toverlay\n")
    assert only(local.check_kernel(machine), Level.FAILURE).mend == "modprobe fuse"


def test_no_device(machine: Machine, tmp_path: Path) -> None:
    found = only(local.check_device(replace(machine, device=tmp_path / "fuse")), Level.FAILURE)
    assert "No such file" in found.said
    assert "--device /dev/fuse" in found.mend


def test_something_else_than_the_device(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "fuse").touch()
    found = only(local.check_device(replace(machine, device=tmp_path / "fuse")), Level.FAILURE)
    assert "mknod" in found.mend


def test_without_privileges_the_helper_must_be_there(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("/dev/fuse cannot be opened here")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "install fuse3" in only(local.check_device(replace(machine, user=1000)), Level.FAILURE).mend
    (tmp_path / "fusermount3").touch(0o755)
    assert [finding.level for finding in local.check_device(replace(machine, user=1000))] == [Level.OK]


# The root directory.


def test_a_root_that_others_may_read(machine: Machine, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert only(local.check_root(Settings(root=tmp_path), machine), Level.FAILURE).mend == f"chmod 700 {tmp_path}"


def test_a_root_of_somebody_else(machine: Machine, tmp_path: Path) -> None:
    found = only(local.check_root(Settings(root=tmp_path), replace(machine, user=os.geteuid() + 1)), Level.FAILURE)
    assert f"belongs to user {os.geteuid()}" in found.said


@pytest.mark.parametrize(
    ("free", "level"), [(1 << 20, Level.FAILURE), (512 << 20, Level.WARNING)]
)
def test_a_disk_that_is_full(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, level: Level
) -> None:
    tmp_path.chmod(0o700)
    real = os.statvfs(tmp_path)
    values = [*real[:4], free // real.f_frsize, *real[5:]]
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result((*values[:2], *values[2:])))
    assert "make room" in only(local.check_root(Settings(root=tmp_path), machine), level).mend


# The mount.


def test_a_mountpoint_that_is_missing(tmp_path: Path) -> None:
    found = only(local.check_mount(tmp_path / "store"), Level.FAILURE)
    assert "does not exist: every podman command fails" in found.said
    assert f"mkdir -p {tmp_path / 'store'}" in found.mend


def test_a_mountpoint_where_nobody_serves(tmp_path: Path) -> None:
    found = only(local.check_mount(tmp_path), Level.FAILURE)
    assert "a plain directory" in found.said
    assert "systemctl start registry-storage" in found.mend


def test_what_is_mounted_is_read_from_the_kernels_table(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        "22 1 0:20 / / rw - ext4 /dev/sda rw\n"
        "30 22 0:44 / /a\\040b rw shared:1 - tmpfs tmpfs rw\n"
        "31 30 0:45 / /a\\040b rw shared:2 master:3 - fuse.registry-storage registry-storage rw\n"
    )
    assert file_system_at(Path("/a b"), table) == "fuse.registry-storage"
    assert file_system_at(Path("/a"), table) is None


# Podman.


@pytest.mark.parametrize(
    ("text", "version", "by_toc", "forgets"),
    [
        ("podman version 4.3.1\n", "4.3.1", False, False),
        ("podman version 5.0.3", "5.0.3", False, False),
        ("podman version 5.4.2", "5.4.2", True, False),
        ("podman version 5.5.0", "5.5.0", True, True),
        ("podman version 5.8.6-dev", "5.8.6", True, True),
        ("podman version 6.0", "6.0.0", True, True),
    ],
)
def test_what_a_podman_does(text: str, version: str, by_toc: bool, forgets: bool) -> None:
    found = PodmanVersion.parse(text)
    assert found is not None
    assert (str(found), found.asks_by_toc, found.forgets_layers) == (version, by_toc, forgets)


@pytest.mark.parametrize(
    ("version", "said"),
    [
        (PodmanVersion(4, 3, 1), "asks the layer store for every layer"),
        (PodmanVersion(5, 4, 2), "asks the layer store by TOC digest"),
        (PodmanVersion(5, 8, 6), "does not save layers from a layer store (a defect since 5.5)"),
    ],
)
def test_what_podman_does_with_the_stores_is_told(machine: Machine, version: PodmanVersion, said: str) -> None:
    (found,) = local.check_podman(replace(machine, podman=lambda: version))
    assert found.level is Level.OK
    assert said in found.said


def test_no_podman(machine: Machine) -> None:
    def missing() -> PodmanVersion:
        raise ProgramError("podman is not installed")

    assert "CRI-O" in only(local.check_podman(replace(machine, podman=missing)), Level.WARNING).mend


def test_a_podman_that_does_not_start(machine: Machine) -> None:
    def broken() -> PodmanVersion:
        raise ProgramError("podman --version: wanted a version, got 'runroot must be set'")

    assert "runroot must be set" in only(local.check_podman(replace(machine, podman=broken)), Level.FAILURE).said


def test_which_digest_each_podman_asks_for() -> None:
    digest, toc = Digest.of(b"blob"), Digest.of(b"toc")
    kind = "application/vnd.oci.image.layer.v1.tar+zstd"
    new = Descriptor(kind, digest, 100, {"io.github.containers.zstd-chunked.manifest-checksum": str(toc)})
    old = Descriptor(kind, digest, 100, {"io.containers.zstd-chunked.manifest-checksum": str(toc)})
    assert PodmanVersion(4, 3).asks_for(old) == str(digest)
    assert PodmanVersion(5, 4).asks_for(new) == str(toc)
    assert PodmanVersion(5, 4).asks_for(old) is None


# The device.


def test_the_device_here_is_the_one_that_is_wanted(machine: Machine) -> None:
    if not Path("/dev/fuse").exists():
        pytest.skip("no /dev/fuse")
    assert stat.S_ISCHR(Path("/dev/fuse").stat().st_mode)
    assert "not the device" not in next(iter(local.check_device(machine))).said
