"""``registry-storagectl explain``: which layers of an image are lazy on this host, and why not."""

import argparse
import json
import sys
from dataclasses import asdict, dataclass

from ..config import Settings
from ..descriptor import Descriptor
from ..errors import FormatError, ProgramError, RangeNotServedError
from ..flags import add_settings, effective_settings
from ..formats.detect import detect
from ..host.podman import PodmanVersion, podman_version
from ..host.remote import fetch_manifest, try_range
from ..logs import printable
from ..names import CONTROL
from ..reference import Reference
from ..registry.client import RegistryClient
from ..registry.surroundings import Surroundings


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


@dataclass(frozen=True, slots=True)
class Verdict:
    """An image, on this host."""

    reference: str
    podman: str
    sources: tuple[str, ...]
    """Where it is fetched from, in order."""
    ranges: str
    """Whether the registry serves them."""
    layers: tuple[LayerVerdict, ...]
    mend: str
    """The command that makes it lazy; empty when it is."""


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
    return int(bool(verdict.mend) or not all(layer.lazy for layer in verdict.layers))


async def _judge(client: RegistryClient, around: Surroundings, arguments: Arguments) -> Verdict:
    reference = arguments.reference
    sources = tuple(
        f"{one.host}/{one.repository}{'' if any(way.verified for way in one.ways) else ' (insecure)'}"
        for one in around.registries.endpoints(reference)
    )
    try:
        podman: PodmanVersion | None = podman_version()
        said = f"podman {podman}"
    except ProgramError as error:
        podman, said = None, str(error)
    if podman is not None and podman.forgets_layers:
        said += ": it forgets layers that it took from a store (its defect since 5.5)"
    manifest = await fetch_manifest(client, reference, arguments.settings.platform)
    served, ranges = True, "no layer is large enough to try"
    if largest := max((one for one in manifest.layers if one.size > 1), key=lambda one: one.size, default=None):
        try:
            await try_range(client, reference, largest)
            ranges = "served"
        except RangeNotServedError as error:
            served, ranges = False, f"not served: {error}"
    layers = tuple(_layer(descriptor, podman, served) for descriptor in manifest.layers)
    return Verdict(str(reference), said, sources, ranges, layers, _mend(reference, layers))


def _layer(descriptor: Descriptor, podman: PodmanVersion | None, ranges_served: bool) -> LayerVerdict:
    digest, size = str(descriptor.digest), descriptor.size
    try:
        lazy = detect(descriptor)
    except FormatError as error:
        kind = descriptor.media_type.rpartition(".")[2]
        return LayerVerdict(digest, size, False, kind, str(error))
    name = lazy.format.name
    if not ranges_served:
        return LayerVerdict(digest, size, False, name, "the registry serves no ranges")
    asked = str(lazy.toc_digest) if podman is None else podman.asks_for(descriptor)
    if asked is None:
        reason = f"podman {podman} does not know its annotations, and downloads it without asking"
        return LayerVerdict(digest, size, False, name, reason)
    if lazy.toc is not None and lazy.toc.compressed_size is not None:
        first = f"its TOC of {lazy.toc.compressed_size} bytes"
    else:
        first = "its TOC, from the end of the blob"
    what = "TOC digest" if asked == str(lazy.toc_digest) else "layer digest"
    reason = f"asked for by its {what} {asked[:19]}…; fetched first: {first}; then what is read"
    return LayerVerdict(digest, size, True, name, reason)


def _mend(reference: Reference, layers: tuple[LayerVerdict, ...]) -> str:
    if all(layer.lazy for layer in layers):
        return ""
    if any("serves no ranges" in layer.reason for layer in layers):
        return "push it to a registry that serves ranges, or name a mirror that does in registries.conf"
    target = Reference(reference.host, reference.repository, f"{reference.tag or 'latest'}-lazy")
    return f"{CONTROL} convert --zstd-chunked {reference} {target}"


def _lines(verdict: Verdict) -> list[str]:
    lazy = sum(layer.lazy for layer in verdict.layers)
    lines = [
        f"{verdict.reference}: {lazy} of {len(verdict.layers)} layers are lazy here",
        f"  podman   {verdict.podman}",
        *(f"  {'from' if not at else 'then':<7}  {source}" for at, source in enumerate(verdict.sources)),
        f"  ranges   {verdict.ranges}",
    ]
    for layer in verdict.layers:
        mark = "lazy    " if layer.lazy else "NOT LAZY"
        lines += [f"{mark}  {layer.digest[:19]}…  {layer.size} bytes  {layer.format}", f"          {layer.reason}"]
    if verdict.mend:
        lines += ["to make it lazy:", f"  {verdict.mend}"]
    return [printable(line) for line in lines]
