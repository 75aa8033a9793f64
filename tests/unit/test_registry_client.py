"""Manifests, documents, redirects and ways to a registry."""

import json
import logging
import ssl
from pathlib import Path

import pytest
import trio
import trustme
from trio.testing import MockClock

from registry_storage.descriptor import (
    DOCKER_MANIFEST,
    MAX_MANIFEST_BYTES,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
)
from registry_storage.digest import Digest
from registry_storage.errors import (
    BadResponseError,
    NotFoundError,
    RegistryError,
    UnauthorizedError,
    UnavailableError,
    VerificationError,
)
from registry_storage.reference import Reference
from registry_storage.registry.client import RegistryClient
from registry_storage.registry.hosts import Registries, endpoint
from tests.fakes.registry import FakeRegistry
from tests.fakes.registry_world import DATA, World

pytest_plugins = ["tests.fakes.registry_fixtures"]

MANIFEST = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": []}).encode()


async def test_a_manifest_is_fetched_by_tag(world: World) -> None:
    digest = world.fake.put_manifest("team/app", "v1", MANIFEST)
    assert await world.client.fetch_manifest(world.reference) == (digest, OCI_MANIFEST, MANIFEST)
    accept = world.fake.requests("/manifests/v1")[0].headers["accept"]
    assert OCI_INDEX in accept
    assert DOCKER_MANIFEST in accept


async def test_a_manifest_is_fetched_and_verified_by_digest(world: World) -> None:
    digest = world.fake.put_manifest("team/app", "v1", MANIFEST)
    reference = world.reference.with_digest(digest)
    assert (await world.client.fetch_manifest(reference))[0] == digest
    world.fake.manifests["team/app", str(digest)] = OCI_MANIFEST, MANIFEST + b" "
    with pytest.raises(VerificationError, match=f"wanted {digest}, got sha256:"):
        await world.client.fetch_manifest(reference)


async def test_the_registrys_word_for_a_digest_counts_for_nothing(world: World) -> None:
    world.fake.put_manifest("team/app", "v1", MANIFEST)
    world.fake.inject("headers", times=None, headers={"docker-content-digest": "sha256:" + "0" * 64})
    assert (await world.client.fetch_manifest(world.reference))[0] == Digest.of(MANIFEST)
    assert len(world.fake.requests("/manifests/v1")) == 2  # it might have been changed on the way


async def test_a_manifest_of_a_tag_that_was_changed_on_the_way_is_fetched_again(world: World) -> None:
    digest = world.fake.put_manifest("team/app", "v1", MANIFEST)
    world.fake.inject("corrupt", at=20)
    assert await world.client.fetch_manifest(world.reference) == (digest, OCI_MANIFEST, MANIFEST)


@pytest.mark.parametrize(
    ("content_type", "document", "wanted"),
    [
        (f"{OCI_MANIFEST}; charset=utf-8", {}, OCI_MANIFEST),
        ("Application/Vnd.OCI.Image.Manifest.v1+JSON", {}, OCI_MANIFEST),
        ("application/json", {"mediaType": DOCKER_MANIFEST}, DOCKER_MANIFEST),
        (OCI_INDEX, {"mediaType": OCI_MANIFEST}, OCI_MANIFEST),
        ("text/plain", {"layers": []}, OCI_MANIFEST),
        ("text/plain", {"manifests": []}, OCI_INDEX),
        ("text/plain", {"mediaType": "application/x-other"}, "application/x-other"),
        ("text/plain", {}, "text/plain"),
        ("text/plain", [], "text/plain"),
    ],
)
async def test_the_media_type_of_a_manifest(
    world: World, content_type: str, document: object, wanted: str
) -> None:
    world.fake.put_manifest("team/app", "v1", json.dumps(document).encode(), content_type)
    assert (await world.client.fetch_manifest(world.reference))[1] == wanted


