"""What a bad blob or a bad registry does to readers: an error in time, never a wrong byte, and no memory of it."""

import errno
import json
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from registry_storage.digest import Digest
from tests.fakes.images import KINDS, BuiltImage, BuiltLayer, File, build_layer, put_image
from tests.fakes.registry import FakeRegistry

from .conftest import Daemon

GOOD, BAD = os.urandom(50_000), os.urandom(50_000)
FILLER = os.urandom(300_000)
QUICK = ("--no-background-fetch", "--no-prefetch", "--read-timeout-seconds", "2", "--lookup-timeout-seconds", "2")


@pytest.fixture(params=KINDS)
def layer(request: pytest.FixtureRequest) -> BuiltLayer:
    return build_layer([File("good", GOOD), File("filler", FILLER), File("etc/bad", BAD)], request.param)


any_layer = pytest.mark.parametrize("layer", [KINDS[0]], indirect=True)
"""What does not come to the layer: its format makes no difference."""


@pytest.fixture
def image(registry: FakeRegistry, layer: BuiltLayer) -> BuiltImage:
    return put_image(registry, [layer])


@pytest.fixture
def diff(daemon: Daemon, image: BuiltImage) -> Path:
    daemon.arguments = QUICK
    daemon.start()
    path = daemon.layer(image) / "diff"
    path.stat()
    return path


def read_error(path: Path) -> int | None:
    """The errno with which reading fails; None when it does not."""
    try:
        path.read_bytes()
    except OSError as error:
        return error.errno
    return None


def lookup_error(path: Path) -> int | None:
    try:
        path.stat()
    except OSError as error:
        return error.errno
    return None


def eventually_found(path: Path, seconds: float = 10.0) -> bool:
    """A path that could not be looked up can be, within seconds."""
    deadline = time.monotonic() + seconds
    while lookup_error(path) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_in_a_chunk_fails_that_chunk_only(daemon: Daemon, registry: FakeRegistry, kind: str) -> None:
    bad = {f"etc/bad{place}": (place, os.urandom(50_000)) for place in (0.0, 0.3, 0.5, 0.9, 0.999)}
    files = [File("good", GOOD), File("filler", FILLER), *(File(name, data) for name, (_, data) in bad.items())]
    layer = build_layer(files, kind)
    image = put_image(registry, [layer])
    daemon.arguments = QUICK
    daemon.start()
    diff = daemon.layer(image) / "diff"
    wrong = []
    for name, (place, _) in bad.items():
        (offset, size), *_ = layer.places[name]
        wrong.append(offset + int(size * place))
    fault = registry.inject("flip", path="/blobs/", times=None, offsets=tuple(wrong))
    refused = 0
    for name, (_, data) in bad.items():
        error = read_error(diff / name)
        if error is None:  # a bit that the decoder does not look at, as some of a gzip header are
            assert (diff / name).read_bytes() == data
            continue
        refused += 1
        assert error == errno.EIO
        log = daemon.log_text()
        assert str(layer.descriptor.digest) in log
        assert f"/{name}: chunk" in log
    assert refused >= 3
    assert (diff / "good").read_bytes() == GOOD
    assert (diff / "filler").read_bytes() == FILLER
    registry.faults.remove(fault)
    for name, (_, data) in bad.items():
        assert (diff / name).read_bytes() == data


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("wrong-range", {}),
        ("shift", {}),
        ("ignore-range", {}),
        ("status", {"status": 500}),
        ("status", {"status": 404}),
        ("status", {"status": 403}),
        ("garbage", {}),
        ("disconnect", {}),
        ("truncate", {"at": 1000}),
        ("reset", {"at": 1000}),
        ("stall", {"at": None}),
        ("stall", {"at": 1000}),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else value,
)
def test_a_registry_that_misbehaves_gives_eio_in_time_and_is_asked_again(
    daemon: Daemon, registry: FakeRegistry, kind: str, settings: Mapping[str, Any]
) -> None:
    layer = build_layer([File("good", GOOD), File("filler", FILLER), File("etc/bad", BAD)])
    image = put_image(registry, [layer])
    daemon.arguments = QUICK
    # What stalls is given up after eight seconds, and until then whoever comes waits with the others.
    daemon.start(*(("--read-timeout-seconds", "5") if kind == "stall" else ()))
    path = daemon.layer(image) / "diff" / "etc/bad"
    path.stat()
    fault = registry.inject(kind, path="/blobs/", times=None, **settings)
    started = time.monotonic()
    error = read_error(path)
    assert time.monotonic() - started < 12
    if error is None:  # a transfer that breaks off is taken up where it broke
        assert kind in ("truncate", "reset", "stall")
        assert path.read_bytes() == BAD
    else:
        assert error == errno.EIO
    registry.faults.remove(fault)
    if kind == "ignore-range":  # the host is known to serve no ranges for some minutes
        return
    assert path.read_bytes() == BAD
    assert (path.parent.parent / "good").read_bytes() == GOOD


