"""The demo: one command from one image, once by full pull and once through registry-storage.

    make demo                              a Debian image of three layers, made here
    make demo IMAGE=host/name:tag          an existing image
    make demo IMAGE=… COMMAND='nginx -v'   another command in it

The registry is a real one on loopback, behind a simulated link. An image whose registry is not on loopback
comes over the machine's own network; the bytes are then those that its interfaces received.
"""

import argparse
import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lab import converters, images, make, places, processes
from lab.daemon import Daemon
from lab.link import Link
from lab.podman import Podman
from lab.registry import Registry, compressed_size, manifest_at

MBIT = 100.0
ROUND_TRIP_MS = 10.0

OWN_COMMAND = (
    "python3",
    "-c",
    'import json, numpy; print(json.dumps({"numpy": numpy.__version__, "sum": int(numpy.arange(9).sum())}))',
)
FOREIGN_COMMAND = ("/bin/sh", "-c", "echo ready")


@dataclass(frozen=True, slots=True)
class Source:
    """Where the image comes from and how the bytes of its way are counted."""

    host: str
    image: str
    """`repository:tag`, without the host."""
    way: str
    """The way in words."""
    received: Callable[[], int]
    """Bytes that came over the way since the last call."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run: seconds until the command's output was there, bytes until then."""

    seconds: float
    received_bytes: int
    output: str


