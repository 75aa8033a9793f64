"""One layer from the source to the destination, and not twice in one conversion."""

import hashlib
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import trio

from .. import __version__
from ..descriptor import Descriptor
from ..digest import Digest
from ..errors import FormatError, NotLazyError, VerificationError
from ..formats.base import Compression
from ..formats.detect import detect, layer_compression
from .accesses import FileAccess
from .destinations import Destination
from .documents import OCI_GZIP_LAYER
from .image_options import LAZY_FORMATS, ImageOptions, LayerResult
from .layer_writer import WrittenLayer, verify_written, write_layer
from .listing import list_names
from .options import LayerKind, WriteOptions
from .report import Reporter
from .sources import Source
from .work import WorkDirectory, descriptor_record, parse_digest

_TRANSFERS = 3
"""Layers that are fetched, and that are pushed, at a time."""
_CONVERSIONS = 2
"""Layers that are converted at a time: a large one and a small one keep all threads busy."""
_EXTERNAL_LAYER = "containerd.io/snapshot/stargz/layer.digest"


@dataclass(frozen=True, slots=True)
class Job:
    """A layer and what is to come first in it."""

    descriptor: Descriptor = field(compare=False)
    diff_id: Digest
    """As the source's config has it."""
    prioritized: tuple[str, ...] = ()
    accesses: tuple[FileAccess, ...] = ()
    """What of these files is read, where that is known."""
    _key: tuple[object, ...] = field(init=False, repr=False)
    """What of the descriptor matters here."""

    def __post_init__(self) -> None:
        described = self.descriptor
        key = described.media_type, described.digest, described.urls, *sorted(described.annotations.items())
        object.__setattr__(self, "_key", key)

    @property
    def label(self) -> str:
        """For progress."""
        return self.descriptor.digest.hex[:12]


@dataclass(slots=True)
class _Shared:
    lock: trio.Lock = field(default_factory=trio.Lock)
    result: LayerResult | None = None


