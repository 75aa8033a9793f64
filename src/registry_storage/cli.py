"""The command ``registry-storage``."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import trio

from . import __version__, logs, traces
from .config import load_settings
from .errors import RegistryStorageError
from .flags import add_settings
from .names import DAEMON

_log = logging.getLogger(__name__)

_EPILOG = """\
Podman uses the mount as an additional layer store; in storage.conf(5):

    [storage.options]
    additionallayerstores = ["MOUNTPOINT:ref"]

Start this command first: podman refuses to work when the directory is missing.
"""


def build_parser() -> argparse.ArgumentParser:
    """The command line; flags left out are not in the result."""
    parser = argparse.ArgumentParser(
        prog=DAEMON,
        description="Show the layers of container images as directories, and fetch what is read when it is read.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument("mountpoint", type=Path, metavar="MOUNTPOINT", help="where to show the layers")
    parser.add_argument("--version", action="version", version=f"{DAEMON} {__version__}")
    add_settings(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon; returns the exit status: 0 after a stop on request, 1 when it cannot work, 2 for misuse."""
    from .daemon import run  # a wrong flag need not wait for it

    options = vars(build_parser().parse_args(arguments))
    mountpoint: Path = options.pop("mountpoint").absolute()
    file = options.pop("config", None)
    status = 0
    try:
        settings = load_settings(file, options)
        logs.set_up(settings.log_level, settings.log_format)
        finish = traces.set_up(settings.traces, __version__) if settings.traces else None
        try:
            trio.run(run, settings, mountpoint, lambda: load_settings(file, options))
        finally:
            if finish is not None:
                finish()
    except* RegistryStorageError as group:
        for error in _leaves(group):
            sys.stderr.write(f"{DAEMON}: {error}\n")
        status = 1
    return status


def _leaves(group: BaseExceptionGroup[RegistryStorageError]) -> list[RegistryStorageError]:
    found: list[RegistryStorageError] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


if __name__ == "__main__":
    sys.exit(main())
