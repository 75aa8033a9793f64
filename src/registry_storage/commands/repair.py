"""``registry-storagectl repair``: references made right from podman's own records."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from . import asking


def add_parsers(commands: Any) -> None:
    """The command `repair`."""
    parser = commands.add_parser(
        "repair", help="count again which layers podman uses",
        description="Count again, from podman's graph roots, which layers are used, and drop what nobody has used "
        "for the configured time. The daemon does this itself at its start and every hour.",
    )  # fmt: skip
    asking.add_options(parser)
    parser.add_argument(
        "--nobody-pulls", action="store_true", help="no pull is under way: lower counts that changed just now, too"
    )
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.set_defaults(read=lambda given: (asking.control_socket(given), given), run=run)


async def run(asked: tuple[Path, argparse.Namespace]) -> int:
    """Ask, and show what was done."""
    path, given = asked
    async with asking.daemon(path) as daemon:
        report = await daemon.post("/v1/repair", {"nobody_pulls": given.nobody_pulls})
        collected = await daemon.post("/v1/collect")
    if given.json:
        sys.stdout.write(json.dumps({"repair": report, "collect": collected}) + "\n")
        return 0
    roots = ", ".join(report["graph_roots"]) or "none"
    sys.stdout.write(
        f"graph roots: {roots}\n"
        f"layers in use: {report['used_layers']}\n"
        f"counts raised {report['raised']}, lowered {report['lowered']}, left for later {report['deferred']}\n"
        f"layers linked again {report['restored']}, not known any more {report['unknown']}\n"
        f"dropped: {collected['links']} links, {collected['layers']} layers, {collected['files']} files, "
        f"{collected['freed_bytes'] / 1e6:.1f} MB\n"
    )
    return 0