def corrupted(layer: BuiltLayer, what: str) -> BuiltLayer:
    """The same descriptor with another blob behind it."""
    blob = bytearray(layer.blob)
    if what == "toc":
        blob[layer.toc_offset + 30] ^= 1
    elif what == "footer":
        blob[-1 if "zstd" in layer.descriptor.media_type else -20] ^= 1
    elif what == "truncated":
        del blob[-1000:]
    elif what == "other toc":
        return BuiltLayer(
            build_layer([File("other", b"other")]).blob, layer.descriptor, layer.toc_digest, {}, 0
        )
    return BuiltLayer(bytes(blob), layer.descriptor, layer.toc_digest, layer.places, layer.toc_offset)


@pytest.mark.parametrize("what", ["toc", "footer", "truncated", "other toc"])
def test_a_broken_blob_is_refused_before_anything_of_it_is_seen(
    daemon: Daemon, registry: FakeRegistry, image: BuiltImage, layer: BuiltLayer, what: str
) -> None:
    key = "team/app", str(layer.descriptor.digest)
    registry.blobs[key] = corrupted(layer, what).blob
    daemon.arguments = QUICK
    daemon.start()
    diff = daemon.layer(image) / "diff"
    assert lookup_error(diff) == errno.EIO
    assert str(layer.descriptor.digest) in daemon.log_text()
    registry.blobs[key] = layer.blob
    assert eventually_found(diff)
    assert (diff / "good").read_bytes() == GOOD


def test_the_toc_of_another_layer_is_refused(daemon: Daemon, registry: FakeRegistry) -> None:
    one, other = build_layer([File("one", b"1")]), build_layer([File("other", b"2")])
    mixed = BuiltLayer(
        other.blob,
        type(one.descriptor)(
            other.descriptor.media_type,
            Digest.of(other.blob),
            len(other.blob),
            {**other.descriptor.annotations,
             "io.github.containers.zstd-chunked.manifest-checksum": str(one.toc_digest)},
        ),
        one.toc_digest,
        {},
        0,
    )  # fmt: skip
    image = put_image(registry, [mixed])
    daemon.start()
    assert lookup_error(daemon.layer(image) / "diff") == errno.EIO
    assert f"wanted {one.toc_digest}" in daemon.log_text()


@any_layer
def test_a_lookup_that_failed_while_the_registry_was_down_succeeds_seconds_later(
    daemon: Daemon, registry: FakeRegistry, image: BuiltImage
) -> None:
    daemon.arguments = QUICK
    daemon.start()
    fault = registry.inject("disconnect", path=".*", times=None)
    started = time.monotonic()
    assert lookup_error(daemon.layer(image) / "diff") == errno.EIO
    assert time.monotonic() - started < 6
    registry.faults.remove(fault)
    assert eventually_found(daemon.layer(image) / "diff", 5)


@any_layer
def test_a_stalled_registry_holds_a_lookup_for_the_configured_time_only(
    daemon: Daemon, registry: FakeRegistry, image: BuiltImage
) -> None:
    daemon.arguments = QUICK
    daemon.start()
    registry.inject("stall", at=None, times=None)
    started = time.monotonic()
    assert lookup_error(daemon.layer(image) / "diff") == errno.EIO
    assert 1.5 < time.monotonic() - started < 6


def test_a_plain_layer_is_refused_at_once_with_the_reason_logged_once(
    daemon: Daemon, registry: FakeRegistry
) -> None:
    made = build_layer([File("a", b"a")])
    plain = BuiltLayer(
        made.blob, type(made.descriptor)(made.descriptor.media_type, made.descriptor.digest, len(made.blob)),
        made.descriptor.digest, {}, 0,
    )  # fmt: skip
    image = put_image(registry, [plain])
    daemon.start()
    for name in ("diff", "info", "blob"):
        assert lookup_error(daemon.layer(image) / name) == errno.ENOENT
    assert daemon.log_text().count("a plain zstd layer") == 1
    assert not registry.requests("/blobs/")


