"""Transports that skopeo knows, by way of an OCI image layout of ours."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import trio

from ..errors import InvalidInputError, ProgramError
from .places import Place

LAYOUT_TAG = "image"


async def read(place: Place, layout: Path) -> None:
    """Copy the image at `place` into a new layout, under LAYOUT_TAG. Raises ProgramError."""
    # A layout holds only compressed layers, which live for a moment: the fastest level.
    await _copy(str(place), f"oci:{layout}:{LAYOUT_TAG}", "--all", "--dest-compress-level", "1", what=place)


async def write(layout: Path, place: Place) -> None:
    """Copy the image LAYOUT_TAG of a layout to `place`; files and directories appear there when they are complete.

    Raises ProgramError, InvalidInputError.
    """
    source = f"oci:{layout}:{LAYOUT_TAG}"
    if place.transport == "containers-storage":
        await _copy(source, str(place), what=place)
        return
    check_vacant(place)
    partial = Path(f"{place.path}.partial-{os.getpid()}")
    name = f":{place.tag}" if place.tag else ""
    # An archive of docker's holds one image in docker's own form; the others hold everything as it is.
    exact = () if place.transport == "docker-archive" else ("--all", "--preserve-digests")
    try:
        await _copy(source, f"{place.transport}:{partial}{name}", *exact, what=place)
        os.rename(partial, place.path)
    finally:
        _remove(partial)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    path.unlink(missing_ok=True)


def check_vacant(place: Place) -> None:
    """Raises InvalidInputError where something would be overwritten."""
    if place.path and Path(place.path).exists():
        raise InvalidInputError(f"{place}: there is something already")


def check_installed(place: Place) -> None:
    """Raises ProgramError."""
    if shutil.which("skopeo") is None:
        raise ProgramError(f"{place}: {place.transport}: is read and written by skopeo, which is not installed")


async def _copy(source: str, target: str, *options: str, what: Place) -> None:
    check_installed(what)
    # Signatures are looked up in registries, which neither side is: there is no policy to apply.
    command = ["skopeo", "--insecure-policy", "copy", "--quiet", *options, source, target]
    null = subprocess.DEVNULL
    done = await trio.run_process(command, check=False, stdin=null, capture_stdout=True, capture_stderr=True)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise ProgramError(f"{what}: skopeo: {_message(said[-1]) if said else f'exit status {done.returncode}'}")


def _message(line: str) -> str:
    """Of a log line ``time=… level=… msg="…"`` the message."""
    match = re.search(r'msg="((?:[^"\\]|\\.)*)"', line)
    return (match[1].replace('\\"', '"') if match else line)[:500]
