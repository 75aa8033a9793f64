"""Images that we converted: run by each podman, lazily and not; read by other tools; the same everywhere."""

import io
import json
import random
import signal
import stat
import tarfile
import time
import urllib.error
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from lab import converters, images, ours, processes
from lab.link import Link
from lab.podman import Podman
from lab.registry import Registry, manifest_at
from registry_storage.convert.blob_reader import LayerReader
from registry_storage.descriptor import Descriptor
from registry_storage.formats.unpacking import unpacked_blocks
from tests.interop.stand import Generation, Laboratory, Stand

KINDS = pytest.mark.parametrize("kind", ours.FORMATS)
NUMPY = "import json, numpy; print(json.dumps(numpy.linspace(0, 1, 5).tolist()))"
HIDDEN = {".no.prefetch.landmark", ".prefetch.landmark", "stargz.index.json"}


@dataclass(frozen=True, slots=True)
class Converted:
    """A registry with the images ``lab/KIND/NAME:1``, ours, beside the laboratory's."""

    laboratory: Laboratory
    """Whose registry is this one."""
    source: str
    """Host of the registry with the images that were converted."""
    work: Path
    """Where temporary files go."""

    @property
    def host(self) -> str:
        return self.laboratory.registry.host

    def blobs(self, host: str, image: str) -> Iterator[tuple[Descriptor, bytes]]:
        """The layers of an image."""
        storages = {self.host: self.laboratory.registry.storage}
        for number, layer in enumerate(manifest_at(host, image)["layers"]):
            descriptor = Descriptor.from_json(layer, f"layer {number}")
            digest = descriptor.digest.hex
            storage = storages.get(host, self.source_storage)
            path = storage / "docker/registry/v2/blobs/sha256" / digest[:2] / digest / "data"
            yield descriptor, path.read_bytes()

    @property
    def source_storage(self) -> Path:
        return images.registry_storage()


@pytest.fixture(scope="session")
def converted(laboratory: Laboratory) -> Iterator[Converted]:
    """Every kind of `python` and `odd`."""
    scratch = laboratory.scratch / "converted"
    work = scratch / "work"
    work.mkdir(parents=True)
    with Registry(scratch / "storage", scratch / "registry") as registry, Link(registry.host) as link:
        mine = replace(laboratory, registry=registry, link=link)
        made = Converted(mine, laboratory.registry.host, work)
        for kind, option in ours.FORMATS.items():
            for name in ("python", "odd"):
                target = f"{registry.host}/{converters.tag(name, kind)}"
                ours.run(work, "convert", option, "--oci", f"{made.source}/lab/gzip/{name}:1", target)
        assert not list(work.iterdir())
        yield made


@pytest.fixture
def new_converted_stand(converted: Converted) -> Iterator[Callable[[Generation], Stand]]:
    """A daemon and a podman for our images."""
    stands: list[Stand] = []

    def new(generation: Generation) -> Stand:
        name = f"c{random.randrange(1 << 30)}"
        options = ("--no-background-fetch", "--no-prefetch")
        stands.append(Stand(converted.laboratory, generation, name, options))
        return stands[-1]

    yield new
    for stand in stands:
        stand.close()


@KINDS
def test_our_images_run_lazily(
    converted: Converted, generation: Generation, new_converted_stand: Callable[[Generation], Stand], kind: str
) -> None:
    stand = new_converted_stand(generation)
    stand.pull("python", kind)
    image = converters.tag("python", kind)
    assert json.loads(stand.podman.run_image(image, "python3", "-c", NUMPY)) == [0, 0.25, 0.5, 0.75, 1]
    share = stand.crossed().down_bytes / converted.laboratory.image_bytes(image)
    assert share < 0.6, f"{share:.0%} of the image came over the link"
    stand.remove_everything()


@KINDS
def test_our_images_run_after_a_full_pull(converted: Converted, generation: Generation, kind: str) -> None:
    inside = generation.inside
    home = (inside.work if inside else converted.laboratory.scratch) / f"full-{kind}-{generation.version}"
    podman = Podman(home, converted.laboratory.link.host, inside=inside)
    try:
        podman.pull(converters.tag("python", kind))
        assert not podman.layers().lazy
        said = podman.run_image(converters.tag("python", kind), "python3", "-c", NUMPY)
        assert json.loads(said) == [0, 0.25, 0.5, 0.75, 1]
    finally:
        podman.close()


@KINDS
def test_skopeo_copies_our_images(converted: Converted, kind: str, tmp_path: Path) -> None:
    source = f"docker://{converted.host}/{converters.tag('odd', kind)}"
    words = ["skopeo", "--insecure-policy", "copy", "-q", "--src-tls-verify=false", source, f"oci:{tmp_path}/out:v1"]
    processes.run(words)
    assert "right" in ours.run(converted.work, "verify", f"oci:{tmp_path}/out:v1")


def test_umoci_unpacks_our_estargz(converted: Converted, tmp_path: Path) -> None:
    layout = f"{tmp_path}/out"
    ours.run(
        converted.work, "convert", "--estargz", f"{converted.source}/lab/gzip/odd:1", f"oci:{layout}:v1"
    )
    processes.run(["umoci", "unpack", "--image", f"{layout}:v1", tmp_path / "bundle"])
    third = tmp_path / "bundle/rootfs/odd/links/below/third"
    assert third.read_text() == "linked three times"


