"""Makes everything that the tests or the demo need: `python3 -m lab.make [PART …]`.

Parts: `debian13`, `sid`, `image/NAME`, `converted/NAME:FORMAT`, `bench/WORKLOAD:FORMAT`; without any, all that the
tests and the demo need by default. What a part needs is made before it. What is there already costs nothing.
"""

import contextlib
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from lab import chroot, converters, images, ours, places
from lab.registry import Registry
from lab.workloads import WORKLOADS

WORKERS = 3
"""One more than the small machine's cores: downloads wait for the network."""

INTEROP_IMAGES = ("python", "gcc", "redis", "odd")

INTEROP_PARTS = tuple(
    f"converted/{name}:{image_format}" for name in INTEROP_IMAGES for image_format in converters.FORMATS
)
DEMO_PARTS = ("converted/app:zstd-old",)


@dataclass(frozen=True, slots=True)
class Job:
    """One part: what identifies its content, how it is made, and the parts that must be there before."""

    recipe: str
    make: Callable[[], None]
    needs: tuple[str, ...] = ()


class _Workshop:
    """What the jobs work with, started when first needed: a registry, the second Debian."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._debian13: chroot.RunningDebian | None = None
        self._registry: Registry | None = None
        self._lock = threading.Lock()

    def host(self) -> str:
        with self._lock:
            if self._registry is None:
                scratch = tempfile.TemporaryDirectory(prefix="make-", dir=places.lab_directory())
                registry = Registry(images.registry_storage(), Path(self._stack.enter_context(scratch)))
                self._registry = self._stack.enter_context(registry)
            return self._registry.host

    def debian13(self) -> chroot.RunningDebian:
        with self._lock:
            if self._debian13 is None:
                self._debian13 = self._stack.enter_context(chroot.running())
            return self._debian13

    def job(self, part: str) -> Job:
        """How a part is made; raises KeyError for an unknown one."""
        kind, _, name = part.partition("/")
        if part in chroot.DEBIANS:
            debian = chroot.DEBIANS[part]
            return Job(debian.recipe, debian.make)
        if part == "base-root":
            return Job(images.BASE_RECIPE, images.make_base_root)
        if part == "image/base":
            return Job(images.BASE_RECIPE, images.make_base_image, ("base-root",))
        if kind == "image" and name in images.IMAGES:
            image = images.IMAGES[name]
            return Job(image.recipe, lambda: images.make_image(name, self.host()), (f"image/{image.parent}",))
        image_name, _, image_format = name.partition(":")
        if kind == "converted" and image_name in images.IMAGES and image_format in converters.FORMATS:
            recipe = converters.recipe(image_name, image_format)
            needs = (f"image/{image_name}", *(("debian13",) if image_format == "zstd" else ()))
            return Job(recipe, lambda: self._convert(image_name, image_format), needs)
        if kind == "bench" and image_name in WORKLOADS and image_format in ours.BENCHED:
            return Job(
                ours.benched_recipe(image_name, image_format),
                lambda: ours.make_benched(image_name, image_format, self.host()),
                (f"image/{WORKLOADS[image_name].image}",),
            )
        raise KeyError(f"the laboratory has no part {part!r}")

    def _convert(self, name: str, image_format: str) -> None:
        debian13 = self.debian13() if image_format == "zstd" else None
        converters.convert(name, image_format, self.host(), debian13)


def make(parts: Iterable[str], say: Callable[[str], None] = lambda text: None) -> None:
    """Makes the parts; raises the first error. One process at a time makes, others wait for it if they must."""
    parts = list(parts)
    with contextlib.ExitStack() as stack:
        workshop = _Workshop(stack)
        if _unmade(parts, workshop):
            stack.enter_context(places.locked(places.lab_directory() / "making.lock"))
            _run(_unmade(parts, workshop), say, stack)


def _unmade(parts: Iterable[str], workshop: _Workshop) -> dict[str, Job]:
    """The jobs of those parts, and of what they need, that are not made already."""
    found: dict[str, Job] = {}
    rest = list(reversed(list(parts)))
    while rest:
        part = rest.pop()
        job = workshop.job(part)
        if part not in found and not places.is_made(part, job.recipe):
            found[part] = job
            rest += job.needs
    return found


def _run(jobs: dict[str, Job], say: Callable[[str], None], stack: contextlib.ExitStack) -> None:
    """Runs the jobs in an order that their needs allow, several at a time."""
    begin = time.monotonic()

    def carry_out(part: str, job: Job) -> float:
        started = time.monotonic()
        places.mark_unmade(part)
        job.make()
        places.mark_made(part, job.recipe)
        return time.monotonic() - started

    # The threads outlive the jobs: programs that they started end with the thread that started them.
    pool = stack.enter_context(ThreadPoolExecutor(WORKERS))
    waiting = dict(jobs)
    running: dict[Future[float], str] = {}
    while waiting or running:
        unfinished = waiting.keys() | set(running.values())
        ready = [part for part, job in waiting.items() if unfinished.isdisjoint(job.needs)]
        for part in ready:
            running[pool.submit(carry_out, part, waiting.pop(part))] = part
        finished, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in finished:
            part = running.pop(future)
            try:
                seconds = future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            say(f"[{time.monotonic() - begin:4.0f} s] {part} made in {seconds:.0f} s")


def main() -> int:
    parts = sys.argv[1:] or ["debian13", *DEMO_PARTS, *INTEROP_PARTS]
    make(parts, lambda text: print(text, flush=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
