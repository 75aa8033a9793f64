"""What is complete on this machine runs with the registry gone, also after a restart of the daemon."""

import json
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

from lab import converters
from tests.interop.stand import BOTH_COMPRESSIONS, Generation, Laboratory, Stand

COMPLETE_SECONDS = 180.0

_NUMPY = "import json, numpy; print(json.dumps(numpy.arange(4).tolist()))"


@BOTH_COMPRESSIONS
def test_a_complete_image_runs_with_the_registry_stopped(
    new_stand: Callable[..., Stand], generation: Generation, laboratory: Laboratory, image_format: str
) -> None:
    stand = new_stand(generation, "--no-background-fetch", "--no-prefetch")
    for layer in stand.pull("python", image_format).lazy:
        _read_everything(_seen_from_here(stand, layer))
    laboratory.registry.stop()
    try:
        stand.daemon.restart()
        said = stand.podman.run_image(converters.tag("python", image_format), "python3", "-c", _NUMPY)
        assert json.loads(said) == [0, 1, 2, 3]
        stand.remove_everything()
    finally:
        laboratory.registry.start()


def test_the_background_fetch_completes_an_image_that_nobody_reads(
    new_stand: Callable[..., Stand], generation: Generation, laboratory: Laboratory
) -> None:
    stand = new_stand(generation)
    stand.pull("python", "estargz")
    wanted = laboratory.image_bytes(converters.tag("python", "estargz"))
    _wait_until_complete(stand, wanted)
    laboratory.registry.stop()
    try:
        stand.daemon.restart()
        image = converters.tag("python", "estargz")
        assert json.loads(stand.podman.run_image(image, "python3", "-c", _NUMPY)) == [0, 1, 2, 3]
        for layer in stand.podman.layers().lazy:
            _read_everything(_seen_from_here(stand, layer))
    finally:
        laboratory.registry.start()
    stand.remove_everything()


def _seen_from_here(stand: Stand, layer: Path) -> Path:
    """The path on this machine of a layer as podman wrote it down."""
    inside = stand.generation.inside
    return (inside.root / layer.relative_to("/") if inside else layer) / "diff"


def _read_everything(directory: Path) -> None:
    """Relative to each folder: the store is asked anew for every part of a path that leads through its own tree."""
    for _, _, files, folder in os.fwalk(directory):
        for name in files:
            if stat.S_ISREG(os.lstat(name, dir_fd=folder).st_mode):
                with open(os.open(name, os.O_RDONLY, dir_fd=folder), "rb") as file:
                    file.read()


def _wait_until_complete(stand: Stand, wanted_bytes: int) -> None:
    """Until nearly all bytes crossed the link and then nothing more for a second."""
    received, quiet_since = 0, time.monotonic()
    deadline = time.monotonic() + COMPLETE_SECONDS
    while time.monotonic() < deadline:
        if new := stand.crossed().down_bytes:
            received += new
            quiet_since = time.monotonic()
        if received > 0.9 * wanted_bytes and time.monotonic() - quiet_since > 1:
            return
        time.sleep(0.05)
    raise AssertionError(f"{received} of {wanted_bytes} bytes fetched in {COMPLETE_SECONDS:.0f} s")
