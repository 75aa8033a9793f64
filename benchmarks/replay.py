"""What readers wait for in cold starts, without noise: recorded reads, the fetcher itself, a simulated link and clock.

    python -m benchmarks.replay record DIRECTORY [--images python3,…]      as root: about ten seconds for each
    python -m benchmarks.replay DIRECTORY [--links 100m,1g] [--without config|programs]

To record, a workload of hellobench runs through the daemon with everything in the cache, so that the time between two
reads is the workload's own. To replay, each read follows the one before it after that time, and waits for its chunks:
by `layer/chunks.py` and all that decides what to fetch, over a link that is shared fairly and a clock that jumps.
Chunks are not decoded; that takes the time that DECODE_BYTES_PER_SECOND gives it.
"""

import argparse
import json
import math
import os
import shlex
import shutil
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import trio
import trio.testing

from benchmarks.hellobench import plan
from benchmarks.hellobench.sample import run_until_ready
from benchmarks.store import OURS, Store
from lab import images, make, places
from lab.podman import Podman
from lab.registry import Registry
from lab.workloads import WORKLOADS, Workload
from registry_storage.layer.activity import Activity
from registry_storage.layer.chunks import ChunkFetcher
from registry_storage.layer.memory import MemoryBudget
from registry_storage.layer.programs import Programs
from registry_storage.layer.spare import SpareTime
from registry_storage.layer.start import Start
from registry_storage.registry.hosts import LinkEstimate
from registry_storage.toc.index import TocIndex

DECODE_BYTES_PER_SECOND = 300e6
REQUEST_SECONDS = 0.005
"""Of the daemon's event loop."""
CREATE_SECONDS = 0.3
"""From open layers to the container's first read: podman commits layers and creates the container."""
SEGMENT_BYTES = 16 << 10
COMPLETE_SECONDS = 120.0
_MODE = plan.MODES["zstd"]


# Recording


def record(directory: Path, names: Sequence[str]) -> None:
    """One directory for each workload: `reads`, `documents`, `layers`."""
    make.make([_MODE.part(WORKLOADS[name]) for name in names])
    with (
        places.scratch("replay") as scratch,
        Registry(images.registry_storage(), scratch / "registry", readonly=True) as registry,
    ):
        for name in names:
            _record(WORKLOADS[name], directory / name, scratch / name, registry.host)
            print(f"{name}: {len((directory / name / 'reads').read_text().splitlines()) - 1} reads", flush=True)


def _record(workload: Workload, to: Path, home: Path, registry_host: str) -> None:
    reads = home / "reads"
    command = f"{OURS} --no-prefetch --record {shlex.quote(str(reads))}"
    with Store(command, home / "store", home / "mnt", registry_host) as store:
        podman = Podman(home / "podman", registry_host, store=store.mountpoint)
        try:
            tag = _MODE.tag(workload)
            podman.pull(tag)
            image = podman.name(tag)
            layers = podman.run("image", "inspect", "--format", "{{len .RootFS.Layers}}", image).stdout
            _wait_until(lambda: store.log.read_text().count(": complete,") >= int(layers))
            podman.run("create", "--name=bench", "--network=none", image, *workload.words)
            Path("/proc/sys/vm/drop_caches").write_text("3")
            before, began = len(reads.read_text().splitlines()), time.monotonic()
            run_until_ready(podman, "bench", workload.ready)
            lines = [json.dumps([began, time.monotonic()]), *reads.read_text().splitlines()[before:]]
            shutil.rmtree(to, ignore_errors=True)
            to.mkdir(parents=True)
            (to / "reads").write_text("\n".join(lines) + "\n")
            for part in ("documents", "layers"):
                shutil.copytree(store.root / part, to / part)
        finally:
            podman.close()


def _wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + COMPLETE_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"the image was not complete after {COMPLETE_SECONDS:g} s")
        time.sleep(0.1)


class Read(NamedTuple):
    """One request of the kernel; `pause` seconds after the one before it was answered."""

    pause: float
    layer: int
    inode: int
    offset: int
    size: int


