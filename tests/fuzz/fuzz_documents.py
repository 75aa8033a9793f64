"""Fuzz target: the texts that registries and podman hand to us: manifests, configs, headers, tokens, names of paths.

    python -m tests.fuzz.fuzz_documents [libFuzzer options] [corpus directory]     (needs atheris)

Whatever the bytes: a value that says the same when it is written again, or an error of this package.
"""

import gc
import json
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FunctionType

from registry_storage.descriptor import Index, Manifest, Platform, parse_diff_ids
from registry_storage.digest import Digest
from registry_storage.errors import RegistryStorageError
from registry_storage.formats.detect import detect
from registry_storage.reference import Reference
from registry_storage.registry.auth import _parse_token
from registry_storage.registry.challenge import parse_challenges
from registry_storage.registry.ranges import parse_content_range
from registry_storage.store.tree import decode_reference

DIGEST = "sha256:" + "5a" * 32
_LAYER = {
    "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": DIGEST, "size": 9,
    "annotations": {"containerd.io/snapshot/stargz/toc.digest": DIGEST},
}  # fmt: skip


def _manifest(data: bytes) -> None:
    for layer in Manifest.parse(data, "fuzz").layers:
        assert layer.size >= 0
        with suppress(RegistryStorageError):
            detect(layer)


def _index(data: bytes) -> None:
    Index.parse(data, "fuzz").select(Platform("linux", "arm64", "v8"))


def _reference(data: bytes) -> None:
    text = str(Reference.parse(data.decode("utf-8", "replace")))
    assert str(Reference.parse(text)) == text


def _digest(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    assert str(Digest.parse(text)) == text


def _challenges(data: bytes) -> None:
    for challenge in parse_challenges(data.decode("latin-1").split("\n")):
        assert challenge.scheme == challenge.scheme.lower()


def _content_range(data: bytes) -> None:
    found = parse_content_range(data.decode("latin-1"))
    assert found is None or 0 <= found[0] <= found[1] or found[2] is not None


PARSERS: tuple[Callable[[bytes], object], ...] = (
    _manifest, _index, lambda data: parse_diff_ids(data, "fuzz"), _reference, _digest, _challenges, _content_range,
    lambda data: _parse_token(data, "fuzz"), decode_reference,
)  # fmt: skip


def seeds() -> list[bytes]:
    """A good text for each."""
    manifest = {"schemaVersion": 2, "config": _LAYER, "layers": [_LAYER, _LAYER]}
    platform = {"os": "linux", "architecture": "arm64", "variant": "v8"}
    texts = (
        json.dumps(manifest), json.dumps({"schemaVersion": 2, "manifests": [_LAYER | {"platform": platform}]}),
        json.dumps({"rootfs": {"type": "layers", "diff_ids": [DIGEST]}}), "registry.example.org:5000/a/b:v1@" + DIGEST,
        DIGEST, 'Bearer realm="https://a/t",service="s",scope="repository:a:pull", Basic realm="b"', "bytes 0-9/100",
        '{"token": "abc", "expires_in": 60}', "ZG9ja2VyLmlvL2xpYnJhcnkvbmdpbng6MQ==",
    )  # fmt: skip
    return [bytes([number]) + text.encode() for number, text in enumerate(texts)]


def one_input(data: bytes) -> None:
    """Byte 0: which parser gets the rest."""
    if data:
        with suppress(RegistryStorageError):
            PARSERS[data[0] % len(PARSERS)](data[1:])


def main() -> None:
    import atheris

    # All of Python and its libraries would take minutes.
    for one in gc.get_objects():
        if isinstance(one, FunctionType) and str(one.__module__).startswith(("registry_storage.", "json.")):
            atheris.instrument_func(one)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
