"""Images of generated files, for benchmarks that need known numbers of them; kept in the laboratory."""

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import ours, places, processes
from lab.registry import Registry

_POOL_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Shape:
    """What one tree holds."""

    directories: int
    """Of `files_each` files of 1 to `largest` bytes."""
    files_each: int
    largest: int = 8192
    big_bytes: int = 0
    """Of one more file, `big`; a multiple of 1 MiB."""

    @property
    def files(self) -> int:
        return self.directories * self.files_each


@dataclass(frozen=True, slots=True)
class GeneratedImage:
    """One image, zstd:chunked by our converter, with a tree for each layer. `make` it before use."""

    name: str
    layers: tuple[Shape, ...]

    @property
    def home(self) -> Path:
        return places.lab_directory() / f"generated-{self.name}"

    @property
    def storage(self) -> Path:
        """The storage of a registry that holds the image as `tag`."""
        return self.home / "registry"

    @property
    def tag(self) -> str:
        return f"generated/{self.name}:1"

    def tree(self, number: int = 0) -> Path:
        """The tree of a layer as a plain directory."""
        return self.home / f"tree{number}"

    def make(self, say: Callable[[str], None]) -> None:
        """Does nothing when it is made."""
        part, recipe = f"generated/{self.name}", f"3 {self.layers}"
        with places.locked(places.lab_directory() / f"{self.home.name}.lock"):
            if places.is_made(part, recipe):
                return
            say(f"making the image {self.name}: {sum(shape.files for shape in self.layers)} files")
            places.mark_unmade(part)
            places.remove_tree(self.home)
            layout = self.home / "layout"
            blobs = layout / "blobs/sha256"
            blobs.mkdir(parents=True)
            layers = []
            for number, shape in enumerate(self.layers):
                write_tree(self.tree(number), shape, seed=number)
                layers.append(_add_layer(blobs, self.tree(number)))
            _finish_layout(layout, layers)
            with Registry(self.storage, self.home / "log") as registry:
                ours.run(self.home, "convert", "--zstd-chunked", f"oci:{layout}", f"{registry.host}/{self.tag}")
            shutil.rmtree(layout)
            places.mark_made(part, recipe)


def write_tree(root: Path, shape: Shape, *, seed: int) -> None:
    """The same bytes every time; `small/` holds a fifth of the directories, `large/` the others."""
    source = random.Random(seed)
    pool = _compressible(source)
    for number in range(shape.directories):
        directory = root / ("small" if number % 5 == 0 else "large") / f"{number // 100:03}" / f"directory-{number:05}"
        directory.mkdir(parents=True)
        for position in range(shape.files_each):
            size = source.randint(1, shape.largest)
            start = source.randrange(_POOL_BYTES - size)
            (directory / f"file-{position:04}.txt").write_bytes(pool[start : start + size])
    if shape.big_bytes:
        with (root / "big").open("wb") as file:
            for _ in range(shape.big_bytes >> 20):
                start = source.randrange(_POOL_BYTES - (1 << 20))
                file.write(pool[start : start + (1 << 20)])


def _compressible(source: random.Random) -> bytes:
    """Bytes that compress to a little more than half."""
    words = [source.randbytes(source.randint(2, 12)) for _ in range(3000)]
    parts: list[bytes] = []
    size = 0
    while size < _POOL_BYTES:
        parts.append(source.choice(words))
        size += len(parts[-1])
    return b"".join(parts)[:_POOL_BYTES]


def _add_layer(blobs: Path, tree: Path) -> dict[str, Any]:
    """A plain tar of the tree as a blob; its descriptor."""
    temporary = blobs / "layer.tar"
    processes.run(["tar", "--sort=name", "--format=posix", "--numeric-owner", "-cf", temporary, "-C", tree, "."])
    with temporary.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = temporary.stat().st_size
    temporary.replace(blobs / digest)
    return _descriptor("application/vnd.oci.image.layer.v1.tar", digest, size)


def _finish_layout(layout: Path, layers: list[dict[str, Any]]) -> None:
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["true"]},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _add_document(layout, "application/vnd.oci.image.config.v1+json", config),
        "layers": layers,
    }
    described = _add_document(layout, "application/vnd.oci.image.manifest.v1+json", manifest)
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [described]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def _add_document(layout: Path, media_type: str, document: dict[str, Any]) -> dict[str, Any]:
    data = json.dumps(document).encode()
    digest = hashlib.sha256(data).hexdigest()
    (layout / "blobs/sha256" / digest).write_bytes(data)
    return _descriptor(media_type, digest, len(data))


def _descriptor(media_type: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": size}