class Demo:
    """The steps, with progress on standard error."""

    def __init__(self, scratch: Path, command: tuple[str, ...]) -> None:
        self.scratch = scratch
        self.command = command
        self._begin = time.monotonic()

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self._begin:4.0f} s] {text}", file=sys.stderr, flush=True)

    def full(self, source: Source) -> Outcome:
        """`podman run` without the store: podman downloads and unpacks every layer first."""
        podman = Podman(self.scratch / "full", source.host)
        try:
            return self._run(podman, source)
        finally:
            podman.close()

    def lazy(self, source: Source) -> Outcome:
        """`podman run` with the store; empty state on both sides."""
        podman_home = self.scratch / "lazy"
        mountpoint = self.scratch / "store"
        daemon = Daemon(
            self.scratch / "root",
            mountpoint,
            source.host,
            log=self.scratch / "registry-storage.log",
            options=("--no-background-fetch",),
        )
        with daemon:
            podman = Podman(podman_home, source.host, store=mountpoint)
            try:
                outcome = self._run(podman, source)
                if not podman.layers().lazy:
                    raise processes.ProgramError(
                        f"podman took no layer from the store; the daemon's log ends:\n{daemon.log_tail()}"
                    )
                return outcome
            finally:
                podman.close()

    def _run(self, podman: Podman, source: Source) -> Outcome:
        podman.run("info")  # makes the empty storage; not what is measured
        source.received()
        begin = time.monotonic()
        with subprocess.Popen(
            ["podman", "run", "--rm", "--network=none", podman.name(source.image), *self.command],
            env={**os.environ, **podman.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as program:
            assert program.stdout is not None
            output = program.stdout.readline()
            seconds = time.monotonic() - begin
            received = source.received()
            rest, errors = program.communicate()
        if program.returncode != 0:
            raise processes.ProgramError(f"podman run: exit status {program.returncode}\n{errors[-3000:]}")
        return Outcome(seconds, received, output + rest)


@contextlib.contextmanager
def own_image(demo: Demo) -> Iterator[Source]:
    """The demo's image in a registry of its own behind the link."""
    demo.say("making the image, unless it is there from an earlier run (Debian, python3, numpy, pandas)")
    make.make(make.DEMO_PARTS, demo.say)
    with Registry(images.registry_storage(), demo.scratch / "registry", readonly=True) as registry:
        demo.say(f"registry: {registry.host}")
        with _behind_link(registry.host, converters.tag("app", "zstd-old")) as source:
            yield source


@contextlib.contextmanager
def existing_image(name: str) -> Iterator[Source]:
    """An image of somebody else's registry: behind the link when the registry is on loopback."""
    host, _, image = name.partition("/")
    if not image or not ("." in host or ":" in host or host == "localhost"):
        raise SystemExit(f"IMAGE={name}: write it with its registry, as in registry.example:5000/name:tag")
    if host.partition(":")[0] in ("localhost", "127.0.0.1"):
        with _behind_link(host if ":" in host else f"{host}:80", image) as source:
            yield source
    else:
        counter = _InterfaceCounter()
        yield Source(host, image, "this machine's own network", counter.received)


@contextlib.contextmanager
def _behind_link(host: str, image: str) -> Iterator[Source]:
    with Link(host, rtt_ms=ROUND_TRIP_MS, mbit=MBIT) as link:
        way = f"a simulated link of {MBIT:.0f} Mbit/s and {ROUND_TRIP_MS:.0f} ms round trip"
        yield Source(link.host, image, way, lambda: link.crossed().down_bytes)


class _InterfaceCounter:
    """What all network interfaces but loopback received, from /proc/net/dev."""

    def __init__(self) -> None:
        self._last = self._read()

    def received(self) -> int:
        now = self._read()
        difference, self._last = now - self._last, now
        return difference

    @staticmethod
    def _read() -> int:
        total = 0
        for line in Path("/proc/net/dev").read_text().splitlines()[2:]:
            name, _, figures = line.partition(":")
            if name.strip() != "lo":
                total += int(figures.split()[0])
        return total


def show(source: Source, command: tuple[str, ...], full: Outcome, lazy: Outcome) -> None:
    """Prints what was done and the table."""
    image_bytes, layers = _size(source, full)
    print()
    print(f"image     {source.image}: {layers} layers, {image_bytes / 1e6:.1f} MB compressed")
    print(f"way       {source.way}")
    print(f"command   {shlex.join(command)}")
    print(f"output    {full.output.strip()}")
    print()
    print(f"{'':18}{'seconds to the output':>23}{'bytes over the link':>22}{'share of the image':>21}")
    for name, outcome in (("full pull", full), ("registry-storage", lazy)):
        share = 100 * outcome.received_bytes / image_bytes
        megabytes = f"{outcome.received_bytes / 1e6:.1f} MB"
        print(f"{name:18}{outcome.seconds:>23.1f}{megabytes:>22}{f'{share:.0f} %':>21}")
    print()
    print("Both began with empty storage. The daemon ran with --no-background-fetch: its bytes are what the")
    print("command needed.", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image", metavar="HOST/NAME:TAG", help="an existing image instead of our own")
    parser.add_argument("--command", help="the command to run in it, as one word for a shell's splitting")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("The demo mounts file systems and builds an image: run it as root.", file=sys.stderr)
        return 1
    default = FOREIGN_COMMAND if arguments.image else OWN_COMMAND
    command = tuple(shlex.split(arguments.command)) if arguments.command else default
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        return demonstrate(arguments.image, command)
    except (processes.ProgramError, converters.ConversionError, OSError) as error:
        print(f"The demo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; everything was taken down.", file=sys.stderr)
        return 128 + signal.SIGINT


def demonstrate(image: str | None, command: tuple[str, ...]) -> int:
    """Both runs and the table; everything that was started is ended, everything written is removed."""
    with contextlib.ExitStack() as stack:
        demo = Demo(stack.enter_context(places.scratch("demo")), command)
        source = stack.enter_context(existing_image(image) if image else own_image(demo))
        demo.say("full pull: podman run, everything is downloaded and unpacked first")
        full = demo.full(source)
        demo.say(f"output after {full.seconds:.1f} s")
        demo.say("registry-storage: podman run, contents are fetched when they are read")
        lazy = demo.lazy(source)
        demo.say(f"output after {lazy.seconds:.1f} s")
        show(source, command, full, lazy)
    if full.output != lazy.output:
        print(f"The outputs differ:\n{full.output}\n{lazy.output}", file=sys.stderr)
        return 1
    return 0


def _size(source: Source, full: Outcome) -> tuple[int, int]:
    """(compressed bytes, layers) of the image; what the full pull received where nobody tells."""
    try:
        manifest = manifest_at(source.host, source.image)
        return compressed_size(manifest), len(manifest["layers"])
    except (OSError, KeyError):
        return full.received_bytes, 0


if __name__ == "__main__":
    sys.exit(main())
