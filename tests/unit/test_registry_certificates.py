"""containers-certs.d(5): which directory counts, what is in it, and what is said when it does not do."""

import ssl
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from trio.testing import MockClock

from registry_storage.errors import ConfigError, RegistryError, UnavailableError
from registry_storage.reference import Reference
from registry_storage.registry.certificates import Certificates, default_directories
from registry_storage.registry.client import RegistryClient
from registry_storage.registry.hosts import HTTPS, Endpoint, Registries
from registry_storage.registry.routes import Routes
from tests.fakes.registry import FakeRegistry
from tests.fakes.registry_world import DATA

pytest_plugins = ["tests.fakes.registry_fixtures"]

MANIFEST = b'{"schemaVersion": 2, "layers": []}'


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def server_context(authority: trustme.CA, name: str = "127.0.0.1") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    """What the fake registry shows; tests may change it."""
    return server_context(authority)


@pytest.fixture
async def fake(nursery: trio.Nursery, tls: ssl.SSLContext) -> FakeRegistry:
    registry: FakeRegistry = await nursery.start(FakeRegistry(ssl_context=tls).serve)
    registry.put_manifest("team/app", "v1", MANIFEST)
    return registry


@pytest.fixture
def directory(fake: FakeRegistry, tmp_path: Path) -> Path:
    path = tmp_path / "certs.d" / fake.host
    path.mkdir(parents=True)
    return path


async def fetch(fake: FakeRegistry, directory: Path) -> bytes:
    async with RegistryClient(routes=Routes(Certificates([directory.parent]))) as client:
        return (await client.fetch_manifest(Reference.parse(f"{fake.host}/team/app:v1")))[2]


async def test_an_own_authority_is_believed(fake: FakeRegistry, directory: Path, authority: trustme.CA) -> None:
    authority.cert_pem.write_to_path(directory / "ca.crt")
    assert await fetch(fake, directory) == MANIFEST


async def test_an_unknown_authority_is_named_with_the_place_for_it(
    fake: FakeRegistry, directory: Path, clock: MockClock
) -> None:
    with pytest.raises(UnavailableError, match="nobody known here has signed it") as caught:
        await fetch(fake, directory)
    assert f"{directory}/ca.crt" in str(caught.value)


async def test_a_certificate_of_another_host_is_named(
    nursery: trio.Nursery, authority: trustme.CA, tmp_path: Path, clock: MockClock
) -> None:
    other = FakeRegistry(ssl_context=server_context(authority, "registry.example"))
    fake: FakeRegistry = await nursery.start(other.serve)
    directory = tmp_path / fake.host
    directory.mkdir()
    authority.cert_pem.write_to_path(directory / "ca.crt")
    with pytest.raises(UnavailableError, match="it belongs to another host"):
        await fetch(fake, directory)


class OnlyHttps(Registries):
    """No way but HTTPS, as for a host that is not this machine."""

    def endpoints(self, reference: Reference) -> Sequence[Endpoint]:
        return [replace(one, ways=(HTTPS,)) for one in super().endpoints(reference)]


async def test_a_registry_without_tls_is_named(nursery: trio.Nursery, clock: MockClock) -> None:
    fake: FakeRegistry = await nursery.start(FakeRegistry().serve)
    async with RegistryClient(registries=OnlyHttps()) as client:
        with pytest.raises(RegistryError, match=r"does not speak TLS .* set insecure = true"):
            await client.fetch_manifest(Reference.parse(f"{fake.host}/team/app:v1"))


@pytest.fixture
def wanting(authority: trustme.CA, tls: ssl.SSLContext) -> None:
    """The registry wants a client certificate of the authority."""
    authority.configure_trust(tls)
    tls.verify_mode = ssl.CERT_REQUIRED


@pytest.mark.usefixtures("wanting")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_certificate_is_shown_and_its_lack_is_named(
    fake: FakeRegistry,
    directory: Path,
    authority: trustme.CA,
    tls: ssl.SSLContext,
    clock: MockClock,
    version: ssl.TLSVersion,
) -> None:
    tls.maximum_version = version
    authority.cert_pem.write_to_path(directory / "ca.crt")
    with pytest.raises(UnavailableError, match=r"wants a client certificate .*certs\.d/.* as client\.cert and client"):
        await fetch(fake, directory)
    leaf = authority.issue_cert("client.example")
    leaf.private_key_pem.write_to_path(directory / "client.key")
    for part in leaf.cert_chain_pems:
        part.write_to_path(directory / "client.cert")
    assert await fetch(fake, directory) == MANIFEST


@pytest.mark.usefixtures("wanting")
async def test_a_client_certificate_of_somebody_else_is_named(
    fake: FakeRegistry, directory: Path, authority: trustme.CA, clock: MockClock
) -> None:
    authority.cert_pem.write_to_path(directory / "ca.crt")
    leaf = trustme.CA().issue_cert("client.example")
    leaf.private_key_pem.write_to_path(directory / "client.key")
    leaf.cert_chain_pems[0].write_to_path(directory / "client.cert")
    with pytest.raises(UnavailableError, match="refuses the client certificate"):
        await fetch(fake, directory)


