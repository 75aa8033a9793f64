"""What stands in deploy/ is what the program writes, and can be read."""

from pathlib import Path

import pytest
import yaml

from registry_storage.host.storage_lines import Stores, new_tables, with_stores
from registry_storage.host.units import unit

DEPLOY = Path(__file__).parents[2] / "deploy"
STORE = "/var/lib/registry-storage/store"
STORES = Stores(Path(STORE), Path("/var/lib/registry-storage/images"))


def test_the_units_are_the_programs_own() -> None:
    bin_directory, root = "/opt/registry-storage/bin", "/var/lib/registry-storage"
    command, reload = [f"{bin_directory}/registry-storage", STORE], [f"{bin_directory}/registry-storagectl", "upgrade"]
    assert (DEPLOY / "registry-storage.service").read_text() == unit(command, reload, root=root, user=False)
    bin_directory, at_root = "%h/.local/bin", ["--root", "%h/.local/share/registry-storage"]
    mountpoint = f"{at_root[1]}/store"
    podman = ["/usr/bin/podman", "unshare", "env", "-u", "WATCHDOG_PID"]
    command = [*podman, f"{bin_directory}/registry-storage", *at_root, mountpoint]
    reload = [f"{bin_directory}/registry-storagectl", "upgrade", *at_root]
    text = unit(command, reload, root="", user=True, mountpoint=mountpoint).replace("%%", "%")
    assert (DEPLOY / "registry-storage-user.service").read_text() == text


def test_storage_conf_is_the_programs_own() -> None:
    assert (DEPLOY / "storage.conf").read_text() == with_stores("", STORES, new_tables({}, user=0))


@pytest.mark.parametrize("name", ["kubernetes/daemonset.yaml", "ansible/playbook.yml"])
def test_yaml_can_be_read(name: str) -> None:
    assert yaml.safe_load((DEPLOY / name).read_text())


def test_every_file_is_told_of() -> None:
    told = (DEPLOY / "README.md").read_text()
    for path in DEPLOY.rglob("*"):
        if path.is_file() and path.name != "README.md":
            assert str(path.relative_to(DEPLOY)) in told