class Recording:
    """A workload, as `record` left it."""

    def __init__(self, directory: Path) -> None:
        lines = [json.loads(line) for line in (directory / "reads").read_text().splitlines()]
        (last, self._end), lines = lines[0], lines[1:]
        digest = lines[0]["manifestDigest"].partition(":")[2]
        manifest = json.loads((directory / "documents" / digest).read_bytes())
        self.config = (directory / "documents" / manifest["config"]["digest"].partition(":")[2]).read_bytes()
        self.layers = list(_layers(directory, manifest))
        self.reads: list[Read] = []
        for line in lines:
            index = self.layers[line["layerIndex"]][0]
            inode = 0
            for name in os.fsencode(line["path"]).split(b"/"):
                inode = index.lookup(inode, name) or 0
            pause = max(0.0, line["seconds"] - last)
            self.reads.append(Read(pause, line["layerIndex"], inode, line["offset"], line["size"]))
            last = line["seconds"]


def _layers(directory: Path, manifest: dict[str, Any]) -> Iterator[tuple[TocIndex, Path]]:
    for layer in manifest["layers"]:
        [found] = (directory / "layers").glob(f"{layer['digest'].partition(':')[2]}-*")
        yield TocIndex((found / "index").read_bytes()), found / "content"


# Replaying


class SimulatedLink:
    """One link for all layers; whoever streams gets the same share of it."""

    def __init__(self, speed: plan.Speed) -> None:
        self._bytes_per_second = speed.mbit * 1e6 / 8
        self._half_trip = speed.rtt_ms / 2000
        self._senders: list[tuple[list[int], trio.MemorySendChannel[tuple[float, int]]]] = []
        self._came = trio.Event()
        self._loop_free_at = 0.0
        self.link = LinkEstimate()
        self.bytes = 0
        self.requests = 0

    async def run(self) -> None:
        """The far end, until cancelled: segments in turn."""
        turn = 0
        while True:
            if not self._senders:
                self._came = trio.Event()
                await self._came.wait()
                continue
            turn = (turn + 1) % len(self._senders)
            left, channel = sender = self._senders[turn]
            size = min(SEGMENT_BYTES, left[0])
            await trio.sleep(size / self._bytes_per_second)
            left[0] -= size
            self.bytes += size
            channel.send_nowait((trio.current_time() + self._half_trip, size))
            if not left[0]:
                self._senders.remove(sender)
                channel.close()

    async def stream(self, offset: int, size: int) -> AsyncGenerator[bytes, None]:
        """As `BlobSource.stream`; only the size of what it yields is right."""
        now = trio.current_time()
        self._loop_free_at = max(self._loop_free_at, now) + REQUEST_SECONDS
        await trio.sleep(self._loop_free_at - now)
        self.requests += 1
        asked = trio.current_time()
        await trio.sleep(self._half_trip)
        send, receive = trio.open_memory_channel[tuple[float, int]](math.inf)
        self._senders.append(([size], send))
        self._came.set()
        began = 0.0
        async for at, part in receive:
            await trio.sleep(max(0.0, at - trio.current_time()))
            if not began:
                began = trio.current_time()
                self.link = self.link.with_round_trip(began - asked)
            yield bytes(part)
        self.link = self.link.with_body(size, trio.current_time() - began)


class _Content:
    """What is ready, and, for those who look into files, all of it."""

    def __init__(self, path: Path) -> None:
        self.ready: set[int] = set()
        self._file = path.open("rb")

    def is_ready(self, number: int) -> bool:
        return number in self.ready

    is_present = is_ready

    def mark_ready(self, numbers: Sequence[int]) -> None:
        self.ready.update(numbers)

    def is_hole_clean(self, chunk: Any) -> bool:
        """Nobody looks."""
        return True

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._file.fileno(), size, offset)


class _Nothing:
    """No chunk is kept in memory only."""

    def get(self, content: Any, number: int) -> None:
        return None


class _Fetcher(ChunkFetcher):
    async def _keep(self, span: bytes, span_offset: int, chunks: Sequence[Any]) -> None:
        await trio.sleep(sum(chunk.size for chunk in chunks) / DECODE_BYTES_PER_SECOND)
        self._ready([chunk.number for chunk in chunks])


