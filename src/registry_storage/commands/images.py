"""``add``, ``remove``, ``list`` and ``refresh``: images in the additional image store, by the running daemon."""

import argparse
import json
import sys
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..control.waiting_client import WaitingClient, connected
from ..descriptor import Platform
from ..errors import RegistryStorageError
from ..flags import platform
from ..logs import printable
from . import asking
from .progress import reporter

if TYPE_CHECKING:
    from ..convert.report import Reporter

_OUTCOMES = {"unpacked": "unpacked", "lazy": "served lazily", "here": "already here"}


@dataclass(frozen=True, slots=True)
class Arguments:
    """What the command line says."""

    socket: Path
    names: tuple[str, ...]
    platform: Platform | None
    as_json: bool


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the commands."""
    for name, run, text, names in (
        ("add", run_add, "make images available to every podman of this host, without pulling them", "+"),
        ("remove", run_remove, "take added images away", "+"),
        ("refresh", run_refresh, "move added tags to what the registry says now (default: all)", "*"),
        ("list", run_list, "list the added images", ""),
    ):
        parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)
        if names:
            parser.add_argument("names", metavar="IMAGE", nargs=names, help="its name in the registry")
        if name == "add":
            parser.add_argument(
                "--platform", type=platform, metavar="OS/ARCH[/VARIANT]", help="default: the daemon's"
            )
        parser.add_argument("--json", action="store_true", dest="as_json", help="one JSON object a line")
        asking.add_options(parser)
        parser.set_defaults(read=read, run=run)


def read(given: argparse.Namespace) -> Arguments:
    """Check the command line. Raises ConfigError."""
    names, wanted = tuple(getattr(given, "names", ())), getattr(given, "platform", None)
    return Arguments(asking.control_socket(given), names, wanted, given.as_json)


def run_add(asked: Arguments) -> int:
    """Each image in turn; one that fails does not keep the others from being added."""
    more = {} if asked.platform is None else {"platform": str(asked.platform)}
    with connected(asked.socket) as daemon:
        return _each(asked, daemon, asked.names, lambda name: ("/v1/images/add", {"name": name, **more}))


def run_refresh(asked: Arguments) -> int:
    """The same for what is there already."""
    with connected(asked.socket) as daemon:
        names = asked.names or tuple(image["name"] for image in daemon.get("/v1/images"))
        return _each(asked, daemon, names, lambda name: ("/v1/images/refresh", {"name": name}))


def run_remove(asked: Arguments) -> int:
    """Each in turn."""
    status = 0
    with connected(asked.socket) as daemon:
        for name in asked.names:
            try:
                _say(asked, daemon.post("/v1/images/remove", {"name": name}))
            except RegistryStorageError as error:
                status = _complain(asked, name, error)
    return status


def run_list(asked: Arguments) -> int:
    """A line for each name."""
    with connected(asked.socket) as daemon:
        for image in daemon.get("/v1/images"):
            if asked.as_json:
                _say(asked, image)
                continue
            size = sum(layer["size"] for layer in image["layers"])
            verified = all(layer["verified"] for layer in image["layers"])
            state = "complete" if verified else "lazy"
            words = (image["name"], image["manifest_digest"], f"{len(image['layers'])} layers", f"{size} bytes", state)
            _write("\t".join(words))
    return 0


def _each(
    asked: Arguments,
    daemon: WaitingClient,
    names: tuple[str, ...],
    question: Callable[[str], tuple[str, dict[str, str]]],
) -> int:
    status = 0
    with reporter(bars=False if asked.as_json else None) as report:
        for name in names:
            route, body = question(name)
            try:
                with closing(daemon.lines("POST", route, body)) as lines:
                    _follow(asked, lines, report)
            except RegistryStorageError as error:
                status = _complain(asked, name, error)
    return status


def _follow(asked: Arguments, lines: Generator[Any, None, None], report: "Reporter") -> None:
    steps: dict[str, Callable[[int], None]] = {}
    for line in lines:
        if "layer" not in line:
            _say(asked, line)
        elif asked.as_json:
            _write(json.dumps(line))
        else:
            layer, stage, done, total = line["layer"], line["stage"], line["done"], line["total"]
            short = layer.removeprefix("sha256:")[:12]
            if layer not in steps:
                steps[layer] = report.step(short, stage, total)
            steps[layer](done)
            if stage != "unpack":
                report.done(short, f"{_OUTCOMES[stage]}, {total} bytes")


def _say(asked: Arguments, image: dict[str, Any]) -> None:
    if asked.as_json:
        _write(json.dumps(image))
    else:
        _write(f"{image['name']}: {image['outcome']}: {image['manifest_digest']}")


def _complain(asked: Arguments, name: str, error: RegistryStorageError) -> int:
    if asked.as_json:
        _write(json.dumps({"name": name, "error": str(error)}))
    else:
        words = str(error)
        sys.stderr.write(printable(words if words.startswith(f"{name}:") else f"{name}: {words}") + "\n")
    return 1


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
