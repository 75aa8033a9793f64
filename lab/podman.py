"""A podman of our own: its storage, its configuration and its state touch nothing global."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import places, processes
from lab.chroot import RunningDebian

# crun refuses hybrid cgroups, and raising limits is not permitted everywhere; locks in files keep podman out
# of the machine's shared memory. When conmon calls podman to clean up, it looks for the two directories below the
# graph root, whatever this file says.
_CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
static_dir = "{home}/graph/libpod"
tmp_dir = "{home}/tmp"
volume_path = "{home}/graph/volumes"
"""

_STORAGE_CONF = """\
[storage]
driver = "overlay"
graphroot = "{home}/graph"
runroot = "{run}"
[storage.options]
{options}
"""

_REGISTRIES_CONF = """\
unqualified-search-registries = []
[[registry]]
location = "{host}"
insecure = true
"""

_POLICY = '{"default": [{"type": "insecureAcceptAnything"}]}'


def _make_run_root(parent: Path) -> Path:
    """A new, short directory; those of processes that have ended without removing theirs are removed."""
    for old in parent.glob("lab-podman-*"):
        if not Path("/proc", old.name.split("-")[2]).exists():
            for mounted in places.mounts_below(old):
                processes.run(["umount", "-l", mounted], allow_failure=True)
            shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"lab-podman-{os.getpid()}-", dir=parent))


@dataclass(frozen=True, slots=True)
class Pulled:
    """Where a pulled image's layers came from."""

    lazy: tuple[Path, ...]
    """The store's paths of the layers that podman took from it."""
    full: tuple[str, ...]
    """The ids of the layers that podman downloaded itself."""


class Podman:
    """One private podman. `home` is a directory for it alone (in the second Debian's tree for `inside`)."""

    def __init__(
        self,
        home: Path,
        registry_host: str,
        *,
        store: Path | None = None,
        images: Path | None = None,
        inside: RunningDebian | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        self.prefix = tuple(prefix)
        """Words before its command line, such as those that enter a namespace."""
        self.home = home
        self.host = registry_host
        self.store = store
        self.images = images
        """An additional image store, in the second Debian's tree for `inside`."""
        self.inside = inside
        self.graph = home / "graph"
        home.mkdir(parents=True, exist_ok=True)
        # podman refuses a run root of more than 50 characters, and only when conmon calls it to clean up.
        self._run_root = _make_run_root(Path("/run") if inside is None else inside.work)
        self._write_configuration()

    def _there(self, path: Path) -> Path:
        """The path as this podman sees it."""
        return self.inside.inside(path) if self.inside is not None else path

    def _write_configuration(self) -> None:
        there, run = self._there(self.home), self._there(self._run_root)
        options = f'additionallayerstores = ["{self._there(self.store)}:ref"]\n' if self.store else ""
        options += f'additionalimagestores = ["{self._there(self.images)}"]\n' if self.images else ""
        (self.home / "storage.conf").write_text(_STORAGE_CONF.format(home=there, run=run, options=options))
        (self.home / "containers.conf").write_text(_CONTAINERS_CONF.format(home=there))
        (self.home / "registries.conf").write_text(_REGISTRIES_CONF.format(host=self.host))
        (self.home / "policy.json").write_text(_POLICY)
        (self.home / "home/.config/containers").mkdir(parents=True, exist_ok=True)
        # podman looks here first; Debian's own file may be missing without recommended packages.
        (self.home / "home/.config/containers/policy.json").write_text(_POLICY)
        (self.home / "tmpdir").mkdir(exist_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        there = self._there(self.home)
        return {
            "CONTAINERS_CONF": f"{there}/containers.conf",
            "CONTAINERS_STORAGE_CONF": f"{there}/storage.conf",
            "CONTAINERS_REGISTRIES_CONF": f"{there}/registries.conf",
            "HOME": f"{there}/home",
            "TMPDIR": f"{there}/tmpdir",
            "XDG_RUNTIME_DIR": f"{there}/runtime",
            "PODMAN_IGNORE_CGROUPSV1_WARNING": "1",
            "LC_ALL": "C.UTF-8",
        }

    def run(
        self, *words: str | os.PathLike[str], allow_failure: bool = False, timeout_seconds: float = 300.0
    ) -> subprocess.CompletedProcess[str]:
        """`podman words…`; the answer. Raises ProgramError unless `allow_failure`."""
        command: list[str | os.PathLike[str]] = [*self.prefix, "podman", *words]
        if self.inside is not None:
            command = list(self.inside.command(command))
        return processes.run(
            command,
            environment=self.environment,
            allow_failure=allow_failure,
            timeout_seconds=timeout_seconds,
        )

    def version(self) -> str:
        return self.run("--version").stdout.split()[-1]

    def name(self, image: str) -> str:
        """The full name of `repository:tag` in our registry."""
        return f"{self.host}/{image}"

    def pull(self, image: str, *, allow_failure: bool = False) -> subprocess.CompletedProcess[str]:
        return self.run("pull", "-q", self.name(image), allow_failure=allow_failure)

    def run_image(self, image: str, *words: str, options: Sequence[str] = ()) -> str:
        """What a command in a new container of `repository:tag` says on its standard output."""
        return self.run("run", "--rm", "--network=none", *options, self.name(image), *words).stdout

    def remove_everything(self) -> None:
        """Containers, then images; raises ProgramError when podman cannot."""
        self.run("rm", "-f", "-a", "-t", "0")
        self.run("rmi", "-a", "-f")

    def layers(self) -> Pulled:
        """How the layers in the graph root came here. Layers of containers are not counted."""
        lazy: list[Path] = []
        full: list[str] = []
        for layer in self.layer_records():
            marker = self.graph / "overlay" / layer["id"] / "additionallayer"
            if marker.is_file():
                lazy.append(Path(marker.read_text()))
            else:
                full.append(layer["id"])
        return Pulled(lazy=tuple(lazy), full=tuple(full))

    def layer_records(self) -> list[dict[str, Any]]:
        """The images' layers as layers.json lists them."""
        path = self.graph / "overlay-layers/layers.json"
        records = json.loads(path.read_text()) if path.is_file() else []
        return [record for record in records if "compressed-diff-digest" in record or "diff-digest" in record]

    def layer_directories(self, image: str) -> list[Path]:
        """The `diff` directories of an image's layers on the machine's side, base first."""
        found = self.run(
            "image", "inspect", "--format", "{{.GraphDriver.Data.UpperDir}}\n{{.GraphDriver.Data.LowerDir}}",
            self.name(image),
        ).stdout.split("\n")
        upper, lower = found[0], found[1] if len(found) > 1 else ""
        inner = [upper, *(part for part in lower.split(":") if part and part != "<no value>")]
        paths = [Path(part) for part in reversed(inner)]
        return [self.inside.root / path.relative_to("/") for path in paths] if self.inside else paths

    def close(self) -> None:
        """Ends every container, unmounts what is left and removes the private directory."""
        self.run("rm", "-f", "-a", "-t", "0", allow_failure=True)
        # `podman rmi` tells a store that its layers are no longer used; a store may already be gone.
        self.run("rmi", "-a", "-f", allow_failure=True)
        # Mounts inside the second Debian are not seen from here and go away with their directories.
        for directory in (self.home, self._run_root):
            for mounted in places.mounts_below(directory):
                processes.run(["umount", "-l", mounted], allow_failure=True)
            shutil.rmtree(directory, ignore_errors=True)
