"""``registry-storagectl explain``: which layers of an image are lazy on this host, and why not."""

import argparse
import json
import sys
from dataclasses import asdict, dataclass

from ..config import Settings
from ..descriptor import Descriptor
from ..errors import FormatError, ProgramError, RangeNotServedError
from ..flags import add_settings, effective_settings
from ..formats.detect import detect, layer_compression
from ..host.podman import PodmanVersion, podman_version
from ..host.remote import fetch_manifest, try_range
from ..logs import printable
from ..names import CONTROL
from ..reference import Reference
from ..registry.client import RegistryClient
from ..registry.surroundings import Surroundings

_NO_RANGES = "the registry serves no ranges"


@dataclass(frozen=True, slots=True)
class Arguments:
    """What the command line says."""

    reference: Reference
    settings: Settings
    as_json: bool


@dataclass(frozen=True, slots=True)
class LayerVerdict:
    """One layer."""

    digest: str
    size: int
    """Bytes of the blob."""
    lazy: bool
    format: str
    reason: str
    """Why not; else what podman asks for, and what is fetched before anything is read."""
    added: str
    """How it comes to the image store: ``lazy``, fetched ``whole``, or not at all."""


@dataclass(frozen=True, slots=True)
class Mend:
    """Something to do, once."""

    command: str
    """What to type; empty where no command does it."""
    said: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """An image, on this host."""

    reference: str
    podman: str
    platform: str
    """Which image of an index it is."""
    sources: tuple[str, ...]
    """Where it is fetched from, in order."""
    ranges: str
    """Whether the registry serves them."""
    layers: tuple[LayerVerdict, ...]
    mends: tuple[Mend, ...]
    """What makes it lazy, the first being the best; for an image that only has to be added, that."""


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "explain",
        help="say which layers of an image are lazy on this host, and why not",
        description="Ask the registry for an image as the daemon would, and say for each layer whether it is served "
        "lazily and why not, what this host's podman asks for, and what is fetched first. Nothing is changed. The "
        "status is 0 when every layer is lazy, else 1.",
        allow_abbrev=False,
    )
    parser.add_argument("image", metavar="IMAGE")
    parser.add_argument("--json", action="store_true", dest="as_json", help="for machines")
    add_settings(parser)
    parser.set_defaults(read=read, run=run)


def read(given: argparse.Namespace) -> Arguments:
    """Raises InvalidReferenceError and ConfigError."""
    return Arguments(Reference.parse(given.image), effective_settings(given).settings, given.as_json)


async def run(arguments: Arguments) -> int:
    """Print the verdict; 0 when every layer is lazy."""
    around = Surroundings.of(arguments.settings)
    async with around.client() as client:
        verdict = await _judge(client, around, arguments)
    if arguments.as_json:
        sys.stdout.write(json.dumps(asdict(verdict), indent=2) + "\n")
    else:
        sys.stdout.write("\n".join(_lines(verdict)) + "\n")
    return int(not all(layer.lazy for layer in verdict.layers))


async def _judge(client: RegistryClient, around: Surroundings, arguments: Arguments) -> Verdict:
    reference = arguments.reference
    sources = tuple(
        f"{one.host}/{one.repository}{'' if any(way.verified for way in one.ways) else ' (insecure)'}"
        for one in around.registries.endpoints(reference)
    )
    try:
        version = podman_version()
    except ProgramError as error:
        podman: PodmanVersion | None = None
        said = str(error)
    else:
        podman, said = version, f"podman {version} {version.way}"
    manifest = await fetch_manifest(client, reference, arguments.settings.platform)
    served, ranges = True, "no layer is large enough to try"
    if largest := max((one for one in manifest.layers if one.size > 1), key=lambda one: one.size, default=None):
        try:
            await try_range(client, reference, largest)
            ranges = "served"
        except RangeNotServedError as error:
            served, ranges = False, f"not served: {error}"
    layers = tuple(_layer(descriptor, podman, served) for descriptor in manifest.layers)
    platform = str(arguments.settings.platform)
    return Verdict(str(reference), said, platform, sources, ranges, layers, _mends(reference, layers, podman))


