"""Proxies: which one is taken, and what is said when it does not help."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import trio
import trustme
from trio.testing import MockClock

from registry_storage.errors import ConfigError, UnavailableError
from registry_storage.reference import Reference
from registry_storage.registry.certificates import Certificates
from registry_storage.registry.client import RegistryClient
from registry_storage.registry.hosts import PLAIN_HTTP, Endpoint, Registries
from registry_storage.registry.proxies import proxy_for
from registry_storage.registry.routes import Routes
from tests.fakes.proxy import FakeProxy
from tests.fakes.registry import FakeRegistry
from tests.unit.test_registry_certificates import server_context

pytest_plugins = ["tests.fakes.registry_fixtures"]

MANIFEST = b'{"schemaVersion": 2, "layers": []}'


@pytest.mark.parametrize(
    ("url", "exceptions", "direct"),
    [
        ("https://r.example/", "", False),
        ("https://r.example/", "r.example", True),
        ("https://a.r.example/", "r.example", True),
        ("https://r.example/", ".r.example", False),
        ("https://a.r.example/", ".r.example", True),
        ("https://a.r.example/", "*.r.example", True),
        ("https://xr.example/", "r.example", False),
        ("https://r.example:5000/", "r.example:5000", True),
        ("https://r.example/", "r.example:5000", False),
        ("https://r.example/", "r.example:443", True),
        ("https://R.example/", "other, r.EXAMPLE ,", True),
        ("https://10.1.2.3/", "10.0.0.0/8", True),
        ("https://11.1.2.3/", "10.0.0.0/8", False),
        ("https://10.1.2.3/", "10.1.2.3", True),
        ("https://10.1.2.3:5000/", "10.1.2.3:80", False),
        ("https://[fd00::1]:5000/", "fd00::/8", True),
        ("https://[fd00::1]/", "[fd00::1]", True),
        ("https://r.example/", "nonsense/99", False),
        ("https://r.example/", "*", True),
        ("https://127.0.0.1:5000/", "", True),
        ("https://localhost/", "", True),
    ],
)
def test_who_is_asked_directly(url: str, exceptions: str, direct: bool) -> None:
    found = proxy_for(httpx.URL(url), {"HTTPS_PROXY": "http://p.example:3128", "no_proxy": exceptions})
    assert (found is None) == direct


def test_each_scheme_has_its_variable_in_either_spelling() -> None:
    environ = {"https_proxy": "p.example:3128", "HTTP_PROXY": "socks5://q.example"}
    https, http = (proxy_for(httpx.URL(f"{scheme}://r.example/"), environ) for scheme in ("https", "http"))
    assert https is not None
    assert http is not None
    assert (str(https.url), https.variable) == ("http://p.example:3128", "https_proxy")
    assert (str(http.url), http.variable) == ("socks5://q.example", "HTTP_PROXY")
    assert proxy_for(httpx.URL("http://r.example/"), {"ALL_PROXY": "http://p.example"}) is None


def test_the_user_of_a_proxy_is_in_no_representation() -> None:
    found = proxy_for(httpx.URL("https://r.example/"), {"HTTPS_PROXY": "http://me:s3%40cret@p.example:3128"})
    assert found is not None
    assert found.authorization == ("me", "s3@cret")
    assert "cret" not in repr(found)
    assert "cret" not in str(found.url)


@pytest.mark.parametrize("text", ["ftp://p.example", "http://", "http://me:s3cret@p.example:999999"])
def test_a_variable_that_names_no_proxy_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="HTTPS_PROXY: wanted the URL of a proxy") as caught:
        proxy_for(httpx.URL("https://r.example/"), {"HTTPS_PROXY": text})
    assert "s3cret" not in str(caught.value)


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    path = tmp_path / "certs.d" / "registry.test"
    path.mkdir(parents=True)
    return path


@pytest.fixture
async def fake(nursery: trio.Nursery, certs: Path) -> FakeRegistry:
    """Known to the proxy as registry.test, with TLS."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(certs / "ca.crt")
    context = server_context(authority, "registry.test")
    registry: FakeRegistry = await nursery.start(FakeRegistry(ssl_context=context).serve)
    registry.put_manifest("team/app", "v1", MANIFEST)
    return registry


APP = Reference.parse("registry.test/team/app:v1")


async def test_https_goes_through_the_proxy(nursery: trio.Nursery, fake: FakeRegistry, certs: Path) -> None:
    proxy: FakeProxy = await nursery.start(FakeProxy({"registry.test": fake.host}, user="me:s3cret").serve)
    routes = Routes(Certificates([certs.parent]), {"HTTPS_PROXY": f"http://me:s3cret@{proxy.host}"})
    async with RegistryClient(routes=routes) as client:
        assert (await client.fetch_manifest(APP))[2] == MANIFEST
    assert proxy.asked == ["registry.test"]


class Plain(Registries):
    """Everything by plain HTTP."""

    def endpoints(self, reference: Reference) -> Sequence[Endpoint]:
        return [replace(one, ways=(PLAIN_HTTP,)) for one in super().endpoints(reference)]


async def test_http_goes_through_the_proxy(nursery: trio.Nursery) -> None:
    fake: FakeRegistry = await nursery.start(FakeRegistry().serve)
    fake.put_manifest("team/app", "v1", MANIFEST)
    proxy: FakeProxy = await nursery.start(FakeProxy({"registry.test": fake.host}).serve)
    routes = Routes(environ={"http_proxy": f"http://{proxy.host}"})
    async with RegistryClient(registries=Plain(), routes=routes) as client:
        assert (await client.fetch_manifest(APP))[2] == MANIFEST
    assert proxy.asked == ["registry.test"]


@pytest.mark.parametrize(
    ("user", "message"),
    [("", "it wants a user and password"), ("me:wr0ng@", "the user and password there are wrong")],
)
async def test_a_proxy_that_wants_another_user_is_named(
    nursery: trio.Nursery, fake: FakeRegistry, certs: Path, clock: MockClock, user: str, message: str
) -> None:
    proxy: FakeProxy = await nursery.start(FakeProxy({"registry.test": fake.host}, user="me:s3cret").serve)
    routes = Routes(Certificates([certs.parent]), {"HTTPS_PROXY": f"http://{user}{proxy.host}"})
    async with RegistryClient(routes=routes) as client:
        with pytest.raises(UnavailableError, match=f"the proxy {proxy.host} .HTTPS_PROXY. refuses: 407") as caught:
            await client.fetch_manifest(APP)
    assert message in str(caught.value)
    assert "wr0ng" not in str(caught.value)


async def test_a_proxy_that_does_not_allow_the_host_is_named(
    nursery: trio.Nursery, fake: FakeRegistry, certs: Path, clock: MockClock
) -> None:
    proxy: FakeProxy = await nursery.start(FakeProxy({}).serve)
    routes = Routes(Certificates([certs.parent]), {"HTTPS_PROXY": f"http://{proxy.host}"})
    async with RegistryClient(routes=routes) as client:
        with pytest.raises(UnavailableError, match=r"refuses: 403 .*; does it allow this host\?"):
            await client.fetch_manifest(APP)


async def test_a_proxy_that_is_not_there_is_named(clock: MockClock) -> None:
    routes = Routes(environ={"HTTPS_PROXY": "http://127.0.0.1:1"})
    async with RegistryClient(routes=routes) as client:
        with pytest.raises(UnavailableError, match=r"the proxy 127\.0\.0\.1:1 \(HTTPS_PROXY\) cannot be reached"):
            await client.fetch_manifest(APP)
