"""``registry-storagectl cache``: what is here, and what may go."""

import argparse
import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

from ..control.client import ControlClient
from ..logs import printable
from . import asking

_Command = Callable[[ControlClient, argparse.Namespace], Awaitable[int]]


def add_parsers(commands: Any) -> None:
    """The command `cache` with its own commands."""
    parser = commands.add_parser("cache", help="what the daemon keeps on disk: ls, prune, pin, unpin, verify")
    own = parser.add_subparsers(metavar="COMMAND", required=True)
    _add(own, "ls", _ls, "list layers: what is here of them, and which images use them").add_argument(
        "--json", action="store_true", help="for machines"
    )
    _add(own, "prune", _prune, "drop what no image uses").add_argument(
        "--all", action="store_true", help="also the contents of images that are in use and not pinned"
    )
    for name, command, words in (
        ("pin", _pin, "keep an image's contents, however full the cache is"),
        ("unpin", _unpin, "let them go again"),
    ):
        _add(own, name, command, words).add_argument("image", help="its full reference, as `cache ls` shows it")
    _add(own, "verify", _verify, "hash everything on disk again; what is damaged is dropped and fetched anew")


def _add(commands: Any, name: str, command: _Command, words: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=words, description=words[0].upper() + words[1:])
    asking.add_options(parser)
    parser.set_defaults(read=lambda given: (asking.control_socket(given), command, given), run=_run)
    return parser


async def _run(asked: tuple[Path, _Command, argparse.Namespace]) -> int:
    path, command, given = asked
    async with asking.daemon(path) as daemon:
        return await command(daemon, given)


async def _ls(daemon: ControlClient, given: argparse.Namespace) -> int:
    cache, layers = await daemon.get("/v1/cache"), (await daemon.get("/v1/status"))["layers"]
    if given.json:
        _say(json.dumps({**cache, "layers": layers}))
        return 0
    for layer in layers:
        here, whole = layer["disk_bytes"], layer["content_bytes"]
        share = f"{100 * here / whole:3.0f} %" if whole else "  -  "
        _say(f"{layer['layer_digest'][:19]}  {_mb(here)}  {share}  used {layer['uses']} times")
        for reference in dict.fromkeys(link["reference"] for link in layer["links"]):
            _say(f"    {reference}{'  pinned' if reference in cache['pinned'] else ''}")
    _say(f"{_mb(cache['used_bytes'])} of {_mb(cache['size_bytes'])}; {_mb(cache['keep_free_bytes'])} stay free")
    return 0


async def _prune(daemon: ControlClient, given: argparse.Namespace) -> int:
    answer = await daemon.post("/v1/cache/prune", {"all": given.all})
    _say(f"{_mb(answer['freed_bytes'])} freed")
    return 0


async def _pin(daemon: ControlClient, given: argparse.Namespace) -> int:
    await daemon.post("/v1/cache/pin", {"reference": given.image})
    return 0


async def _unpin(daemon: ControlClient, given: argparse.Namespace) -> int:
    await daemon.post("/v1/cache/unpin", {"reference": given.image})
    return 0


async def _verify(daemon: ControlClient, given: argparse.Namespace) -> int:
    """1 when something was damaged or could not be looked at."""
    status = 0
    async with aclosing(daemon.lines("POST", "/v1/cache/verify")) as lines:
        async for line in lines:
            if "problem" in line:
                _say(f"{line['layer']}: {line['problem']}")
                status = 1
            elif line.get("done"):
                size, chunks, damaged = _mb(line["bytes"]), line["chunks"], line["damaged"]
                _say(f"{line['layer'][:19]}  {size} in {chunks} chunks, {damaged} damaged")
                status = status or int(line["damaged"] > 0)
    return status


def _mb(size: int) -> str:
    return f"{size / 1e6:9.1f} MB"


def _say(text: str) -> None:
    sys.stdout.write(printable(text) + "\n")
