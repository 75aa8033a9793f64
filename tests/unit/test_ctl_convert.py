"""``registry-storagectl convert`` against a registry that can misbehave."""

import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry_storage.convert.blob_reader import LayerReader
from registry_storage.convert.layout import Layout
from registry_storage.ctl import main
from registry_storage.descriptor import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Descriptor
from registry_storage.digest import Digest
from tests.fakes.registry import FakeRegistry
from tests.fakes.tar_images import put_attestation, put_image, put_index, tar

FORMATS = ("--estargz", "--zstd-chunked", "--zstd-chunked=stargz", "--uncompress")
BIG = random.Random(3).randbytes(200_000)
BASE = {"etc/passwd": b"root", "bin/sh": BIG, "bin/ls": b"ls"}
APP = {"app/main.py": b"print()", "bin/ls": b"better ls"}


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with FakeRegistry().in_thread() as registry:
        yield registry


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where work directories are; nothing may be left there."""
    directory = tmp_path / "work"
    directory.mkdir()
    monkeypatch.setenv("TMPDIR", str(directory))
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(tmp_path / "none.conf"))
    yield directory
    assert not list(directory.iterdir())


def convert(fake: FakeRegistry, *words: str, source: str = "team/app:v1", target: str = "new/app:v2") -> int:
    return main(["convert", *words, f"{fake.host}/{source}", f"{fake.host}/{target}"])


def stored(fake: FakeRegistry, repository: str = "new/app", version: str = "v2") -> dict[str, Any]:
    media_type, data = fake.manifests[repository, version]
    document: dict[str, Any] = json.loads(data)
    assert document["mediaType"] == media_type
    return document


def content(fake: FakeRegistry, layer: dict[str, Any]) -> dict[str, bytes]:
    blob = fake.blobs["new/app", layer["digest"]]
    with LayerReader.open(blob, descriptor=Descriptor.from_json(layer, "layer")) as reader:
        return {entry.path: reader.read(entry.path) for entry in reader.list() if entry.chunk_count}


def requests(fake: FakeRegistry, method: str) -> list[str]:
    return [entry.path for entry in fake.log if entry.method == method]


@pytest.mark.parametrize("kind", FORMATS[:3])
def test_an_image_is_converted(fake: FakeRegistry, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    put_image(fake, [BASE, APP])
    assert convert(fake, kind) == 0
    manifest = stored(fake)
    assert [content(fake, layer) for layer in manifest["layers"]] == [BASE, APP]
    digest = Digest.of(fake.manifests["new/app", "v2"][1])
    assert capsys.readouterr().out == f"{digest}\n"
    config = json.loads(fake.blobs["new/app", manifest["config"]["digest"]])
    assert config["history"] == [{"created_by": "test"}] * 2
    assert main(["verify", f"{fake.host}/new/app:v2"]) == 0
    assert capsys.readouterr().out.count(": right: ") == 2


def test_uncompressed_layers_have_their_diff_id_as_digest(fake: FakeRegistry) -> None:
    put_image(fake, [BASE, APP])
    assert convert(fake, "--uncompress") == 0
    manifest = stored(fake)
    assert [layer["digest"] for layer in manifest["layers"]] == [str(Digest.of(tar(files))) for files in (BASE, APP)]
    assert {layer["mediaType"] for layer in manifest["layers"]} == {"application/vnd.oci.image.layer.v1.tar"}


def test_the_manifest_comes_last(fake: FakeRegistry) -> None:
    put_image(fake, [BASE, APP])
    convert(fake, "--estargz")
    puts = requests(fake, "PUT")
    assert puts[-1] == "/v2/new/app/manifests/v2"
    assert sum("manifests" in path for path in puts) == 1


def test_a_layer_that_is_there_twice_is_converted_once(fake: FakeRegistry) -> None:
    put_image(fake, [BASE, BASE])
    convert(fake, "--estargz")
    assert len(stored(fake)["layers"]) == 2
    assert sum("uploads" in path for path in requests(fake, "PUT")) == 2  # the layer and the config


@pytest.mark.parametrize(("words", "media_type"), [((), DOCKER_MANIFEST), (("--oci",), OCI_MANIFEST)])
def test_media_types_of_docker_become_ocis_where_that_is_wanted(
    fake: FakeRegistry, words: tuple[str, ...], media_type: str
) -> None:
    put_image(fake, [BASE], docker=True)
    convert(fake, "--estargz", *words)
    assert stored(fake)["mediaType"] == media_type


def test_zstd_needs_media_types_of_oci(fake: FakeRegistry) -> None:
    put_image(fake, [BASE], docker=True)
    convert(fake, "--zstd-chunked")
    assert stored(fake)["layers"][0]["mediaType"] == "application/vnd.oci.image.layer.v1.tar+zstd"


def put_two_platforms(fake: FakeRegistry) -> tuple[Digest, Digest, Digest]:
    amd = put_image(fake, [BASE, APP], tag="amd", architecture="amd64")
    arm = put_image(fake, [BASE, {"arm": b"arm"}], tag="arm", architecture="arm64")
    attestation = put_attestation(fake)
    about = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": str(amd)}
    put_index(
        fake,
        [
            (amd, {"platform": {"os": "linux", "architecture": "amd64"}, "annotations": {"kept": "yes"}}),
            (arm, {"platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}}),
            (attestation, {"platform": {"os": "unknown", "architecture": "unknown"}, "annotations": about}),
        ],
    )
    return amd, arm, attestation


def test_one_platform_of_an_index_becomes_a_manifest(fake: FakeRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    put_two_platforms(fake)
    assert convert(fake, "--estargz", "--platform", "linux/arm64", source="team/app:index") == 0
    assert content(fake, stored(fake)["layers"][1]) == {"arm": b"arm"}
    said = capsys.readouterr().err
    assert "left out: attestation-manifest" in said
    assert "left out: image for linux/amd64" in said


def test_all_platforms_stay_an_index_with_what_attests_them(fake: FakeRegistry) -> None:
    _, _, attestation = put_two_platforms(fake)
    assert convert(fake, "--zstd-chunked", "--all-platforms", source="team/app:index") == 0
    index = stored(fake)
    assert index["mediaType"] == OCI_INDEX
    amd, arm, attested = index["manifests"]
    assert amd["annotations"] == {"kept": "yes"}
    assert arm["platform"]["variant"] == "v8"
    assert attested["digest"] == str(attestation)
    assert attested["annotations"]["vnd.docker.reference.digest"] == amd["digest"]
    assert content(fake, stored(fake, version=arm["digest"])["layers"][1]) == {"arm": b"arm"}
    for entry in stored(fake, version=attested["digest"])["layers"]:
        assert ("new/app", entry["digest"]) in fake.blobs


def test_several_platforms_make_an_index_of_them(fake: FakeRegistry) -> None:
    put_two_platforms(fake)
    words = ("--platform", "linux/amd64", "--platform", "linux/arm64")
    assert convert(fake, "--estargz", *words, source="team/app:index") == 0
    assert len(stored(fake)["manifests"]) == 3


def test_a_platform_that_is_not_there_is_an_error(fake: FakeRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    put_two_platforms(fake)
    assert convert(fake, "--estargz", "--platform", "linux/s390x", source="team/app:index") == 1
    assert "no image for linux/s390x; it has linux/amd64, linux/arm64/v8" in capsys.readouterr().err


def test_a_converted_image_is_reused(fake: FakeRegistry) -> None:
    put_image(fake, [BASE, APP])
    convert(fake, "--estargz", target="team/app:lazy")
    fake.log.clear()
    assert convert(fake, "--estargz", "--reuse", source="team/app:lazy") == 0
    assert fake.manifests["new/app", "v2"] == fake.manifests["team/app", "lazy"]
    assert sum("mount=" in path for path in requests(fake, "POST")) == 3
    assert not [path for path in requests(fake, "PUT") if "uploads" in path]


def test_layers_of_another_format_are_not_reused(fake: FakeRegistry) -> None:
    put_image(fake, [BASE])
    convert(fake, "--estargz", target="team/app:lazy")
    convert(fake, "--zstd-chunked", "--reuse", source="team/app:lazy")
    assert next(iter(stored(fake)["layers"][0]["annotations"])).startswith("io.github.containers.zstd-chunked")
    assert "containerd.io/snapshot/stargz/toc.digest" not in stored(fake)["layers"][0]["annotations"]


def test_files_of_a_list_come_first(fake: FakeRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_image(fake, [BASE, APP])
    (tmp_path / "list").write_text("# mine\n/app/*\nbin/**\nno/such\n")
    assert convert(fake, "--estargz", "--prefetch-list", str(tmp_path / "list")) == 0
    assert "no layer has no/such" in capsys.readouterr().err
    first = []
    for layer in stored(fake)["layers"]:
        with LayerReader.open(fake.blobs["new/app", layer["digest"]]) as reader:
            first.append({entry.path for entry in reader.list() if entry.prioritized})
    assert first == [{"bin/sh"}, {"app/main.py", "bin/ls"}]


def test_recorded_files_come_first(fake: FakeRegistry, tmp_path: Path) -> None:
    digest = put_image(fake, [BASE, APP])
    record = {"path": "etc/passwd", "manifestDigest": str(digest), "layerIndex": 0}
    (tmp_path / "record").write_text(json.dumps(record) + "\n")
    assert convert(fake, "--estargz", "--record-in", str(tmp_path / "record")) == 0
    with LayerReader.open(fake.blobs["new/app", stored(fake)["layers"][0]["digest"]]) as reader:
        assert reader.stat("etc/passwd").prioritized
        assert not reader.stat("bin/sh").prioritized


def test_an_external_toc_goes_to_an_image_of_its_own(fake: FakeRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    put_image(fake, [BASE, APP])
    words = ("--estargz", "--oci", "--estargz-external-toc", "--estargz-keep-diff-id")
    assert convert(fake, *words) == 0
    config = stored(fake)["config"]["digest"]
    assert json.loads(fake.blobs["new/app", config])["rootfs"]["diff_ids"] == [
        str(Digest.of(tar(files))) for files in (BASE, APP)
    ]
    companion = stored(fake, version="v2-esgztoc")
    named = [layer["annotations"]["containerd.io/snapshot/stargz/layer.digest"] for layer in companion["layers"]]
    assert named == [layer["digest"] for layer in stored(fake)["layers"]]
    puts = requests(fake, "PUT")
    assert puts[-2:] == ["/v2/new/app/manifests/v2-esgztoc", "/v2/new/app/manifests/v2"]
    assert main(["verify", f"{fake.host}/new/app:v2"]) == 0


def test_foreign_layers_stay_where_they_are(fake: FakeRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    media_type = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    foreign = {"mediaType": media_type, "digest": str(Digest.of(b"f")), "size": 5, "urls": ["https://example.com/f"]}
    put_image(fake, [APP], foreign=[foreign])
    assert convert(fake, "--estargz") == 0
    assert stored(fake)["layers"][0] == foreign
    assert "stays as it is" in capsys.readouterr().err


def test_a_dry_run_changes_nothing(fake: FakeRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    put_image(fake, [BASE, APP])
    assert convert(fake, "--estargz", "--dry-run") == 0
    assert capsys.readouterr().out.count("would be converted") == 2
    assert {entry.method for entry in fake.log} == {"GET"}


def test_the_result_as_json_names_every_layer(fake: FakeRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    digest = put_image(fake, [BASE, APP])
    assert convert(fake, "--estargz", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["digest"] == str(Digest.of(fake.manifests["new/app", "v2"][1]))
    (image,) = said["images"]
    assert (image["platform"], image["sourceManifest"]) == ("linux/amd64", str(digest))
    assert [layer["digest"] for layer in image["layers"]] == [layer["digest"] for layer in stored(fake)["layers"]]


@pytest.mark.parametrize("jobs", ["1", "8"])
def test_any_number_of_jobs_makes_the_same(fake: FakeRegistry, jobs: str, tmp_path: Path) -> None:
    put_image(fake, [BASE, APP])
    convert(fake, "--zstd-chunked", "--jobs", "3", target="new/app:reference")
    convert(fake, "--zstd-chunked", "--jobs", jobs)
    assert fake.manifests["new/app", "v2"] == fake.manifests["new/app", "reference"]


def test_layouts_are_written_and_read(
    fake: FakeRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_image(fake, [BASE, APP], docker=True)
    first, second = f"oci:{tmp_path}/one:v1", f"oci:{tmp_path}/two"
    assert main(["convert", "--estargz", f"{fake.host}/team/app:v1", first]) == 0
    assert main(["convert", "--zstd-chunked", first, second]) == 0
    assert main(["verify", second]) == 0
    found = Layout(tmp_path / "two").find(None)
    assert found.media_type == OCI_MANIFEST
    names = {path.name for path in (tmp_path / "two").rglob("*")}
    assert not [name for name in names if name.startswith(".")]


def test_a_tag_of_a_layout_moves_and_others_stay(fake: FakeRegistry, tmp_path: Path) -> None:
    put_image(fake, [BASE])
    put_image(fake, [APP], tag="other")
    for source, tag in (("v1", "a"), ("other", "b"), ("other", "a")):
        assert main(["convert", "--estargz", f"{fake.host}/team/app:{source}", f"oci:{tmp_path}/lay:{tag}"]) == 0
    layout = Layout(tmp_path / "lay")
    assert layout.find("a").digest == layout.find("b").digest


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT"])
def test_a_refused_push_publishes_nothing(
    fake: FakeRegistry, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    put_image(fake, [{"big": random.Random(1).randbytes(3_000_000)}])
    fake.inject("status", method=method, status=403, times=None)
    assert convert(fake, "--estargz") == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith(f"registry-storagectl: {fake.host}/new/app: blob sha256:")
    assert "got 403; no credentials for" in said[-1]
    assert not [key for key in fake.manifests if key[0] == "new/app"]
    assert not fake.uploads.open


def test_a_corrupt_layer_is_an_error(fake: FakeRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    put_image(fake, [BASE])
    layer = json.loads(fake.manifests["team/app", "v1"][1])["layers"][0]["digest"]
    fake.inject("flip", path=layer, offsets=(100,), times=None)
    assert convert(fake, "--estargz") == 1
    assert f"layer: wanted {layer}" in capsys.readouterr().err
    assert not [key for key in fake.manifests if key[0] == "new/app"]


def test_a_layer_that_is_no_tar_is_an_error(fake: FakeRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    put_image(fake, [BASE])
    document = json.loads(fake.manifests["team/app", "v1"][1])
    junk = fake.put_blob("team/app", gzip.compress(b"junk" * 1000))
    document["layers"][0] |= {"digest": str(junk.digest), "size": junk.size}
    fake.put_manifest("team/app", "v1", json.dumps(document).encode())
    assert convert(fake, "--estargz") == 1
    assert "tar" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["convert", "--estargz", "a"],
        ["convert", "a", "b"],
        ["convert", "--estargz", "--zstd-chunked", "a", "b"],
        ["convert", "--estargz", "--level", "99", "a", "b"],
        ["convert", "--estargz", "--estargz-keep-diff-id", "a", "b"],
        ["convert", "--uncompress", "--estargz-external-toc", "a", "b"],
        ["convert", "--estargz", "--prefetch-list", "/no/such", "a", "b"],
        ["convert", "--estargz", "--chunk-size", "many", "a", "b"],
        ["convert", "--estargz", "--platform", "linux/amd64", "--all-platforms", "a", "b"],
        ["convert", "--zstd-chunked=gnu", "a", "b"],
        ["convert", "--estargz", "UPPER/a", "b:c:d"],
        ["inspect"],
        ["frobnicate"],
    ],
    ids=lambda words: " ".join(words[:4]),
)
def test_misuse_is_told_with_status_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status: object = main(words)
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert capsys.readouterr().err


def test_a_destination_needs_a_tag(fake: FakeRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    put_image(fake, [APP])
    assert convert(fake, "--estargz", target=f"new/app@{Digest.of(b'')}") == 1
    assert "needs a tag" in capsys.readouterr().err


def test_a_missing_skopeo_is_named(
    fake: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_image(fake, [APP])
    monkeypatch.setenv("PATH", str(tmp_path))
    for words in ([f"{fake.host}/team/app:v1", f"dir:{tmp_path}/out"], ["docker-archive:/x.tar", "oci:y"]):
        assert main(["convert", "--estargz", *words]) == 1
        assert "skopeo, which is not installed" in capsys.readouterr().err


def test_what_is_there_is_not_overwritten(
    fake: FakeRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_image(fake, [APP])
    (tmp_path / "a.tar").write_bytes(b"mine")
    assert main(["convert", "--estargz", f"{fake.host}/team/app:v1", f"oci-archive:{tmp_path}/a.tar"]) == 1
    assert (tmp_path / "a.tar").read_bytes() == b"mine"


def test_inspect_tells_what_is_in_the_layers(fake: FakeRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    put_image(fake, [BASE])
    assert main(["inspect", f"{fake.host}/team/app:v1"]) == 0
    assert "not lazily pullable: a plain gzip layer" in capsys.readouterr().out
    convert(fake, "--estargz")
    capsys.readouterr()
    assert main(["inspect", f"{fake.host}/new/app:v2", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["format"], said["chunks"], said["landmark"]) == ("eStargz", 3, "nothing comes first")
    assert main(["inspect", f"{fake.host}/new/app:v2", "--toc"]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == 1
    assert main(["get-toc-digest", f"{fake.host}/new/app:v2"]) == 0
    assert capsys.readouterr().out == said["tocDigest"] + "\n"


def test_a_blob_in_a_file_is_looked_at(
    fake: FakeRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_image(fake, [BASE])
    convert(fake, "--zstd-chunked")
    blob = bytearray(fake.blobs["new/app", stored(fake)["layers"][0]["digest"]])
    path = tmp_path / "blob"
    path.write_bytes(blob)
    for command in ("inspect", "verify", "get-toc-digest"):
        assert main([command, str(path)]) == 0
    blob[1000] ^= 1  # inside the incompressible file
    path.write_bytes(blob)
    capsys.readouterr()
    assert main(["verify", str(path)]) == 1
    assert capsys.readouterr().err.startswith("registry-storagectl: ")


def test_verify_finds_a_wrong_byte(fake: FakeRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    put_image(fake, [BASE, APP])
    convert(fake, "--estargz")
    digest = stored(fake)["layers"][0]["digest"]
    blob = bytearray(fake.blobs["new/app", digest])
    blob[1000] ^= 1
    fake.blobs["new/app", digest] = bytes(blob)
    assert main(["verify", f"{fake.host}/new/app:v2"]) == 1
    assert f"layer 0 {digest}: " in capsys.readouterr().err