class LayerFactory:
    """Converts layers; a job that was done is not done again."""

    def __init__(
        self,
        source: Source,
        destination: Destination,
        options: ImageOptions,
        work: WorkDirectory,
        reporter: Reporter,
    ) -> None:
        self._source = source
        self._destination = destination
        self._options = options
        self._work = work
        self._reporter = reporter
        self._jobs: dict[Job, _Shared] = {}
        self._fetched: dict[Digest, Path] = {}
        self._fetching: dict[Digest, trio.Lock] = {}
        self._fetches = trio.CapacityLimiter(_TRANSFERS)
        self._pushes = trio.CapacityLimiter(_TRANSFERS)
        self._conversions = trio.CapacityLimiter(min(_CONVERSIONS, max(1, options.jobs)))
        self._threads = trio.CapacityLimiter(math.inf)
        self.external: dict[Digest, tuple[Descriptor, Digest]] = {}
        """By layer digest: the layer that holds the layer's TOC, and its diffID."""

    async def names(self, descriptor: Descriptor) -> list[str]:
        """The paths in a layer, in the order of its tar."""
        if not self.convertible(descriptor):
            return []
        path = await self._fetch(descriptor)
        return await trio.to_thread.run_sync(list_names, path, limiter=self._conversions)

    def convertible(self, descriptor: Descriptor) -> bool:
        """Whether the layer is a tar that we can get and read; says why not."""
        try:
            compression = layer_compression(descriptor.media_type)
        except NotLazyError as error:
            self._reporter.message(f"layer {descriptor.digest} stays as it is: {error}")
            return False
        if descriptor.urls:
            self._reporter.message(f"layer {descriptor.digest} stays as it is: it comes from urls of its own")
        return compression in (Compression.NONE, Compression.GZIP, Compression.ZSTD) and not descriptor.urls

    def is_wanted_already(self, job: Job) -> bool:
        """Whether ``--reuse`` lets the layer stay as it is."""
        options = self._options.layer
        if not self._options.reuse or job.prioritized or options.external_toc:
            return False
        if options.kind is LayerKind.UNCOMPRESSED:
            return layer_compression(job.descriptor.media_type) is Compression.NONE
        try:
            return detect(job.descriptor).format == LAZY_FORMATS[options.kind]
        except FormatError:
            return False

    async def convert(self, job: Job) -> LayerResult:
        """The layer is at the destination afterwards. Raises RegistryStorageError and OSError."""
        shared = self._jobs.setdefault(job, _Shared())
        async with shared.lock:
            if shared.result is None:
                shared.result = await self._convert(job)
            return shared.result

    async def _convert(self, job: Job) -> LayerResult:
        if not self.convertible(job.descriptor):
            if job.descriptor.media_type.endswith("+encrypted"):
                return await self._copy(job, "left")
            self._reporter.done(job.label, "left where it is")
            return LayerResult(job.descriptor, job.descriptor, str(job.diff_id), None, "left", "left")
        if self.is_wanted_already(job):
            return await self._copy(job, "kept")
        options = self._layer_options(job)
        key = hashlib.sha256(f"{__version__} {job.descriptor.digest} {options}".encode()).hexdigest()[:32]
        outcome = "resumed"
        resumed = await self._resume(key)
        if resumed is None:
            outcome = "converted"
            resumed = await self._write(job, key)
        descriptor, diff_id, toc_digest = resumed
        path = self._work.file(f"{key}.blob")
        async with self._pushes:
            progress = self._reporter.step(job.label, "push", descriptor.size)
            stored = await self._destination.put_blob(descriptor, path, progress)
        sizes = f"{job.descriptor.size} -> {descriptor.size} bytes"
        self._reporter.done(job.label, f"{outcome}, {stored.value}: {sizes}, {descriptor.digest}")
        toc = None if toc_digest is None else str(toc_digest)
        return LayerResult(job.descriptor, descriptor, str(diff_id), toc, outcome, stored.value)

    def _layer_options(self, job: Job) -> WriteOptions:
        return replace(
            self._options.layer, prioritized=job.prioritized, accesses=job.accesses, allow_missing=True
        )

    async def _copy(self, job: Job, outcome: str) -> LayerResult:
        """The layer as it is; its bytes move only where the destination neither has nor can mount them."""
        descriptor = job.descriptor
        stored = await self._destination.find_blob(descriptor.digest)
        if stored is None:
            path = await self._fetch(descriptor)
            async with self._pushes:
                progress = self._reporter.step(job.label, "push", descriptor.size)
                stored = await self._destination.put_blob(descriptor, path, progress)
        self._reporter.done(job.label, f"{outcome} as it is, {stored.value}")
        return LayerResult(descriptor, descriptor, str(job.diff_id), None, outcome, stored.value)

    async def _fetch(self, descriptor: Descriptor) -> Path:
        digest = descriptor.digest
        async with self._fetching.setdefault(digest, trio.Lock()):
            if digest in self._fetched:
                return self._fetched[digest]
            name = f"{digest.hex}.source"
            if await trio.to_thread.run_sync(self._work.holds, name, descriptor):
                self._fetched[digest] = self._work.file(name)
                return self._fetched[digest]
            async with self._fetches:
                progress = self._reporter.step(digest.hex[:12], "fetch", descriptor.size)
                path = await self._source.fetch_blob(descriptor, self._work.file(name), progress)
            self._fetched[digest] = path
            return path

    async def _resume(self, key: str) -> tuple[Descriptor, Digest, Digest | None] | None:
        """What an earlier process made of the same layer with the same options."""
        record = self._work.load(key)
        if record is None:
            return None
        descriptor = Descriptor.from_json(record["descriptor"], "record")
        if not await trio.to_thread.run_sync(self._work.holds, f"{key}.blob", descriptor):
            return None
        if external := record.get("external"):
            descriptor_of_toc = Descriptor.from_json(external, "record")
            if not await trio.to_thread.run_sync(self._work.holds, f"{key}.toc", descriptor_of_toc):
                return None
            await self._put_external(descriptor, descriptor_of_toc, Digest.parse(record["externalDiffID"]), key)
        return descriptor, Digest.parse(record["diffID"]), parse_digest(record["tocDigest"])

    async def _write(self, job: Job, key: str) -> tuple[Descriptor, Digest, Digest | None]:
        source = await self._fetch(job.descriptor)
        target = self._work.file(f"{key}.blob")
        options = self._layer_options(job)

        def write() -> WrittenLayer:
            converting = _cancellable(self._reporter.step(job.label, "convert", job.descriptor.size))
            with source.open("rb") as file, target.open("wb") as blob:
                written = write_layer(file, blob, options, jobs=self._options.jobs, progress=converting)
                blob.flush()
                os.fsync(blob.fileno())
            verifying = _cancellable(self._reporter.step(job.label, "verify", written.descriptor.size))
            with target.open("rb") as blob:
                verify_written(blob, written, progress=verifying)
            return written

        async with self._conversions:
            written = await trio.to_thread.run_sync(write, limiter=self._threads)
        if (options.keep_diff_id or options.kind is LayerKind.UNCOMPRESSED) and written.diff_id != job.diff_id:
            what = f"{self._source.name}: layer {job.descriptor.digest}: diffID"
            raise VerificationError(what, wanted=str(job.diff_id), got=str(written.diff_id))
        if written.missing:
            self._reporter.message(f"layer {job.descriptor.digest} has no {', '.join(written.missing[:10])}")
        record = {
            "descriptor": descriptor_record(written.descriptor),
            "diffID": str(written.diff_id),
            "tocDigest": None if written.toc_digest is None else str(written.toc_digest),
        }
        if written.external_toc is not None and written.external_toc_diff_id is not None:
            annotations = {_EXTERNAL_LAYER: str(written.descriptor.digest)}
            toc = written.external_toc
            external = Descriptor(OCI_GZIP_LAYER, Digest.of(toc), len(toc), annotations)
            self._work.file(f"{key}.toc").write_bytes(toc)
            record |= {"external": descriptor_record(external), "externalDiffID": str(written.external_toc_diff_id)}
            await self._put_external(written.descriptor, external, written.external_toc_diff_id, key)
        self._work.save(key, record)
        if source.is_relative_to(self._work.path) and not self._options.wishes:
            source.unlink(missing_ok=True)  # it may be large; the destination has room of its own
            self._fetched.pop(job.descriptor.digest, None)
        return written.descriptor, written.diff_id, written.toc_digest

    async def _put_external(self, layer: Descriptor, external: Descriptor, diff_id: Digest, key: str) -> None:
        await self._destination.put_blob(external, self._work.file(f"{key}.toc"), lambda _: None)
        self.external[layer.digest] = external, diff_id


def _cancellable(progress: Callable[[int], None]) -> Callable[[int], None]:
    """For a thread of trio's, which a cancellation otherwise waits for."""

    def check(done: int) -> None:
        trio.from_thread.check_cancelled()
        progress(done)

    return check
