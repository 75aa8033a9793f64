"""A daemon with an additional image store, and a podman that has this store instead of a layer store."""

import os
import subprocess
import sys
from pathlib import Path

from lab import converters
from lab.chroot import RunningDebian
from lab.daemon import Daemon
from lab.podman import Podman


class ImageHost:
    """Both with empty state."""

    def __init__(
        self, scratch: Path, registry_host: str, name: str, *options: str, inside: RunningDebian | None = None
    ) -> None:
        own = scratch / name
        mountpoint = inside.stores / name if inside is not None else own / "store"
        self.store = inside.work / f"{name}-images" if inside is not None else own / "images"
        home = inside.work / name if inside is not None else own / "podman"
        self.daemon = Daemon(
            own / "root", mountpoint, registry_host, log=own / "daemon.log",
            options=("--images", str(self.store), "--images-grace-seconds", "0.5", *options),
            environment={"CONTAINERS_STORAGE_CONF": str(home / "storage-outside.conf")},
        )  # fmt: skip
        self.daemon.start()
        self.podman = Podman(home, registry_host, images=self.store, inside=inside)
        (home / "storage-outside.conf").write_text(f'[storage]\ngraphroot = "{home}/graph"\n')

    def ctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "registry_storage.ctl", *words, "--root", os.fspath(self.daemon.root)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=300)

    def add(self, name: str, image_format: str) -> str:
        """The image's name."""
        image = converters.tag(name, image_format)
        self.ctl("add", self.podman.name(image))
        return image

    def close(self) -> None:
        self.podman.close()
        self.daemon.stop()
