"""``registry-storagectl convert``."""

import argparse
import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from ..config import host_platform
from ..convert import work
from ..convert.image import Conversion, Plan
from ..convert.image_options import ImageOptions
from ..convert.options import DEFAULT_CHUNK_SIZE, LayerKind, WriteOptions
from ..convert.places import Place
from ..convert.prefetch import Pattern, Record, Wishes, parse_list, parse_records
from ..convert.report import Reporter
from ..descriptor import Platform
from ..errors import InvalidDocumentError, InvalidInputError
from .opening import open_destination, open_source, registry_client
from .progress import reporter

_SIZE = re.compile(r"([0-9]+) *([kmg]?)(?:i?b)?", re.ASCII | re.IGNORECASE)
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30}


@dataclass(frozen=True, slots=True)
class Arguments:
    """What the command line says."""

    source: Place
    destination: Place
    options: ImageOptions
    mount_from: tuple[str, ...]
    dry_run: bool
    as_json: bool

    @property
    def purpose(self) -> str:
        """Equal for runs that may go on with each other's work."""
        return f"{self.source} {self.destination} {self.options.layer} {self.options.wishes}"


def size(text: str) -> int:
    """``4194304``, ``4m``, ``4MiB``: bytes."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"wanted a size like 4194304 or 4MiB, got {text!r}")
    return int(match[1]) << _UNITS[match[2].lower()]


def platform(text: str) -> Platform:
    """``os/architecture[/variant]``."""
    try:
        return Platform.parse(text)
    except InvalidDocumentError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "convert",
        help="make an image lazily pullable",
        description="Convert the layers of an image, and publish it under another name.",
        epilog="SRC and DST: docker://REF or REF, oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:REF], "
        "dir:DIR, containers-storage:REF (the last four by skopeo).",
        allow_abbrev=False,
    )
    add_options(parser)
    parser.set_defaults(read=read, run=run)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Describe source, destination and everything that says what the layers become."""
    parser.add_argument("source", metavar="SRC", help="the image to convert")
    parser.add_argument("destination", metavar="DST", help="the name of the result")
    kinds = parser.add_argument_group("format of the layers (one of these)").add_mutually_exclusive_group(required=True)
    kinds.add_argument("--estargz", action="store_const", dest="kind", const=LayerKind.ESTARGZ, help="eStargz")
    kinds.add_argument(
        "--zstd-chunked",
        "--zstdchunked",
        dest="kind",
        type=_zstd_kind,
        nargs="?",
        const=LayerKind.ZSTD_CHUNKED_PODMAN,
        metavar="podman|stargz",
        help="zstd:chunked of podman (default) or of stargz-snapshotter; OCI media types",
    )
    kinds.add_argument(
        "--uncompress", action="store_const", dest="kind", const=LayerKind.UNCOMPRESSED, help="plain tar"
    )
    layers = parser.add_argument_group("layers")
    layers.add_argument("--level", type=int, metavar="N", help="of the compression (eStargz: 1 to 12, zstd: 1 to 19)")
    layers.add_argument("--chunk-size", type=size, default=DEFAULT_CHUNK_SIZE, metavar="SIZE", help="default: 4MiB")
    layers.add_argument(
        "--estargz-min-chunk-size", type=size, default=0, metavar="SIZE", help="small files share a gzip member"
    )
    layers.add_argument("--estargz-external-toc", action="store_true", help="TOCs go to an image DST-esgztoc")
    layers.add_argument("--estargz-keep-diff-id", action="store_true", help="the tar stays byte for byte the same")
    layers.add_argument("--reuse", action="store_true", help="leave layers that are in the format already as they are")
    first = parser.add_argument_group("files that come first")
    first.add_argument(
        "--prefetch-list", type=Path, action="append", default=[], metavar="FILE",
        help="paths, and patterns with * ? [] **, one a line",
    )  # fmt: skip
    first.add_argument(
        "--record-in", type=Path, action="append", default=[], metavar="FILE",
        help='JSON lines {"path", "manifestDigest", "layerIndex"}, as ctr-remote records them',
    )  # fmt: skip
    images = parser.add_argument_group("images")
    images.add_argument("--oci", action="store_true", help="OCI media types instead of docker's")
    images.add_argument(
        "--platform", type=platform, action="append", default=[], metavar="OS/ARCH",
        help="of an index; repeatable (default: this host's)",
    )  # fmt: skip
    images.add_argument("--all-platforms", action="store_true", help="the whole index")
    images.add_argument(
        "--mount-from", action="append", default=[], metavar="REPOSITORY",
        help="a repository at the destination's registry that may have the layers; repeatable",
    )  # fmt: skip
    parser.add_argument("--jobs", type=int, default=0, metavar="N", help="threads (default: one per core)")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done")
    parser.add_argument("--json", action="store_true", dest="as_json", help="the result as JSON")


