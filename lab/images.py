"""Realistic Debian images, built with buildah and pushed, gzip, into the laboratory's registry storage.

All share one base layer (debootstrap's minimal Debian 12), so any two are two images that share a layer.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import mirror, odd, places, processes

SUITE = "bookworm"
BASE_RECIPE = f"{SUITE} minbase, emptied caches, 1"


@dataclass(frozen=True, slots=True)
class Image:
    """One image: a parent's layers, then one layer of its own."""

    name: str
    parent: str
    packages: tuple[str, ...]
    odd: bool = False

    @property
    def recipe(self) -> str:
        below = BASE_RECIPE if self.parent == "base" else IMAGES[self.parent].recipe
        return f"{below} + {' '.join(self.packages)}{' oddities 1' if self.odd else ''}"

    @property
    def tag(self) -> str:
        """The name in the registry of the image as buildah pushed it."""
        return f"lab/gzip/{self.name}:1"


IMAGES = {
    image.name: image
    for image in (
        Image("python", "base", ("python3", "python3-numpy")),
        Image("app", "python", ("python3-flask", "python3-pandas")),
        Image("gcc", "base", ("gcc", "libc6-dev")),
        Image("redis", "base", ("redis-server",)),
        Image("node", "base", ("nodejs",)),
        Image("postgres", "base", ("postgresql",)),
        Image("nginx", "base", ("nginx",)),
        Image("odd", "base", (), odd=True),
    )
}

_STORAGE_CONF = """\
[storage]
driver = "overlay"
graphroot = "{home}/graph"
runroot = "{home}/run"
"""


def registry_storage() -> Path:
    """The registry's storage directory that holds every image in every format."""
    return places.lab_directory() / "registry"


def make_base_root() -> None:
    """The base tree, by debootstrap."""
    root = _base_root()
    mirror.bootstrap(SUITE, root)
    _empty_caches(root)


def make_base_image() -> None:
    """The base tree as buildah's image `base`."""
    _in_private_namespace("base", "-")


def make_image(name: str, registry_host: str) -> None:
    """Builds an image whose parent is made, and pushes it to `lab/gzip/NAME:1`."""
    _in_private_namespace(name, registry_host)


def private_namespace(state: Path) -> list[str]:
    """The words before a command that gets a mount namespace with /var/lib replaced by `state`.

    There the tools of this family keep a cache of blobs that they know (blob-info-cache), from which they
    reuse other compressions silently. The machine's own must be neither used nor changed.
    """
    state.mkdir(parents=True, exist_ok=True)
    return private_namespace_words(state)


def private_namespace_words(state: Path) -> list[str]:
    """The same for a `state` that exists where the command will run."""
    script = 'mount --bind "$0" /var/lib && exec "$@"'
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, os.fspath(state)]


def _in_private_namespace(name: str, registry_host: str) -> None:
    home = _buildah_home()
    home.mkdir(parents=True, exist_ok=True)
    (home / "storage.conf").write_text(_STORAGE_CONF.format(home=home))
    (home / "registries.conf").write_text("unqualified-search-registries = []\n")
    (home / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    (home / "tmpdir").mkdir(exist_ok=True)
    processes.run(
        [*private_namespace(home / "var-lib"), sys.executable, "-m", "lab.images", name, registry_host],
        environment={
            "CONTAINERS_STORAGE_CONF": f"{home}/storage.conf",
            "CONTAINERS_REGISTRIES_CONF": f"{home}/registries.conf",
            "BUILDAH_ISOLATION": "chroot",
            "TMPDIR": f"{home}/tmpdir",
            "HOME": os.fspath(home),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        },
        directory=Path(__file__).parent.parent,
        timeout_seconds=1200,
    )


def _build_base() -> None:
    container = _buildah("from", "scratch")
    mounted = Path(_buildah("mount", container))
    processes.run(["cp", "-a", f"{_base_root()}/.", mounted])
    _commit(container, "base", ["/bin/bash"])


def _build(image: Image, registry_host: str) -> None:
    container = _buildah("from", "--pull-never", f"localhost/lab/{image.parent}")
    mounted = Path(_buildah("mount", container))
    if image.packages:
        mirror.install_into(mounted, list(image.packages), update=True)
        _empty_caches(mounted)
    if image.odd:
        odd.fill(mounted)
    _commit(container, image.name, ["/bin/bash"])
    _buildah(
        *("push", "--quiet", "--format", "oci", "--tls-verify=false"),
        *("--signature-policy", f"{_buildah_home()}/policy.json"),
        *(f"localhost/lab/{image.name}", f"docker://{registry_host}/{image.tag}"),
    )


def _commit(container: str, name: str, command: Sequence[str]) -> None:
    _buildah("config", "--cmd", " ".join(command), container)
    _buildah("umount", container)
    policy = f"{_buildah_home()}/policy.json"
    _buildah("commit", "--quiet", "--rm", "--signature-policy", policy, container, f"localhost/lab/{name}")


def _buildah(*words: str) -> str:
    return processes.run(["buildah", *words], timeout_seconds=1200).stdout.strip()


def _base_root() -> Path:
    return places.lab_directory() / "base"


def _buildah_home() -> Path:
    return places.lab_directory() / "buildah"


def _empty_caches(root: Path) -> None:
    """Removes what a packaged image does not carry: package lists, archives and logs."""
    for directory in ("var/lib/apt/lists", "var/cache/apt", "var/cache/debconf", "var/log"):
        for inner, _, files in os.walk(root / directory):
            for name in files:
                (Path(inner) / name).unlink()
    (root / "etc/resolv.conf").unlink(missing_ok=True)


if __name__ == "__main__":
    wanted, host = sys.argv[1:]
    if wanted == "base":
        _build_base()
    else:
        _build(IMAGES[wanted], host)