async def test_a_manifest_that_is_too_large_is_not_read(world: World) -> None:
    world.fake.put_manifest("team/app", "v1", b" " * (MAX_MANIFEST_BYTES + 1))
    world.fake.inject("chunked", path="v1", skip=1)
    for _ in range(2):
        with pytest.raises(BadResponseError, match="wanted at most 4194304 bytes"):
            await world.client.fetch_manifest(world.reference)


async def test_a_manifest_that_breaks_off_is_fetched_again(world: World, clock: MockClock) -> None:
    world.fake.put_manifest("team/app", "v1", MANIFEST)
    world.fake.inject("truncate", path="/manifests/", at=20)
    world.fake.inject("status", path="/manifests/", status=503, skip=1)
    assert (await world.client.fetch_manifest(world.reference))[2] == MANIFEST
    assert world.gets("/manifests/") == 3


async def test_an_unknown_manifest_is_not_found(world: World) -> None:
    with pytest.raises(NotFoundError, match=r"team/app: manifest v1: .* got 404 \(MANIFEST_UNKNOWN\)"):
        await world.client.fetch_manifest(world.reference)
    assert world.gets("/manifests/") == 1


async def test_a_compressed_manifest_is_refused(world: World) -> None:
    world.fake.put_manifest("team/app", "v1", MANIFEST)
    world.fake.inject("headers", path="/manifests/", headers={"content-encoding": "br"})
    with pytest.raises(BadResponseError, match="Content-Encoding"):
        await world.client.fetch_manifest(world.reference)


@pytest.mark.parametrize("fault", ["stall", "drip"])
async def test_a_registry_that_stalls_fails_a_lookup_within_twenty_seconds(
    world: World, clock: MockClock, fault: str
) -> None:
    world.fake.put_manifest("team/app", "v1", MANIFEST)
    world.fake.inject(fault, listener="registry", at=1 if fault == "drip" else None, seconds=5, times=None)
    started = trio.current_time()
    with pytest.raises(UnavailableError):
        await world.client.fetch_manifest(world.reference)
    assert trio.current_time() - started <= 20


async def test_a_registry_that_was_down_is_asked_again(world: World, clock: MockClock) -> None:
    world.fake.put_manifest("team/app", "v1", MANIFEST)
    down = world.fake.inject("disconnect", times=None)
    with pytest.raises(UnavailableError):
        await world.client.fetch_manifest(world.reference)
    world.fake.faults.remove(down)
    assert (await world.client.fetch_manifest(world.reference))[2] == MANIFEST


async def test_nobody_at_the_port_is_unavailable(client: RegistryClient, clock: MockClock) -> None:
    with pytest.raises(UnavailableError, match=r"127.0.0.1:1/team/app: .*no connection"):
        await client.fetch_manifest(Reference.parse("127.0.0.1:1/team/app"))


@pytest.mark.parametrize(
    "host", ["999.1.1.1", "127.0.0.1:99999", "127.0.0.1:0", "xn--a.invalid", "[::1]:1", "[1:2]", "a--.b"]
)
async def test_a_host_that_cannot_be_is_unavailable(
    client: RegistryClient, clock: MockClock, host: str
) -> None:
    with pytest.raises(UnavailableError):
        await client.fetch_manifest(Reference(host, "team/app", "v1"))


async def test_a_document_is_fetched_and_verified(world: World) -> None:
    assert await world.client.fetch_document(world.reference, world.descriptor, 1 << 20) == DATA
    world.fake.inject("flip", path="/blobs/", offsets=(999,))
    with pytest.raises(VerificationError, match=f"wanted {world.descriptor.digest}"):
        await world.client.fetch_document(world.reference, world.descriptor, 1 << 20)


async def test_a_document_over_the_limit_is_not_fetched(world: World) -> None:
    with pytest.raises(BadResponseError, match="wanted at most 1000 bytes, got 1000000"):
        await world.client.fetch_document(world.reference, world.descriptor, 1000)
    assert world.fake.log == []