def _zstd_kind(text: str) -> LayerKind:
    kinds = {"podman": LayerKind.ZSTD_CHUNKED_PODMAN, "stargz": LayerKind.ZSTD_CHUNKED_STARGZ}
    if text not in kinds:
        raise argparse.ArgumentTypeError(f"wanted podman or stargz, got {text!r} (write --zstd-chunked=podman)")
    return kinds[text]


def read(given: argparse.Namespace) -> Arguments:
    """Check the command line. Raises InvalidInputError."""
    if given.jobs < 0:
        raise InvalidInputError(f"--jobs: wanted at least 1, got {given.jobs}")
    if given.estargz_keep_diff_id and not given.estargz_external_toc:
        raise InvalidInputError("--estargz-keep-diff-id: wanted with --estargz-external-toc")
    layer = WriteOptions(
        given.kind,
        level=given.level,
        chunk_size=given.chunk_size,
        min_chunk_size=given.estargz_min_chunk_size,
        external_toc=given.estargz_external_toc,
        keep_diff_id=given.estargz_keep_diff_id,
    )
    patterns: list[Pattern] = []
    for path in given.prefetch_list:
        patterns += parse_list(_text(path))
    records: list[Record] = []
    for path in given.record_in:
        records += parse_records(_text(path), str(path))
    options = ImageOptions(
        layer,
        oci=given.oci,
        platforms=tuple(dict.fromkeys(given.platform)),
        all_platforms=given.all_platforms,
        default_platform=host_platform(),
        wishes=Wishes(tuple(records), tuple(patterns)),
        reuse=given.reuse,
        jobs=given.jobs or len(os.sched_getaffinity(0)),
    )
    source, destination = Place.parse(given.source), Place.parse(given.destination)
    return Arguments(source, destination, options, tuple(given.mount_from), given.dry_run, given.as_json)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "surrogateescape")
    except OSError as error:
        raise InvalidInputError(f"{path}: {error.strerror}") from None


async def run(arguments: Arguments) -> int:
    """Convert, or say what would be done; the exit status."""
    with work.opened(arguments.purpose) as directory, reporter() as watcher:
        async with registry_client() as client:
            source = await open_source(arguments.source, client, directory)
            destination = open_destination(
                arguments.destination, source, client, directory, arguments.mount_from
            )
            conversion = Conversion(source, destination, arguments.options, directory, watcher)
            plan = await conversion.plan()
            _warn(plan, arguments, watcher)
            if arguments.dry_run:
                sys.stdout.write(_described(conversion, plan, as_json=arguments.as_json))
                return 0
            converted = await conversion.run(plan)
    document = converted.to_json() | {"destination": str(arguments.destination)}
    sys.stdout.write(f"{json.dumps(document) if arguments.as_json else converted.digest}\n")
    return 0


def _warn(plan: Plan, arguments: Arguments, watcher: Reporter) -> None:
    docker = any("docker" in image.document.media_type for image in plan.images)
    lazy = arguments.options.layer.kind is not LayerKind.UNCOMPRESSED
    if docker and lazy and not arguments.options.needs_oci and arguments.destination.transport == "docker":
        watcher.message("note: podman sees no annotations in docker's manifests, so it pulls them in full; see --oci")


def _described(conversion: Conversion, plan: Plan, *, as_json: bool) -> str:
    if as_json:
        images = [
            {
                "platform": image.platform,
                "manifest": str(image.document.digest),
                "layers": [
                    {
                        "digest": str(job.descriptor.digest),
                        "size": job.descriptor.size,
                        "mediaType": job.descriptor.media_type,
                        "outcome": conversion.outcome(job),
                        "prioritized": list(job.prioritized),
                    }
                    for job in image.jobs
                ],
            }
            for image in plan.images
        ]
        return json.dumps({"dryRun": True, "images": images}) + "\n"
    lines = []
    for image in plan.images:
        lines.append(f"{image.platform} {image.document.digest}")
        for job in image.jobs:
            first = f", {len(job.prioritized)} files first" if job.prioritized else ""
            size_text = f"{job.descriptor.size} bytes"
            lines.append(f"  {job.descriptor.digest} {size_text}: would be {conversion.outcome(job)}{first}")
    return "\n".join(lines) + "\n"
