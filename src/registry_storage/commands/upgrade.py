"""``registry-storagectl upgrade``: the installed version takes over the running daemon's mount."""

import argparse
import sys
from pathlib import Path
from typing import Any

import trio

from ..errors import DaemonError
from . import asking

PATIENCE_SECONDS = 60.0
AGAIN_SECONDS = 0.1


def add_parsers(commands: Any) -> None:
    """The command `upgrade`."""
    parser = commands.add_parser(
        "upgrade", help="let the installed version take over, without an error for any reader",
        description="Start the version that is installed now, with the configuration as it is now, beside the running "
        "one; when it is ready it takes over the mount. Containers go on, readers notice a short pause. When it does "
        "not come up, the running one goes on. SIGHUP does the same.",
    )  # fmt: skip
    asking.add_options(parser)
    parser.set_defaults(read=lambda given: (asking.control_socket(given), given), run=run)


async def run(asked: tuple[Path, argparse.Namespace]) -> int:
    """Ask, and wait for another worker. Raises DaemonError when there is none."""
    path, _ = asked
    async with asking.daemon(path) as daemon:
        before = await daemon.get("/v1/upgrade")
        await daemon.post("/v1/upgrade")
        with trio.move_on_after(PATIENCE_SECONDS):
            while True:
                await trio.sleep(AGAIN_SECONDS)
                try:
                    now = await daemon.get("/v1/upgrade")
                except DaemonError:  # between two workers nobody listens
                    continue
                if now["pid"] != before["pid"]:
                    sys.stdout.write(f"version {now['version']} serves (it was {before['version']})\n")
                    return 0
                if now["refusals"] > before["refusals"]:
                    raise DaemonError("the new version did not come up, its log says why; the running one goes on")
    raise DaemonError(f"no new worker serves after {PATIENCE_SECONDS:g} s; the daemon's log says more")
