"""How a command reaches the running daemon: by the settings that the daemon has."""

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import load_settings
from ..control.address import socket_path
from ..names import DEFAULT_CONFIG, DEFAULT_ROOT

if TYPE_CHECKING:
    from ..control.client import ControlClient


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that say which daemon is meant."""
    parser.add_argument("--root", type=Path, metavar="DIR", help=f"the daemon's root (default: {DEFAULT_ROOT})")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help=f"the daemon's configuration (default: {DEFAULT_CONFIG}, if there)"
    )
    parser.add_argument("--control-socket", type=Path, metavar="PATH", help="where it listens (default: in the root)")


def control_socket(given: argparse.Namespace) -> Path:
    """Where the daemon that is meant listens. Raises ConfigError."""
    named = {"root": given.root, "control_socket": given.control_socket}
    settings = load_settings(given.config, {name: value for name, value in named.items() if value is not None})
    return socket_path(settings)


@asynccontextmanager
async def daemon(path: Path) -> "AsyncIterator[ControlClient]":
    """The daemon that listens at `path`, for commands that run in trio."""
    from ..control.client import connect  # those that only wait do without trio

    async with connect(path) as client:
        yield client
