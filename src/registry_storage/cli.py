"""The command ``registry-storage``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from . import __version__, logs
from .errors import RegistryStorageError
from .flags import add_settings, effective_settings
from .names import DAEMON
from .supervision.supervisor import Supervisor

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
    words = sys.argv[1:] if arguments is None else list(arguments)
    given = build_parser().parse_args(words)
    try:
        settings = effective_settings(given).settings
        logs.set_up(settings.log_level, settings.log_format)
        return Supervisor(settings.root.absolute(), given.mountpoint.absolute(), words).run()
    except RegistryStorageError as error:
        report(error)
        return 1


def report(error: BaseException) -> None:
    """Say on standard error why the daemon cannot work; each error of a group on a line."""
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            report(part)
    else:
        sys.stderr.write(f"{DAEMON}: {error}\n")


if __name__ == "__main__":
    sys.exit(main())
