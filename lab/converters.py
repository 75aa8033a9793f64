"""Lazily pullable images by other people's tools.

=============== ============================================ =========================================
format          made by                                      what it is
=============== ============================================ =========================================
estargz         ctr-remote (stargz-snapshotter 0.12)         eStargz
zstd-stargz     ctr-remote (stargz-snapshotter 0.12)         zstd:chunked of stargz
zstd-old        skopeo 1.9 (Debian 12)                       zstd:chunked of podman, old annotation keys
zstd            skopeo 1.18 (Debian 13)                      zstd:chunked of podman, current keys
=============== ============================================ =========================================

Each format has repositories of its own, because skopeo takes a layer that the target repository has already,
in whatever compression it is.
"""

import os
import shutil
import tempfile
import time
from pathlib import Path

from lab import images, places, processes
from lab.chroot import RunningDebian
from lab.registry import manifest_at

FORMATS = ("estargz", "zstd-stargz", "zstd-old", "zstd")

STARGZ_TOC = "containerd.io/snapshot/stargz/toc.digest"
_WANTED = {
    "estargz": ("application/vnd.oci.image.layer.v1.tar+gzip", STARGZ_TOC),
    "zstd-stargz": ("application/vnd.oci.image.layer.v1.tar+zstd", STARGZ_TOC),
    "zstd-old": (
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "io.containers.zstd-chunked.manifest-checksum",
    ),
    "zstd": (
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "io.github.containers.zstd-chunked.manifest-checksum",
    ),
}
"""The media type and an annotation that every layer of the converted image must have."""

_CONTAINERD_CONFIG = """\
version = 2
root = "{home}/root"
state = "{home}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
address = "{home}/containerd.sock"
[ttrpc]
address = "{home}/containerd.ttrpc"
"""


class ConversionError(Exception):
    """A converter ended well, but what it made is not what was asked for."""


def tag(name: str, image_format: str) -> str:
    """The name in the registry of a converted image, without the host."""
    return f"lab/{image_format}/{name}:1"


def recipe(name: str, image_format: str) -> str:
    """What identifies the content of a converted image."""
    return f"{images.IMAGES[name].recipe} as {image_format}"


def convert(name: str, image_format: str, registry_host: str, debian13: RunningDebian | None) -> None:
    """Converts `lab/gzip/NAME:1` into `lab/FORMAT/NAME:1`; `zstd` needs `debian13`."""
    source = f"{registry_host}/{images.IMAGES[name].tag}"
    target = f"{registry_host}/{tag(name, image_format)}"
    if image_format in ("estargz", "zstd-stargz"):
        seconds_by_ctr_remote(source, target, image_format)
    elif image_format == "zstd-old":
        zstd_chunked_by_skopeo(source, target)
    elif debian13 is not None:
        _by_newer_skopeo(source, target, debian13)
    else:
        raise ConversionError("the format zstd needs the Debian 13")
    check(registry_host, tag(name, image_format), image_format)


def check(registry_host: str, image: str, image_format: str) -> None:
    """Raises ConversionError when a layer of `image` is not in the format."""
    media_type, annotation = _WANTED[image_format]
    for layer in manifest_at(registry_host, image)["layers"]:
        if layer["mediaType"] != media_type or annotation not in layer.get("annotations", {}):
            raise ConversionError(f"{image}: layer {layer['digest']} is not {image_format}: {layer}")


def containerd_config(home: Path) -> str:
    """The configuration of a containerd that lives in `home`, its socket ``containerd.sock``."""
    return _CONTAINERD_CONFIG.format(home=home)


def zstd_chunked_by_skopeo(source: str, target: str) -> None:
    """skopeo of this machine, with a cache of known blobs of its own (see images.private_namespace)."""
    with tempfile.TemporaryDirectory(prefix="skopeo-", dir=places.lab_directory()) as scratch:
        home = Path(scratch)
        processes.run(
            [*images.private_namespace(home / "var-lib"), *_skopeo_copy(source, target, "")],
            environment={"HOME": scratch, "TMPDIR": scratch},
            timeout_seconds=1200,
        )


def _skopeo_copy(source: str, target: str, scratch: str) -> list[str]:
    return [
        *("skopeo", "--insecure-policy", *(("--tmpdir", scratch) if scratch else ())),
        *("copy", "--quiet", "--format", "oci", "--dest-compress-format", "zstd:chunked"),
        *("--src-tls-verify=false", "--dest-tls-verify=false", f"docker://{source}", f"docker://{target}"),
    ]


def _by_newer_skopeo(source: str, target: str, debian13: RunningDebian) -> None:
    scratch = Path(tempfile.mkdtemp(prefix="skopeo-", dir=debian13.work))
    there = debian13.inside(scratch)
    try:
        # Its own /var/lib for each copy: several may run at a time.
        words = _skopeo_copy(source, target, os.fspath(there))
        processes.run(
            debian13.command([*images.private_namespace_words(there), *words]),
            environment={"HOME": os.fspath(there), "TMPDIR": os.fspath(there)},
            timeout_seconds=1200,
        )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def seconds_by_ctr_remote(source: str, target: str, image_format: str) -> float:
    """Convert with ctr-remote; how long the conversion took, without fetching the image and pushing the result."""
    return _by_ctr_remote(source, target, {"estargz": "--estargz", "zstd-stargz": "--zstdchunked"}[image_format])


def _by_ctr_remote(source: str, target: str, option: str) -> float:
    """ctr-remote with a containerd of its own, which lives for this conversion only; seconds of the conversion."""
    home = Path(tempfile.mkdtemp(prefix="containerd-", dir=places.lab_directory()))
    socket = home / "containerd.sock"
    config = home / "config.toml"
    config.write_text(containerd_config(home))
    containerd = processes.Background(
        ["containerd", "--config", config],
        log=home / "containerd.log",
        environment={"TMPDIR": os.fspath(home)},
    )
    remote = ["ctr-remote", "--address", os.fspath(socket)]
    try:
        containerd.wait_until(
            lambda: processes.run([*remote, "version"], allow_failure=True).returncode == 0, what="answering"
        )
        processes.run([*remote, "content", "fetch", "--plain-http", source], timeout_seconds=1200)
        started = time.monotonic()
        processes.run([*remote, "images", "convert", option, "--oci", source, target], timeout_seconds=1200)
        seconds = time.monotonic() - started
        processes.run([*remote, "images", "push", "--plain-http", target], timeout_seconds=1200)
        return seconds
    finally:
        containerd.stop()
        for mounted in places.mounts_below(home):
            processes.run(["umount", "-l", mounted], allow_failure=True)
        shutil.rmtree(home, ignore_errors=True)
