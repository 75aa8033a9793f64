"""``inspect``, ``verify`` and ``get-toc-digest``."""

import argparse
import json
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from ..config import host_platform
from ..convert import work
from ..convert.inspection import ImageView, LayerView, check_layer, describe, open_images, open_layer
from ..convert.places import Place
from ..convert.sources import Source
from ..descriptor import Platform
from ..errors import InvalidInputError, NotLazyError, RegistryStorageError
from .convert import platform
from .opening import open_source, registry_client


@dataclass(frozen=True, slots=True)
class Arguments:
    """What the command line says."""

    place: Place
    blob: Path | None
    """A layer's file, instead."""
    platforms: tuple[Platform, ...]
    all_platforms: bool
    toc: bool = False
    as_json: bool = False


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the commands."""
    for name, run, text in (
        ("inspect", run_inspect, "say what format an image's layers have"),
        ("verify", run_verify, "compare every digest, from the manifest down to the chunks"),
        ("get-toc-digest", run_toc_digest, "print the TOC digest of each layer"),
    ):
        parser = commands.add_parser(name, help=text, allow_abbrev=False)
        parser.add_argument("place", metavar="REF|BLOB", help="an image, or a file that is a layer's blob")
        parser.add_argument("--platform", type=platform, action="append", default=[], metavar="OS/ARCH")
        parser.add_argument("--all-platforms", action="store_true")
        if name == "inspect":
            parser.add_argument("--toc", action="store_true", help="print the TOCs, one JSON document a line")
            parser.add_argument("--json", action="store_true", dest="as_json")
        parser.set_defaults(read=read, run=run)


def read(given: argparse.Namespace) -> Arguments:
    """Check the command line. Raises InvalidInputError."""
    path = Path(given.place)
    place = Place("file", given.place) if path.is_file() else Place.parse(given.place)
    if given.platform and given.all_platforms:
        raise InvalidInputError("wanted some platforms or all of them, got both")
    toc, as_json = getattr(given, "toc", False), getattr(given, "as_json", False)
    blob = path if path.is_file() else None
    return Arguments(place, blob, tuple(given.platform) or (host_platform(),), given.all_platforms, toc, as_json)


@asynccontextmanager
async def _images(arguments: Arguments) -> AsyncIterator[tuple[Source, list[ImageView], work.WorkDirectory]]:
    with work.opened(f"look at {arguments.place}") as directory:
        async with registry_client() as client:
            source = await open_source(arguments.place, client, directory)
            wanted = None if arguments.all_platforms else arguments.platforms
            yield source, await open_images(source, wanted), directory


async def run_inspect(arguments: Arguments) -> int:
    """Print what there is; the exit status."""
    if arguments.blob is not None:
        _print_layers(arguments, [await trio.to_thread.run_sync(describe, arguments.blob)])
        return 0
    async with _images(arguments) as (source, images, _):
        for image in images:
            views = [await open_layer(source, layer) for layer in image.manifest.layers]
            if not arguments.toc and not arguments.as_json:
                _say(f"{image.digest} {image.platform}, {len(views)} layers")
            _print_layers(arguments, views)
    return 0


def _print_layers(arguments: Arguments, views: Iterable[LayerView]) -> None:
    for view in views:
        if arguments.toc:
            if view.toc:
                _say(view.toc.decode(errors="replace"))
        elif arguments.as_json:
            _say(json.dumps(view.to_json()))
        else:
            for line in view.lines():
                _say(line)


async def run_toc_digest(arguments: Arguments) -> int:
    """Print the TOC digests; 1 when a layer has none."""
    status = 0
    if arguments.blob is not None:
        view = await trio.to_thread.run_sync(describe, arguments.blob)
        if view.toc_digest is None:
            raise NotLazyError(f"{arguments.blob}: {view.reason}")
        _say(view.toc_digest)
        return 0
    async with _images(arguments) as (source, images, _):
        for image in images:
            for layer in image.manifest.layers:
                view = await open_layer(source, layer)
                if view.toc_digest is None:
                    sys.stderr.write(f"layer {layer.digest}: {view.reason}\n")
                    status = 1
                else:
                    _say(view.toc_digest)
    return status


async def run_verify(arguments: Arguments) -> int:
    """Read everything; 1 when a digest is not what it should be."""
    status = 0
    if arguments.blob is not None:
        _say(f"{arguments.blob}: {await trio.to_thread.run_sync(check_layer, arguments.blob)}")
        return 0
    async with _images(arguments) as (source, images, directory):
        for image in images:
            _say(f"{image.digest} {image.platform}: manifest and config are right")
            for at, layer in enumerate(image.manifest.layers):
                try:
                    said = await image.check(source, at, directory)
                except RegistryStorageError as error:
                    status = 1
                    sys.stderr.write(f"layer {at} {layer.digest}: {error}\n")
                else:
                    _say(f"layer {at} {layer.digest}: {said}")
    return status


def _say(line: Any) -> None:
    sys.stdout.write(f"{line}\n")

