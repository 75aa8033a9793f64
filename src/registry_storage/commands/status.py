"""``registry-storagectl status`` and ``ls``: the running daemon, and what it has on disk."""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from ..control.client import connect
from ..logs import printable
from . import asking

_WIDE = 400
"""Columns where there is no terminal, so that no name is broken."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """What the command line says."""

    socket: Path
    as_json: bool
    images: tuple[str, ...] = ()


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the commands."""
    for name, run, text in (
        ("status", run_status, "say how the running daemon is"),
        ("ls", run_list, "list the images and layers that are on disk, and how much of them"),
    ):
        parser = commands.add_parser(name, help=text, allow_abbrev=False)
        if name == "ls":
            parser.add_argument("images", nargs="*", metavar="TEXT", help="only images whose name holds this")
        parser.add_argument("--json", action="store_true", dest="as_json", help="for machines")
        asking.add_options(parser)
        parser.set_defaults(read=read, run=run)


def read(given: argparse.Namespace) -> Arguments:
    """Raises ConfigError."""
    return Arguments(asking.control_socket(given), given.as_json, tuple(getattr(given, "images", ())))


async def run_status(arguments: Arguments) -> int:
    """Print a few lines, or everything as JSON."""
    async with connect(arguments.socket) as client:
        status, activity = await client.get("/v1/status"), await client.get("/v1/activity")
    if arguments.as_json:
        sys.stdout.write(json.dumps({**status, "activity": activity}, indent=2) + "\n")
        return 0
    layers = status["layers"]
    lane, hosts = activity["lane"], activity["hosts"]
    fetched = sum(host["bytes"] for host in hosts.values())
    images = {link["reference"] for layer in layers for link in layer["links"]}
    used = sum(1 for layer in layers if layer["uses"])
    on_disk = sum(layer["disk_bytes"] for layer in layers)
    lines = [
        f"registry-storage {status['version']}, process {status['pid']}, up {duration(status['uptime_seconds'])}",
        f"serving   {status['mountpoint']} from {status['root']}",
        f"images    {len(images)} with {len(layers)} layers, {used} in use; {decimal(on_disk)} on disk",
        f"read      {decimal(lane['read_bytes'])}; {lane['answered']} requests answered, {lane['parked']} had to wait",
        f"fetched   {decimal(fetched)} since the start",
        f"memory    {decimal(activity['resident_bytes'])}",
    ]
    for name, host in sorted(hosts.items()):
        lines.append(f"host      {name}: {decimal(host['bytes'])}, requests by status {_codes(host['requests'])}")
    for key, text in (("refused_chunks", "REFUSED"), ("damaged_chunks", "DAMAGED")):
        if activity[key]:
            lines.append(f"{text:<9} {activity[key]} chunks; see the log")
    sys.stdout.write("".join(f"{printable(line)}\n" for line in lines))
    return 0


async def run_list(arguments: Arguments) -> int:
    """Print a table, or the layers as JSON."""
    async with connect(arguments.socket) as client:
        layers = (await client.get("/v1/status"))["layers"]
    wanted = arguments.images
    rows = [
        (link["reference"], layer, link["uses"])
        for layer in layers
        for link in layer["links"]
        if not wanted or any(text in link["reference"] for text in wanted)
    ]
    rows.sort(key=lambda row: row[0])
    if arguments.as_json:
        sys.stdout.write(json.dumps([{"reference": name, "uses": uses, **layer} for name, layer, uses in rows]) + "\n")
        return 0
    console = Console(width=None if sys.stdout.isatty() else _WIDE, highlight=False)
    with console.capture() as printed:
        console.print(layer_table(rows))
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in printed.get().splitlines()))
    return 0


def layer_table(rows: Iterable[tuple[str, dict[str, Any], int]]) -> Table:
    """One line per layer, the image's name on its first."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("IMAGE", overflow="fold")
    table.add_column("LAYER", no_wrap=True)
    for name in ("USES", "ON DISK", "OF", "SHARE"):
        table.add_column(name, justify="right", no_wrap=True)
    before = None
    for name, layer, uses in rows:
        table.add_row(
            printable(name) if name != before else "",
            short(layer["layer_digest"]),
            str(uses),
            decimal(layer["disk_bytes"]),
            decimal(layer["content_bytes"]),
            percent(share([layer])),
        )
        before = name
    return table


def share(layers: Sequence[dict[str, Any]]) -> float:
    """How much of the layers' files is on disk, 0 to 1: by bytes, which are known of every layer.

    A layer with all its chunks is whole, although the holes in its files take no place on disk.
    """
    content = sum(layer["content_bytes"] for layer in layers)
    here = sum(
        layer["content_bytes"] if layer["present_chunks"] == layer["chunk_count"] else layer["disk_bytes"]
        for layer in layers
    )
    return min(1.0, here / content) if content else 1.0


def percent(part: float) -> str:
    """``42 %``."""
    return f"{round(part * 100)} %"


def short(digest: str) -> str:
    """Enough of a digest to tell it from others."""
    return digest.removeprefix("sha256:")[:12]


def duration(seconds: float) -> str:
    """``3 d 4 h``, ``12 min``, ``5 s``."""
    units: Sequence[tuple[int, str]] = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    left = int(seconds)
    parts: list[str] = []
    for size, name in units:
        if left >= size or (name == "s" and not parts):
            parts.append(f"{left // size} {name}")
            left %= size
    return " ".join(parts[:2])


def _codes(requests: dict[str, int]) -> str:
    return ", ".join(f"{code if code != '0' else 'none'}: {count}" for code, count in sorted(requests.items()))