class _Descriptor:
    def __init__(self) -> None:
        self.annotations: dict[str, str] = {}


class _Layer:
    """As much of a `Layer` as is asked for."""

    def __init__(self, index: TocIndex, content: _Content, source: SimulatedLink, chunks: ChunkFetcher) -> None:
        self.descriptor = _Descriptor()
        self.index, self.content, self.source, self.chunks = index, content, source, chunks

    async def read(self, inode: int, offset: int, size: int) -> bytes:
        await self.chunks.ensure(*self.index.chunk_range(inode, offset, size))
        size = min(size, self.index.attributes(inode).size - offset)
        return self.content.read(self.index.content_offset(inode) + offset, size)


class Outcome(NamedTuple):
    """Of one replay."""

    waited: float
    """Seconds that readers waited."""
    misses: int
    bytes: int
    requests: int


def replay(recording: Recording, speed: plan.Speed, *, config: bool = True, programs: bool = True) -> Outcome:
    """`config`: the programs that it names are brought. `programs`: those that readers begin are."""
    found: list[Outcome] = []

    async def main() -> None:
        link, activity, memory = SimulatedLink(speed), Activity(), MemoryBudget(128 << 20)
        any_: Any = None  # the parts of the fetcher that are never asked
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.run)
            layers: list[Any] = []
            for number, (index, path) in enumerate(recording.layers):
                content: Any = _Content(path)
                chunks = _Fetcher(
                    str(number), any_, index, content, link, activity, nursery, any_, memory, _Nothing()  # type: ignore[arg-type]
                )
                layers.append(_Layer(index, content, link, chunks))
            if programs:
                _follow(recording, layers, activity, nursery, config)
            await trio.sleep(CREATE_SECONDS)
            waited, misses = 0.0, 0
            for pause, number, inode, offset, size in recording.reads:
                await trio.sleep(pause)
                layer = layers[number]
                first, end = layer.index.chunk_range(inode, offset, size)
                began = trio.current_time()
                await layer.chunks.ensure(first, end)
                misses += trio.current_time() > began
                waited += trio.current_time() - began
            found.append(Outcome(waited, misses, link.bytes, link.requests))
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return found[0]


def _follow(recording: Recording, layers: list[Any], activity: Activity, nursery: trio.Nursery, config: bool) -> None:
    spare = SpareTime(activity, lambda: True)
    nursery.start_soon(spare.run)
    programs: Any = Programs(nursery, spare)
    for number, layer in enumerate(layers):
        programs.know(layer, "image", number)
    if config:
        programs.start("image", Start.of(recording.config, "config"))


def _show(directory: Path, names: Sequence[str], links: Sequence[str], without: str) -> None:
    recordings = {name: Recording(directory / name) for name in names}
    for link in links:
        print(f"{plan.SPEEDS[link].title}: seconds waited, misses, MB, requests")
        total: Any = (0.0, 0, 0, 0)
        for name, recording in recordings.items():
            config, programs = without not in ("config", "programs"), without != "programs"
            one = replay(recording, plan.SPEEDS[link], config=config, programs=programs)
            total = [left + right for left, right in zip(total, one, strict=True)]
            _print(name, one)
        _print("all", Outcome(*total))


def _print(name: str, one: Outcome) -> None:
    print(f"  {name:10}{one.waited:7.2f}{one.misses:6}{one.bytes / 1e6:7.1f}{one.requests:6}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("words", nargs="+", metavar="[record] DIRECTORY")
    parser.add_argument("--images", default=",".join(WORKLOADS))
    parser.add_argument("--links", default="100m,1g")
    parser.add_argument("--without", choices=("config", "programs"), default="")
    given = parser.parse_args()
    names, directory = given.images.split(","), Path(given.words[-1])
    if given.words[0] == "record":
        record(directory, names)
    else:
        _show(directory, names, given.links.split(","), given.without)


if __name__ == "__main__":
    main()
