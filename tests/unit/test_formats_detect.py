"""The format of a layer by its descriptor, and the reasons of layers that have none."""

import pytest

from registry_storage.descriptor import Descriptor
from registry_storage.digest import Digest
from registry_storage.errors import FormatError, NotLazyError
from registry_storage.formats.base import Compression, TocLocation
from registry_storage.formats.detect import detect, layer_compression
from registry_storage.formats.estargz import ESTARGZ
from registry_storage.formats.zstd_chunked import (
    ZSTD_CHUNKED_PODMAN,
    ZSTD_CHUNKED_PODMAN_OLD,
    ZSTD_CHUNKED_STARGZ,
)

OCI = "application/vnd.oci.image.layer.v1.tar"
FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar"
STARGZ = "containerd.io/snapshot/stargz/toc.digest"
NEW = "io.github.containers.zstd-chunked.manifest-checksum"
NEW_POSITION = "io.github.containers.zstd-chunked.manifest-position"
OLD = "io.containers.zstd-chunked.manifest-checksum"
OLD_POSITION = "io.containers.zstd-chunked.manifest-position"
ONE = Digest.of(b"1")
TWO = Digest.of(b"2")


def layer(media_type: str, annotations: dict[str, str], urls: tuple[str, ...] = ()) -> Descriptor:
    return Descriptor(media_type, Digest.of(b"blob"), 5000, annotations, urls=urls)


def test_gzip_with_a_toc_digest_is_estargz() -> None:
    for media_type in (f"{OCI}+gzip", "application/vnd.docker.image.rootfs.diff.tar.gzip"):
        lazy = detect(layer(media_type, {STARGZ: str(ONE)}))
        assert (lazy.format, lazy.toc_digest, lazy.toc) == (ESTARGZ, ONE, None)


def test_current_keys_are_podmans_zstd_chunked() -> None:
    lazy = detect(layer(f"{OCI}+zstd", {NEW: str(ONE), NEW_POSITION: "100:20:300:1"}))
    assert (lazy.format, lazy.toc_digest) == (ZSTD_CHUNKED_PODMAN, ONE)
    assert lazy.toc == TocLocation(100, 20, 300)


def test_old_keys_alone_are_old_podmans() -> None:
    lazy = detect(layer(f"{OCI}+zstd", {OLD: str(ONE), OLD_POSITION: "100:20:300:1"}))
    assert (lazy.format, lazy.toc_digest) == (ZSTD_CHUNKED_PODMAN_OLD, ONE)
    assert lazy.toc == TocLocation(100, 20, 300)


def test_old_keys_with_a_stargz_toc_digest_are_stargzs() -> None:
    annotations = {STARGZ: str(TWO), OLD: str(ONE), OLD_POSITION: "100:20:300:1"}
    lazy = detect(layer(f"{OCI}+zstd", annotations))
    assert (lazy.format, lazy.toc_digest) == (ZSTD_CHUNKED_STARGZ, TWO)
    assert lazy.toc == TocLocation(100, 20, 300, compressed_digest=ONE)


def test_stargz_toc_digest_without_a_position_leaves_the_footer() -> None:
    lazy = detect(layer(f"{OCI}+zstd", {STARGZ: str(TWO)}))
    assert (lazy.format, lazy.toc) == (ZSTD_CHUNKED_STARGZ, None)


@pytest.mark.parametrize(
    ("media_type", "annotations", "urls", "reason"),
    [
        (f"{OCI}+gzip", {}, (), "plain gzip layer: no annotation"),
        (f"{OCI}+zstd", {}, (), "plain zstd layer: no annotation"),
        (f"{OCI}+gzip", {NEW: str(ONE)}, (), "plain gzip layer"),
        (OCI, {STARGZ: str(ONE)}, (), "not compressed"),
        (f"{OCI}+zstd", {STARGZ: str(ONE), NEW: str(ONE)}, (), "two TOC digests of different kinds"),
        (f"{OCI}+gzip+encrypted", {STARGZ: str(ONE)}, (), "encrypted"),
        (f"{FOREIGN}+gzip", {STARGZ: str(ONE)}, (), "foreign"),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", {STARGZ: str(ONE)}, (), "foreign"),
        (f"{OCI}+gzip", {STARGZ: str(ONE)}, ("https://example.com/layer",), "foreign"),
        ("application/vnd.oci.image.config.v1+json", {STARGZ: str(ONE)}, (), "not one of a layer"),
        ("", {}, (), "not one of a layer"),
    ],
)
def test_layer_that_is_not_lazy_tells_why(
    media_type: str, annotations: dict[str, str], urls: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(NotLazyError, match=reason):
        detect(layer(media_type, annotations, urls))


@pytest.mark.parametrize(
    "position",
    [
        "",
        "100:20:300",
        "100:20:300:2",
        "100:20:300:1:1",
        "+100:20:300:1",
        " 100:20:300:1",
        "100:20:300:1\n",
        "0x64:20:300:1",
        "4990:20:300:1",
        "7:20:300:1",
        "100:0:300:1",
        "100:20:0:1",
        "100:20:1073741825:1",
        "100:99999999999999999999:300:1",
        "-1:20:300:1",
        "\u0661:20:300:1",
    ],
)
def test_malformed_position_is_a_format_error(position: str) -> None:
    for keys in ({NEW: str(ONE), NEW_POSITION: position}, {OLD: str(ONE), OLD_POSITION: position}):
        with pytest.raises(FormatError, match=r"manifest-position.*wanted") as caught:
            detect(layer(f"{OCI}+zstd", keys))
        assert not isinstance(caught.value, NotLazyError)


@pytest.mark.parametrize("key", [STARGZ, NEW, OLD])
def test_malformed_toc_digest_is_a_format_error(key: str) -> None:
    with pytest.raises(FormatError, match=f"annotation {key}: digest: wanted") as caught:
        detect(layer(f"{OCI}+zstd", {key: "sha512:abc"}))
    assert not isinstance(caught.value, NotLazyError)


def test_compression_of_every_layer_media_type() -> None:
    assert layer_compression(OCI) is Compression.NONE
    assert layer_compression(f"{OCI}+gzip") is Compression.GZIP
    assert layer_compression("application/vnd.docker.image.rootfs.diff.tar.zstd") is Compression.ZSTD
