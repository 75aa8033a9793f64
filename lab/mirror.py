"""Which Debian mirror this machine uses, and the roots that come from it."""

import re
import shutil
from pathlib import Path

from lab import places, processes

DEFAULT_MIRROR = "http://deb.debian.org/debian"

_LINE = re.compile(r"^\s*deb\s+(?:\[[^]]*]\s+)?(\S+)\s+(\S+)")
_PARTIAL = re.compile("security|updates|backports")
_TRUSTING = ("Acquire::Check-Valid-Until", "Acquire::Check-Date")


def mirror() -> str:
    """The archive's address in this machine's apt sources; Debian's own when they name none."""
    for address, suite in _sources():
        if address.startswith(("http://", "https://")) and not _PARTIAL.search(suite):
            return address.rstrip("/")
    return DEFAULT_MIRROR


def bootstrap(suite: str, root: Path) -> None:
    """Makes a minimal Debian root at `root`, prepared so that packages can be added by `install_into`."""
    places.remove_tree(root)
    processes.run(["debootstrap", "--variant=minbase", suite, root, mirror()], timeout_seconds=900)
    (root / "etc/dpkg/dpkg.cfg.d/unsafe-io").write_text("force-unsafe-io\n")
    start_no_services = root / "usr/sbin/policy-rc.d"
    start_no_services.write_text("#!/bin/sh\nexit 101\n")
    start_no_services.chmod(0o755)
    # The machine's own opinion on old archive snapshots must hold inside too.
    said = processes.run(["apt-config", "dump", *_TRUSTING]).stdout
    if said.strip():
        (root / "etc/apt/apt.conf.d/90lab").write_text(said)


def install_into(root: Path, packages: list[str], *, update: bool = False) -> None:
    """Installs Debian packages, without recommended ones, in the root by chroot."""
    resolver = Path("/etc/resolv.conf")
    if resolver.exists():
        shutil.copyfile(resolver, root / "etc/resolv.conf")
    environment = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8", "TMPDIR": "/tmp"}
    if update:
        processes.run(["chroot", root, "apt-get", "-q", "update"], environment=environment)
    processes.run(
        ["chroot", root, "apt-get", "-qy", "install", "--no-install-recommends", *packages],
        environment=environment,
        timeout_seconds=1200,
    )
    processes.run(["chroot", root, "apt-get", "clean"], environment=environment)


def _sources() -> list[tuple[str, str]]:
    """(address, suites) of every source of this machine, in the order of the files."""
    found: list[tuple[str, str]] = []
    directory = Path("/etc/apt/sources.list.d")
    lists = [Path("/etc/apt/sources.list"), *sorted(directory.glob("*.list"))]
    for path in sorted(directory.glob("*.sources")):
        for paragraph in path.read_text(errors="replace").split("\n\n"):
            fields = dict(re.findall(r"^([\w-]+):\s*(.*)$", paragraph, re.MULTILINE))
            if fields.get("Enabled", "yes").lower() != "no" and "URIs" in fields:
                found.append((fields["URIs"].split()[0], fields.get("Suites", "").split(" ")[0]))
    for path in lists:
        if path.is_file():
            found += [(m[1], m[2]) for line in path.read_text().splitlines() if (m := _LINE.match(line))]
    return found