async def test_a_web_server_that_answers_400_without_a_client_certificate(
    fake: FakeRegistry, directory: Path, authority: trustme.CA
) -> None:
    authority.cert_pem.write_to_path(directory / "ca.crt")
    body = b"<center>No required SSL certificate was sent</center>"
    fake.inject("status", path="/manifests/", status=400, body=body)
    with pytest.raises(RegistryError, match="wants a valid client certificate"):
        await fetch(fake, directory)


async def test_files_that_change_count_for_the_next_connection(
    fake: FakeRegistry, directory: Path, authority: trustme.CA, clock: MockClock
) -> None:
    certificates = Certificates([directory.parent])
    reference = Reference.parse(f"{fake.host}/team/app:v1")
    async with RegistryClient(routes=Routes(certificates)) as client:
        with pytest.raises(UnavailableError):
            await client.fetch_manifest(reference)
        authority.cert_pem.write_to_path(directory / "ca.crt")
        assert (await client.fetch_manifest(reference))[2] == MANIFEST


async def test_where_a_registry_redirects_to_may_have_its_authority_too(
    fake: FakeRegistry, directory: Path, authority: trustme.CA
) -> None:
    authority.cert_pem.write_to_path(directory / "ca.crt")
    descriptor = fake.put_blob("team/app", DATA)
    location = f"https://{fake.storage_host}/team/app/{descriptor.digest}?signature=0"
    fake.inject("redirect", path="/blobs/", location=location, times=None)
    async with RegistryClient(routes=Routes(Certificates([directory.parent]))) as client:
        blob = client.open_blob(Reference.parse(f"{fake.host}/team/app:v1"), descriptor)
        assert await blob.fetch(5, 10) == DATA[5:15]


# Directories.


def test_the_first_directory_that_exists_counts(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    (two / "r.example:5000").mkdir(parents=True)
    (two / "r.example").mkdir()
    certificates = Certificates([one, two])
    assert certificates.directory("r.example:5000") == two / "r.example:5000"
    (one / "r.example:5000").mkdir(parents=True)
    assert certificates.directory("r.example:5000") == one / "r.example:5000"
    assert certificates.directory("r.example") == two / "r.example"
    assert certificates.directory("x.example", "r.example") == two / "r.example"
    for name in ("", "..", "../two/r.example", "other.example"):
        assert certificates.directory(name) is None


def test_the_places() -> None:
    assert [str(path) for path in default_directories({"HOME": "/h"})] == [
        "/h/.config/containers/certs.d",
        "/etc/containers/certs.d",
        "/etc/docker/certs.d",
    ]


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    path = tmp_path / "r.example"
    path.mkdir()
    return path


def _context(certificates: Certificates, *, verified: bool) -> ssl.SSLContext:
    return certificates.context(certificates.directory("r.example"), verified=verified)


def test_a_certificate_without_its_key_is_named(certs: Path, authority: trustme.CA) -> None:
    authority.cert_pem.write_to_path(certs / "client.cert")
    with pytest.raises(ConfigError, match=r"client\.cert: wanted its key in client\.key.*authorities are in \*\.crt"):
        _context(Certificates([certs.parent]), verified=True)


def test_a_key_without_its_certificate_is_named(certs: Path) -> None:
    (certs / "client.key").write_text("")
    with pytest.raises(ConfigError, match=r"client\.key: wanted its certificate in client\.cert"):
        _context(Certificates([certs.parent]), verified=True)


@pytest.mark.parametrize("name", ["ca.crt", "client.cert"])
def test_a_file_without_certificates_is_named(certs: Path, name: str) -> None:
    (certs / name).write_text("nothing")
    (certs / "client.key").write_text("nothing")
    (certs / "client.cert").touch()
    with pytest.raises(ConfigError, match=f"{name}: not a usable certificate"):
        _context(Certificates([certs.parent]), verified=False)


def test_an_encrypted_key_does_not_ask_at_a_terminal(certs: Path, authority: trustme.CA) -> None:
    leaf = authority.issue_cert("client.example")
    leaf.cert_chain_pems[0].write_to_path(certs / "client.cert")
    key = load_pem_private_key(leaf.private_key_pem.bytes(), None)
    (certs / "client.key").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"s3cret"))
    )
    with pytest.raises(ConfigError, match="unencrypted key"):
        _context(Certificates([certs.parent]), verified=True)


def test_other_files_are_left_alone(certs: Path) -> None:
    (certs / "README").write_text("what this is")
    certificates = Certificates([certs.parent])
    context = _context(certificates, verified=True)
    assert _context(certificates, verified=True) is context
    assert _context(certificates, verified=False) is not context