async def test_an_empty_document_is_fetched(world: World) -> None:
    empty = world.fake.put_blob("team/app", b"")
    assert await world.client.fetch_document(world.reference, empty, 10) == b""


# Retry-After.


async def test_retry_after_seconds_is_waited_for(world: World, clock: MockClock) -> None:
    world.fake.inject("status", path="/blobs/", status=429, headers={"retry-after": "7"})
    started = trio.current_time()
    await world.blob().fetch(0, 10)
    assert 7 <= trio.current_time() - started < 9


async def test_retry_after_a_date_is_waited_for(fake: FakeRegistry, app: Reference, clock: MockClock) -> None:
    descriptor = fake.put_blob("team/app", DATA)
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    fake.inject("status", path="/blobs/", status=503, headers={"retry-after": date})
    async with RegistryClient(wall_clock=lambda: 1445412480.0 - 6) as client:
        started = trio.current_time()
        await client.open_blob(app, descriptor).fetch(0, 10)
        assert 6 <= trio.current_time() - started < 8


async def test_a_wait_longer_than_the_operation_may_take_fails_at_once(
    world: World, clock: MockClock
) -> None:
    world.fake.inject("status", path="/blobs/", status=429, headers={"retry-after": "3600"})
    started = trio.current_time()
    with pytest.raises(UnavailableError, match="got 429"):
        await world.blob().fetch(0, 10)
    assert trio.current_time() - started < 1


# Redirects.


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_relative_redirect_is_followed(world: World, status: int) -> None:
    digest = world.descriptor.digest
    world.fake.blobs["moved", str(digest)] = DATA
    location = f"/v2/moved/blobs/{digest}"
    world.fake.inject("status", path="team/app/blobs", status=status, headers={"location": location})
    assert await world.blob().fetch(5, 10) == DATA[5:15]


async def test_a_circle_of_redirects_ends(world: World) -> None:
    world.fake.inject("redirect", path="/blobs/", location="?again", times=None)
    with pytest.raises(BadResponseError, match="wanted at most 5 redirects"):
        await world.blob().fetch(5, 10)
    assert world.gets() == 6


@pytest.mark.parametrize(
    "location",
    ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://user:pass@127.0.0.1/x", "http://h:99999/", ""],
)
async def test_a_redirect_to_nowhere_is_refused(world: World, location: str) -> None:
    world.fake.inject("redirect", path="/blobs/", location=location)
    with pytest.raises(BadResponseError, match="redirect") as caught:
        await world.blob().fetch(5, 10)
    assert "pass" not in str(caught.value).replace("passwd", "")


