"""What is read is written down, in order."""

import json

from registry_storage.digest import Digest
from tests.fakes.images import File, build_layer, put_image
from tests.fakes.registry import FakeRegistry

from .conftest import Daemon


def test_reads_are_written_down_with_their_place_and_layer(daemon: Daemon, registry: FakeRegistry) -> None:
    base = build_layer([File("lib/one", b"1" * 5000), File("lib/never", b"2")])
    top = build_layer([File("app/main", b"3" * 300)])
    image = put_image(registry, [base, top])
    record = daemon.directory / "record"
    daemon.start("--record", str(record))
    assert (daemon.layer(image, 1) / "diff/app/main").read_bytes() == b"3" * 300
    assert (daemon.layer(image, 0) / "diff/lib/one").read_bytes() == b"1" * 5000
    assert daemon.stop() == 0
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    digest = str(Digest.of(image.manifest))
    moments = [line.pop("seconds") for line in lines]
    assert moments == sorted(moments)
    assert lines[0] == {"path": "app/main", "manifestDigest": digest, "layerIndex": 1, "offset": 0, "size": 300}
    assert {line["path"] for line in lines[1:]} == {"lib/one"}
    assert {line["layerIndex"] for line in lines[1:]} == {0}
    assert sum(line["size"] for line in lines[1:]) == 5000