def _layer(descriptor: Descriptor, podman: PodmanVersion | None, ranges_served: bool) -> LayerVerdict:
    digest, size = str(descriptor.digest), descriptor.size
    try:
        found = detect(descriptor)
    except FormatError as error:
        kind = descriptor.media_type.rpartition(".")[2]
        return LayerVerdict(digest, size, False, kind, str(error), "whole" if _can_be_unpacked(descriptor) else "")

    def verdict(lazy: bool, reason: str) -> LayerVerdict:
        return LayerVerdict(digest, size, lazy, found.format.name, reason, "lazy")

    if not ranges_served:
        return verdict(False, _NO_RANGES)
    known = found.toc is not None and found.toc.compressed_size is not None
    toc = f"of {found.toc.compressed_size} bytes" if found.toc and known else "from the end of the blob"
    first = f"fetched first: its TOC, {toc}; then what is read"
    if podman is not None and podman.forgets_layers:
        return verdict(True, f"as soon as the image is added; {first}")
    asked = str(found.toc_digest) if podman is None else podman.asks_for(descriptor)
    if asked is None:
        return verdict(False, f"podman {podman} does not know its annotations, and downloads it without asking")
    what = "TOC digest" if asked == str(found.toc_digest) else "layer digest"
    return verdict(True, f"asked for by its {what} {asked[:19]}…; {first}")


def _can_be_unpacked(descriptor: Descriptor) -> bool:
    try:
        layer_compression(descriptor.media_type)
    except FormatError:
        return False
    return not descriptor.urls


def _mends(reference: Reference, layers: tuple[LayerVerdict, ...], podman: PodmanVersion | None) -> tuple[Mend, ...]:
    add = f"{CONTROL} add {reference}"
    if all(layer.lazy for layer in layers):
        forgets = podman is not None and podman.forgets_layers
        return (Mend(add, "then podman runs it without a pull"),) if forgets else ()
    if any(layer.reason == _NO_RANGES for layer in layers):
        return (Mend("", "push it to a registry that serves ranges, or name a mirror that does in registries.conf"),)
    target = Reference(reference.host, reference.repository, f"{reference.tag or 'latest'}-lazy")
    convert = f"{CONTROL} convert --zstd-chunked {reference} {target}"
    mends = [Mend(convert, f"for every host: {target} is the same image in a lazy format")]
    if all(layer.added for layer in layers):
        whole = sum(layer.size for layer in layers if layer.added == "whole")
        how = f"{whole} bytes are fetched first, layers in no lazy format as a whole" if whole else "all of it is lazy"
        mends.append(Mend(add, f"on this host: podman runs it as it is, without a pull; {how}"))
    return tuple(mends)


def _lines(verdict: Verdict) -> list[str]:
    lazy = sum(layer.lazy for layer in verdict.layers)
    lines = [
        f"{verdict.reference}: {lazy} of {len(verdict.layers)} layers are lazy here",
        f"  podman   {verdict.podman}",
        f"  for      {verdict.platform}",
        *(f"  {'from' if not at else 'then':<7}  {source}" for at, source in enumerate(verdict.sources)),
        f"  ranges   {verdict.ranges}",
    ]
    for layer in verdict.layers:
        mark = "lazy    " if layer.lazy else "NOT LAZY"
        lines += [f"{mark}  {layer.digest[:19]}…  {layer.size} bytes  {layer.format}", f"          {layer.reason}"]
    if verdict.mends:
        lazy_already = all(layer.lazy for layer in verdict.layers)
        lines.append("to run it:" if lazy_already else "to make it lazy" + (", one of:" if verdict.mends[1:] else ":"))
    for mend in verdict.mends:
        lines += [f"  {mend.command}", f"      {mend.said}"] if mend.command else [f"  {mend.said}"]
    return [printable(line) for line in lines]
