"""The registry from which an image is run for its record."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry_storage.convert.layout import Layout
from registry_storage.convert.serving import LayoutRegistry
from registry_storage.digest import Digest

BLOB = bytes(range(200))
MANIFEST = b'{"schemaVersion":2}'
TYPE = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    layout = Layout(tmp_path / "layout")
    layout.create()
    for data in (BLOB, MANIFEST):
        layout.add_blob(Digest.of(data), data)
    with LayoutRegistry(tmp_path / "layout", Digest.of(MANIFEST), TYPE) as registry:
        host, _, rest = registry.image.partition("/")
        assert rest == f"workload@{Digest.of(MANIFEST)}"
        yield f"http://{host}/v2/"


def get(url: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as reply:
            return reply.status, dict(reply.headers), reply.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


def test_manifests_and_ranges_of_blobs_are_served(address: str) -> None:
    assert get(address)[0] == 200
    status, headers, body = get(f"{address}workload/manifests/{Digest.of(MANIFEST)}")
    assert (status, headers["Content-Type"], json.loads(body)) == (200, TYPE, {"schemaVersion": 2})
    blob = f"{address}workload/blobs/{Digest.of(BLOB)}"
    assert get(blob)[::2] == (200, BLOB)
    status, headers, body = get(blob, Range="bytes=10-19")
    assert (status, headers["Content-Range"], body) == (206, "bytes 10-19/200", BLOB[10:20])
    assert get(blob, Range="bytes=190-999")[::2] == (206, BLOB[190:])
    assert get(blob, Range="bytes=200-210")[0] == 416
    assert get(blob, Range="bytes=20-10")[0] == 416


@pytest.mark.parametrize(
    "path",
    ["workload/blobs/sha256:" + "0" * 64, "workload/blobs/../oci-layout", "other/x", f"x/blobs/{Digest.of(BLOB)}"],
)
def test_nothing_else_is_served(address: str, path: str) -> None:
    assert get(address + path)[0] == 404