@KINDS
def test_the_tar_is_the_sources_entry_by_entry(converted: Converted, kind: str) -> None:
    before = converted.blobs(converted.source, "lab/gzip/odd:1")
    after = converted.blobs(converted.host, converters.tag("odd", kind))
    for (_, old), (_, new) in zip(before, after, strict=True):
        assert _tar_entries(new) == _tar_entries(old)


@pytest.mark.parametrize(("theirs", "kind"), [("estargz", "ours-estargz"), ("zstd-stargz", "ours-stargz")])
@pytest.mark.parametrize("name", ["odd", "python"])
def test_other_converters_describe_the_same_files(converted: Converted, theirs: str, kind: str, name: str) -> None:
    before = converted.blobs(converted.source, converters.tag(name, theirs))
    after = converted.blobs(converted.host, converters.tag(name, kind))
    for (old_descriptor, old), (new_descriptor, new) in zip(before, after, strict=True):
        assert set(new_descriptor.annotations) == set(old_descriptor.annotations)
        assert _described(new_descriptor, new) == _described(old_descriptor, old)


@KINDS
def test_one_job_and_eight_make_the_same_anywhere(converted: Converted, kind: str, tmp_path: Path) -> None:
    digests = []
    for jobs, zone in (("1", "Asia/Tokyo"), ("8", "America/Caracas")):
        place = tmp_path / f"jobs {jobs}"
        place.mkdir()
        words = ("convert", ours.FORMATS[kind], "--oci", "--jobs", jobs, f"{converted.source}/lab/gzip/odd:1")
        said = ours.run(place, *words, f"oci:{place}/out:v1", directory=place, TZ=zone, LC_ALL="C", UMASK="077")
        digests.append(said.strip())
    assert digests[0] == digests[1]
    manifest = manifest_at(converted.host, converters.tag("odd", kind))
    layout = json.loads((tmp_path / "jobs 1/out/blobs/sha256" / digests[0].removeprefix("sha256:")).read_text())
    assert layout == manifest


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_a_killed_conversion_publishes_nothing_and_the_next_goes_on(
    converted: Converted, number: signal.Signals, tmp_path: Path
) -> None:
    image, work = f"killed/{number.name.lower()}:1", tmp_path / "work"
    words = ("convert", "--estargz", f"{converted.source}/lab/gzip/odd:1")
    work.mkdir()
    started = time.monotonic()
    ours.run(work, *words, f"oci:{tmp_path}/whole:v1")
    whole = time.monotonic() - started
    moments = random.Random(number)
    killed = 0
    for attempt in range(5):
        # Each after a random part of what it takes, from its start to its end.
        layout = tmp_path / f"layout {attempt}"
        target = (f"{converted.host}/{image}", f"oci:{layout}:v1")[attempt % 2]
        status = ours.stopped_after(work, whole * moments.uniform(0.05, 1.0), number, *words, target)
        if status == 0:
            continue  # it was faster
        killed += 1
        # A SIGTERM that comes before the program listens ends it as SIGKILL does.
        assert status in ((128 + number, -number) if number is signal.SIGTERM else (-number,))
        if _is_published(converted.host, image) if attempt % 2 == 0 else (layout / "index.json").exists():
            # It came between the manifest, which is the last of all, and the end of the process.
            assert ours.run(work, "verify", target).count(": right: ") == 2
        left = list(work.iterdir())
        assert not left or number is signal.SIGKILL
        assert all(one.name.startswith("registry-storagectl-") for one in left)
    assert killed
    ours.run(work, *words, f"{converted.host}/{image}")
    assert ours.run(work, "verify", f"{converted.host}/{image}").count(": right: ") == 2


def _is_published(host: str, image: str) -> bool:
    try:
        manifest_at(host, image)
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
        return False
    return True


def _tar_entries(blob: bytes) -> list[tuple[Any, ...]]:
    data = b"".join(unpacked_blocks(io.BytesIO(blob), lambda _: None))
    entries = []
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as archive:
        for one in archive:
            if one.name in HIDDEN:
                continue
            file = archive.extractfile(one) if one.isreg() else None
            owner = (one.uid, one.gid, one.uname, one.gname)
            what = (one.type, one.mode, one.size, one.linkname, one.devmajor, one.devminor)
            entries.append((one.name, *what, *owner, one.mtime, one.pax_headers, file.read() if file else None))
    return entries


def _described(descriptor: Descriptor, blob: bytes) -> dict[str, tuple[Any, ...]]:
    """What a TOC says of every name, and what it makes of the contents."""
    with LayerReader.open(blob, descriptor=descriptor) as reader:
        entries = list(reader.list())
        digests = {
            entry["name"].strip("/").removeprefix("./"): entry.get("digest")
            for entry in json.loads(reader.toc)["entries"]
            if entry["type"] == "reg"
        }
        first_names: dict[int, str] = {}
        return {
            entry.path: (
                stat.S_IFMT(entry.mode),
                stat.S_IMODE(entry.mode),
                *(entry.uid, entry.gid, entry.nlink, entry.size, entry.rdev, entry.target, entry.xattrs),
                first_names.setdefault(entry.inode, entry.path),
                entry.mtime_ns // 10**9,
                entry.size and digests.get(entry.path),
            )
            for entry in entries
        }