async def test_a_redirects_query_is_in_no_message_and_no_log(
    world: World, clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    world.fake.redirect_blobs = True
    await world.blob().fetch(5, 10)
    world.fake.inject("status", listener="storage", status=500, times=None)
    with pytest.raises(UnavailableError) as caught:
        await world.blob().fetch(5, 10)
    assert "signature" not in str(caught.value)
    assert "signature" not in caplog.text


# Ways to a host.


class Insecure(Registries):
    """Everything is marked insecure."""

    def endpoints(self, reference: Reference):  # type: ignore[no-untyped-def]
        return (endpoint(reference, insecure=True),)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A key and its certificate for 127.0.0.1, with its authority, in one file."""
    authority = trustme.CA()
    path = tmp_path / "server.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(path)
    authority.cert_pem.write_to_path(path, append=True)
    return path


@pytest.fixture
async def tls_fake(nursery: trio.Nursery, certificate: Path) -> FakeRegistry:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    fake: FakeRegistry = await nursery.start(FakeRegistry(ssl_context=context).serve)
    fake.put_manifest("team/app", "v1", MANIFEST)
    return fake


async def test_loopback_is_asked_by_plain_http_first_and_once(world: World) -> None:
    world.fake.put_manifest("team/app", "v1", MANIFEST)
    for _ in range(3):
        await world.client.fetch_manifest(world.reference)
    assert [entry.path for entry in world.fake.log].count("/v2/") == 1


async def test_loopback_with_tls_must_have_a_valid_certificate(
    tls_fake: FakeRegistry, clock: MockClock
) -> None:
    async with RegistryClient() as client:
        with pytest.raises(RegistryError, match=r"the certificate of .* is not valid .*certs.d"):
            await client.fetch_manifest(Reference.parse(f"{tls_fake.host}/team/app:v1"))
    assert tls_fake.log == []


async def test_loopback_with_tls_is_used_when_its_certificate_is_valid(
    tls_fake: FakeRegistry, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with RegistryClient() as client:
        got = await client.fetch_manifest(Reference.parse(f"{tls_fake.host}/team/app:v1"))
    assert got[2] == MANIFEST


async def test_an_insecure_host_needs_no_valid_certificate(tls_fake: FakeRegistry) -> None:
    async with RegistryClient(registries=Insecure()) as client:
        got = await client.fetch_manifest(Reference.parse(f"{tls_fake.host}/team/app:v1"))
    assert got[2] == MANIFEST


async def test_an_insecure_host_without_tls_is_asked_by_plain_http(
    fake: FakeRegistry, app: Reference
) -> None:
    fake.put_manifest("team/app", "v1", MANIFEST)
    async with RegistryClient(registries=Insecure()) as client:
        for _ in range(2):
            assert (await client.fetch_manifest(app))[2] == MANIFEST
    assert fake.connections == 2


async def test_https_does_not_lead_to_plain_http_on_another_host(tls_fake: FakeRegistry) -> None:
    descriptor = Descriptor("", Digest.of(DATA), len(DATA))
    tls_fake.inject("redirect", path="/blobs/", location="http://storage.example/x")
    async with RegistryClient(registries=Insecure()) as client:
        reference = Reference.parse(f"{tls_fake.host}/team/app:v1")
        with pytest.raises(BadResponseError, match=r"from https at .* to http at storage.example"):
            await client.open_blob(reference, descriptor).fetch(5, 10)


async def test_a_proxy_is_not_used_for_loopback(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert await world.blob().fetch(5, 10) == DATA[5:15]


async def test_a_proxy_is_used_for_other_hosts(fake: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://{fake.host}")
    monkeypatch.setenv("http_proxy", f"http://{fake.host}")
    monkeypatch.delenv("HTTPS_PROXY", raising=False)
    async with RegistryClient(registries=Insecure()) as client:
        with pytest.raises(RegistryError):
            await client.fetch_manifest(Reference.parse("registry.invalid/team/app"))
    assert any(entry.path.startswith("http://registry.invalid/") for entry in fake.log)


async def test_netrc_is_not_read(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("default login somebody password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))
    await world.blob().fetch(5, 10)
    assert all("authorization" not in entry.headers for entry in world.fake.log)


async def test_cookies_are_not_kept(world: World) -> None:
    world.fake.inject("headers", headers={"set-cookie": "id=1; Path=/"}, times=None)
    blob = world.blob()
    await blob.fetch(5, 10)
    await blob.fetch(5, 10)
    assert all("cookie" not in entry.headers for entry in world.fake.log)


async def test_a_cancelled_reader_leaves_no_connection_behind(world: World, clock: MockClock) -> None:
    world.fake.inject("stall", path="/blobs/", at=1000, times=40)
    blob = world.blob()
    for _ in range(40):
        with trio.move_on_after(1):
            await blob.fetch(5, 10_000)
    assert await blob.fetch(5, 10) == DATA[5:15]


async def test_a_refused_status_with_an_endless_body_is_cut_off(world: World, clock: MockClock) -> None:
    world.fake.inject("status", path="/blobs/", status=403, body=b"x" * 10_000_000)
    with pytest.raises(UnauthorizedError):
        await world.blob().fetch(5, 10)
