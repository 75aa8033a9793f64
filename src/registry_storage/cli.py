"""The command ``registry-storage``."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import trio

from . import __version__, logs
from .config import LOG_FORMATS, LOG_LEVELS, load_settings
from .descriptor import Platform
from .errors import InvalidDocumentError, RegistryStorageError
from .names import CONTROL, DAEMON, DEFAULT_CONFIG, DEFAULT_ROOT

_log = logging.getLogger(__name__)

_EPILOG = """\
Podman uses the mount as an additional layer store; in storage.conf(5):

    [storage.options]
    additionallayerstores = ["MOUNTPOINT:ref"]

Start this command first: podman refuses to work when the directory is missing.
"""


def _platform(text: str) -> Platform:
    try:
        return Platform.parse(text)
    except InvalidDocumentError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


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
    parser.add_argument("--root", type=Path, metavar="DIR", help=f"contents and state (default: {DEFAULT_ROOT})")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help=f"configuration file, TOML (default: {DEFAULT_CONFIG}, if there)"
    )
    parser.add_argument("--platform", type=_platform, metavar="OS/ARCH", help="images to serve (default: this host's)")
    parser.add_argument(
        "--no-prefetch", dest="prefetch", action="store_false", help="do not fetch prioritized files ahead"
    )
    parser.add_argument(
        "--no-background-fetch",
        dest="background_fetch",
        action="store_false",
        help="do not fetch the rest of a layer when nobody reads",
    )
    parser.add_argument(
        "--lookup-timeout-seconds", type=float, metavar="S", help="longest wait for an answer about a layer"
    )
    parser.add_argument("--read-timeout-seconds", type=float, metavar="S", help="longest wait for bytes of a file")
    parser.add_argument("--read-ahead-kib", type=int, metavar="KIB", help="the kernel's read-ahead on the mount")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write down what is read, as JSON lines")
    parser.add_argument(
        "--control-socket", type=Path, metavar="PATH", help=f"where {CONTROL} reaches the daemon (default: in the root)"
    )
    parser.add_argument("--control-group", metavar="GROUP", help="who may use the control socket, besides root")
    parser.add_argument("--log-level", choices=LOG_LEVELS)
    parser.add_argument("--log-format", choices=LOG_FORMATS)
    parser.add_argument("--version", action="version", version=f"{DAEMON} {__version__}")
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
        trio.run(run, settings, mountpoint)
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
