"""``registry-storagectl optimize``: run an image's workload, and convert with the files first that it reads."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import trio

from ..convert import work
from ..convert.destinations import LayoutDestination
from ..convert.image import Conversion, PlannedImage
from ..convert.image_options import Converted, ImageOptions
from ..convert.options import LayerKind, WriteOptions
from ..convert.prefetch import Read, Record, Wishes
from ..convert.report import Reporter
from ..convert.serving import LayoutRegistry
from ..convert.sources import Source
from ..convert.work import WorkDirectory
from ..convert.workload import Access, Profiler, Workload, WorkloadError, check_lazy, write_record
from ..digest import Digest
from ..errors import FormatError, InvalidInputError, RegistryStorageError
from ..formats.detect import detect
from . import convert
from .opening import open_destination, open_source, registry_client
from .progress import reporter

_PULLED_BY_PODMAN = ("docker", "oci", "oci-archive", "docker-archive", "dir")


@dataclass(frozen=True, slots=True)
class Arguments:
    """What the command line says."""

    conversion: convert.Arguments
    workload: Workload | None
    """None: only convert."""
    record_out: Path | None


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "optimize",
        help="run an image, and put first what it reads",
        description="Run the image's workload in a container, record which files it reads, and convert the image "
        "with these files first, so that they are fetched ahead. Only the image for this host's platform is run.",
        allow_abbrev=False,
    )
    convert.add_options(parser)
    container = parser.add_argument_group("the container")
    container.add_argument("--args", metavar="WORDS", help="instead of the image's command, split as a shell does")
    container.add_argument("--entrypoint", metavar="PROGRAM", help="instead of the image's entrypoint")
    container.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="repeatable")
    container.add_argument("--env-file", action="append", default=[], metavar="FILE", help="repeatable")
    container.add_argument("--user", metavar="USER[:GROUP]")
    container.add_argument("--cwd", metavar="DIR", help="working directory")
    container.add_argument(
        "--mount", action="append", default=[], metavar="type=…,source=…,destination=…", help="repeatable"
    )
    container.add_argument("--net", default="none", metavar="MODE", help="network of the container (default: none)")
    container.add_argument("-t", "--terminal", action="store_true", help="give it a terminal")
    container.add_argument("-i", "--interactive", action="store_true", help="give it our standard input")
    container.add_argument(
        "--period", type=float, default=10.0, metavar="SECONDS", help="how long to watch it at most (default: 10)"
    )
    container.add_argument("--wait-on-line", metavar="TEXT", help="stop as soon as a line of its output has TEXT")
    parser.add_argument("--record-out", type=Path, metavar="FILE", help="write what was read, as JSON lines")
    parser.add_argument("--no-optimize", action="store_true", help="only convert")
    parser.set_defaults(read=read, run=run)


def read(given: argparse.Namespace) -> Arguments:
    """Check the command line. Raises InvalidInputError."""
    conversion = convert.read(given)
    if given.no_optimize:
        return Arguments(conversion, None, given.record_out)
    if not 0 < given.period <= 86400:
        raise InvalidInputError(f"--period: wanted up to 86400 seconds, got {given.period:g}")
    if conversion.source.transport not in _PULLED_BY_PODMAN:
        raise InvalidInputError(f"{conversion.source}: copy it to an oci: directory first, to run it from there")
    workload = Workload(
        arguments=tuple(shlex.split(given.args)) if given.args else (),
        entrypoint=given.entrypoint,
        environment=tuple(given.env),
        env_files=tuple(given.env_file),
        user=given.user,
        directory=given.cwd,
        mounts=tuple(given.mount),
        network=given.net,
        terminal=given.terminal,
        interactive=given.interactive,
        period_seconds=given.period,
        wait_on_line=given.wait_on_line,
    )
    return Arguments(conversion, workload, given.record_out)


async def run(arguments: Arguments) -> int:
    """Record, then convert; the exit status."""
    if arguments.workload is None:
        return await convert.run(arguments.conversion)
    accesses = await _record(arguments.conversion, arguments.workload)
    sys.stderr.write(f"{len(accesses)} files were read\n")
    if arguments.record_out is not None:
        with arguments.record_out.open("w", encoding="utf-8", errors="surrogateescape") as file:
            write_record(accesses, file)
    return await convert.run(_with_first(arguments.conversion, accesses))


def _with_first(conversion: convert.Arguments, accesses: Sequence[Access]) -> convert.Arguments:
    """What was read now comes before what was wished for."""
    records = [
        Record(
            access.path,
            Digest.parse(access.manifest_digest),
            access.layer_index,
            tuple(Read(turn, *part) for turn, part in zip(access.turns, access.ranges, strict=True)),
        )
        for access in accesses
    ]
    wishes = conversion.options.wishes
    wishes = Wishes((*records, *wishes.records), wishes.patterns)
    return replace(conversion, options=replace(conversion.options, wishes=wishes))


async def _record(conversion: convert.Arguments, workload: Workload) -> list[Access]:
    with work.opened(f"{conversion.purpose} workload") as directory, reporter() as watcher:
        async with registry_client() as client:
            source = await open_source(conversion.source, client, directory)
            options = replace(conversion.options, wishes=Wishes())
            destination = open_destination(conversion.destination, source, client, directory, ())
            plan = await Conversion(source, destination, options, directory, watcher).plan()
            image = _for_this_host(plan.images, conversion, source)
            digest = str(image.document.digest)
            name = str(conversion.source.reference or conversion.source)
            profile = partial(_profile, directory, workload, digest)
            if conversion.source.transport == "docker" and _is_lazy(image):
                watcher.message(f"running {conversion.source} lazily")
                return await trio.to_thread.run_sync(partial(profile, name, lazy=True))
            try:
                check_lazy()
                layout = directory.file("lazy")
                watcher.message(f"converting {conversion.source} here, to run it lazily")
                made = await _convert_to_run(source, layout, options, directory, watcher)
                with LayoutRegistry(layout, Digest.parse(made.digest), made.media_type) as registry:
                    return await trio.to_thread.run_sync(partial(profile, registry.image, lazy=True, plain_http=True))
            except (WorkloadError, RegistryStorageError) as error:
                watcher.message(f"it cannot be run lazily: {error}")
            watcher.message(f"running {conversion.source} after a full pull")
            return await trio.to_thread.run_sync(partial(profile, name, lazy=False))


async def _convert_to_run(
    source: Source, layout: Path, options: ImageOptions, directory: WorkDirectory, watcher: Reporter
) -> Converted:
    """The image for this host as one that podman can run lazily, with as little work as possible."""
    layer = WriteOptions(LayerKind.ZSTD_CHUNKED_PODMAN, level=1)
    options = ImageOptions(layer, oci=True, default_platform=options.default_platform, jobs=options.jobs)
    conversion = Conversion(source, LayoutDestination(layout, None, str(layout)), options, directory, watcher)
    made = await conversion.run(await conversion.plan())
    for result in made.images[0].layers:
        if result.outcome == "left":
            raise WorkloadError(f"layer {result.source.digest} cannot be converted")
    return made


def _profile(
    directory: WorkDirectory,
    workload: Workload,
    manifest_digest: str,
    name: str,
    *,
    lazy: bool,
    plain_http: bool = False,
) -> list[Access]:
    work = directory.file("run")
    with Profiler(work, lazy=lazy, manifest_digest=manifest_digest, plain_http=plain_http) as profiler:
        return profiler.run(name, workload, sys.stderr)


def _for_this_host(images: Sequence[PlannedImage], conversion: convert.Arguments, source: Source) -> PlannedImage:
    wanted = str(conversion.options.default_platform)
    for image in images:
        if image.platform == wanted or len(images) == 1:
            return image
    raise InvalidInputError(f"{source.name}: no image for this host ({wanted}) to run; see --no-optimize")


def _is_lazy(image: PlannedImage) -> bool:
    """Whether a store can serve every layer to any podman."""
    try:
        for job in image.jobs:
            detect(job.descriptor)
    except FormatError:
        return False
    return True