def test_a_wrong_manifest_digest_is_refused(daemon: Daemon, registry: FakeRegistry) -> None:
    layer = build_layer([File("a", b"a")])
    image = put_image(registry, [layer])
    digest = Digest.of(image.manifest)
    tampered = json.loads(image.manifest) | {"annotations": {"x": "y"}}
    registry.manifests["team/app", str(digest)] = (
        registry.manifests["team/app", "v1"][0], json.dumps(tampered).encode(),
    )  # fmt: skip
    daemon.start()
    by_digest = BuiltImage(f"{registry.host}/team/app@{digest}", image.manifest, image.config, [layer], image.diff_ids)
    assert lookup_error(daemon.layer(by_digest) / "diff") == errno.EIO
    assert f"wanted {digest}" in daemon.log_text()


def test_a_bit_that_rotted_on_disk_is_never_served(
    daemon: Daemon, registry: FakeRegistry, image: BuiltImage, layer: BuiltLayer
) -> None:
    daemon.start()
    diff = daemon.layer(image) / "diff"
    assert (diff / "etc/bad").read_bytes() == BAD
    assert daemon.stop() == 0
    (content,) = daemon.root.glob("layers/*/content")
    with content.open("r+b") as file:
        data = bytearray(file.read())
        at = bytes(data).index(BAD[:100])
        data[at + 777] ^= 4
        file.seek(0)
        file.write(data)
    daemon.start()
    assert (diff / "etc/bad").read_bytes() == BAD
    assert "is damaged on disk; it will be fetched again" in daemon.log_text()


@any_layer
@pytest.mark.parametrize("name", ["index", "content", "present"])
@pytest.mark.parametrize("damage", ["gone", "empty", "garbage"])
def test_a_damaged_file_of_the_cache_is_made_again(
    daemon: Daemon, image: BuiltImage, name: str, damage: str
) -> None:
    daemon.start()
    diff = daemon.layer(image) / "diff"
    assert (diff / "good").read_bytes() == GOOD
    daemon.stop()
    (path,) = daemon.root.glob(f"layers/*/{name}")
    size = path.stat().st_size
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(b"" if damage == "empty" else os.urandom(size))
    daemon.start()
    assert (diff / "good").read_bytes() == GOOD
    assert (diff / "etc/bad").read_bytes() == BAD
    assert (diff / "filler").read_bytes() == FILLER


@any_layer
def test_a_document_that_rotted_on_disk_is_fetched_again(daemon: Daemon, image: BuiltImage) -> None:
    daemon.start()
    assert (daemon.image(image) / "config").read_bytes() == image.config
    daemon.stop()
    for path in daemon.root.glob("documents/*"):
        path.write_bytes(b"{}")
    daemon.start()
    assert (daemon.image(image) / "config").read_bytes() == image.config
    assert (daemon.image(image) / "manifest").read_bytes() == image.manifest
    assert (daemon.layer(image) / "diff/good").read_bytes() == GOOD


@pytest.mark.parametrize("for_good", [False, True])
def test_a_read_waits_while_the_registry_is_away(daemon: Daemon, registry: FakeRegistry, for_good: bool) -> None:
    layer = build_layer([File("good", GOOD), File("filler", FILLER), File("etc/bad", BAD)])
    image = put_image(registry, [layer])
    daemon.arguments = QUICK
    daemon.start("--read-timeout-seconds", *(["1", "--wait-for-registry"] if for_good else ["60"]))
    path = daemon.layer(image) / "diff" / "etc/bad"
    path.stat()
    fault = registry.inject("disconnect", path=".*", times=None)
    results: list[bytes] = []
    readers = [threading.Thread(target=lambda: results.append(path.read_bytes())) for _ in range(5)]
    for reader in readers:
        reader.start()
    deadline = time.monotonic() + 60
    while fault.hits < 6:  # more than one operation tries
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert results == []
    registry.faults.remove(fault)
    for reader in readers:
        reader.join(60)
    assert results == [BAD] * 5
