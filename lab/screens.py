"""What `top` shows while two containers start, for the documentation: `python -m lab.screens` (root).

Taken from two terminals at one moment, beside a real podman, registry and daemon, and put into docs/operating.md below
the comments that name their sizes.
"""

import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from lab import converters, images, make, places
from lab.daemon import Daemon
from lab.link import Link
from lab.podman import Podman
from lab.registry import Registry
from lab.terminal import Terminal

PAGE = Path(__file__).parent.parent / "docs/operating.md"
SIZES = ((80, 24), (200, 60))
RTT_MS, MBIT = 20.0, 100.0
WORKLOADS = {"python": ("python3", "-c", "import numpy"), "redis": ("redis-server", "--version")}


def take(scratch: Path) -> list[str]:
    """A screen of each size, while the rest of the images is fetched in the background."""
    with ExitStack() as stack:
        lab = stack.enter_context(Registry(images.registry_storage(), scratch / "registry", readonly=True))
        link = stack.enter_context(Link(lab.host, rtt_ms=RTT_MS, mbit=MBIT))
        daemon = stack.enter_context(Daemon(scratch / "root", scratch / "store", link.host, log=scratch / "log"))
        podman = Podman(scratch / "podman", link.host, store=daemon.mountpoint)
        stack.callback(podman.close)
        command = f"{sys.executable} -m registry_storage.ctl top --root {daemon.root}"
        terminals = [
            stack.enter_context(Terminal(scratch / f"tmux{width}", width, height, command)) for width, height in SIZES
        ]
        names = [converters.tag(name, "zstd-old") for name in WORKLOADS]
        for name, words in zip(names, WORKLOADS.values(), strict=True):
            podman.run_image(name, *words)

        def busy(screen: str) -> bool:
            return all(name in screen for name in names) and re.search(r"fetched [1-9.]+ MB/s", screen) is not None

        return [terminal.shows(busy) for terminal in terminals]


def shown(text: str, screens: Sequence[str]) -> str:
    """The page with them."""
    for (width, height), screen in zip(SIZES, screens, strict=True):
        lines = [line.rstrip() for line in screen.rstrip().splitlines()]
        block = "```\n" + "\n".join(lines) + "\n```\n"
        place = re.compile(rf"(?<=<!-- top {width}x{height} -->\n)```\n.*?^```\n", re.DOTALL | re.MULTILINE)
        text, count = place.subn(block.replace("\\", r"\\"), text)
        if count != 1:
            raise SystemExit(f"{PAGE}: wanted one block below <!-- top {width}x{height} -->, got {count}")
    return text


def main() -> int:
    """Write them."""
    make.make([f"converted/{name}:zstd-old" for name in WORKLOADS])
    with places.scratch("screens") as scratch:
        PAGE.write_text(shown(PAGE.read_text(), take(scratch)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
