"""Private registries: docker-registry with TLS and htpasswd; registries.conf as skopeo reads it."""

import base64
import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme

from lab import processes
from registry_storage.config import Settings
from registry_storage.descriptor import OCI_MANIFEST, Descriptor
from registry_storage.digest import Digest
from registry_storage.errors import UnauthorizedError, UnavailableError
from registry_storage.reference import Reference
from registry_storage.registry.registries_conf import RegistriesConf
from registry_storage.registry.surroundings import Surroundings
from registry_storage.registry.upload import Uploader
from tests.fakes.images import to_json
from tests.fakes.registry import FakeRegistry
from tests.fakes.registry_world import DATA

_USER = "alice:$2b$05$vNryzS4Fqe4LiZu.9mg6FOTmimdLUoXdjD7gtAnKXS6NdmK7fvUn."
"""The password is s3cret-s3cret (bcrypt)."""
_CONFIG = """\
version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {directory}/storage}}}}
auth: {{htpasswd: {{realm: test, path: {directory}/htpasswd}}}}
http:
  addr: 127.0.0.1:{port}
  tls:
    certificate: {directory}/server.pem
    key: {directory}/server.key
    clientcas: [{directory}/ca.pem]
"""
LAYER = Descriptor("application/vnd.oci.image.layer.v1.tar", Digest.of(DATA), len(DATA))
MANIFEST = json.dumps(
    {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": to_json(LAYER), "layers": [to_json(LAYER)]}
).encode()


class Source:
    """DATA, to be pushed."""

    async def read_at(self, offset: int, size: int) -> bytes:
        return DATA[offset : offset + size]


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def host(tmp_path: Path, authority: trustme.CA) -> Iterator[str]:
    """docker-registry with its own authority, a user, and a wish for client certificates."""
    leaf = authority.issue_cert("127.0.0.1")
    leaf.private_key_pem.write_to_path(tmp_path / "server.key")
    leaf.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    (tmp_path / "htpasswd").write_text(_USER + "\n")
    port = processes.free_port()
    (tmp_path / "registry.yml").write_text(_CONFIG.format(directory=tmp_path, port=port))
    server = processes.Background(
        ["docker-registry", "serve", tmp_path / "registry.yml"],
        log=tmp_path / "registry.log",
        environment={"OTEL_TRACES_EXPORTER": "none"},
    )
    try:
        server.wait_until(lambda: processes.answers(port), what="accepting connections")
        yield f"127.0.0.1:{port}"
    finally:
        server.stop()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "registries.conf").touch()
    return Settings(
        registries_conf=tmp_path / "registries.conf", auth_file=tmp_path / "auth.json", certs_dir=tmp_path / "certs.d"
    )


def log_in(settings: Settings, host: str, password: str) -> None:
    assert settings.auth_file is not None
    entry = {"auth": base64.b64encode(f"alice:{password}".encode()).decode()}
    settings.auth_file.write_text(json.dumps({"auths": {host: entry}}))


async def test_docker_registry_with_own_authority_client_certificate_and_password(
    host: str, settings: Settings, authority: trustme.CA
) -> None:
    assert settings.certs_dir is not None
    reference = Reference.parse(f"{host}/team/app:v1")
    certs = settings.certs_dir / host
    certs.mkdir(parents=True)

    async def work() -> bytes:
        async with Surroundings.of(settings).client() as client:
            uploader = Uploader(client, reference)
            await uploader.upload_blob(LAYER, Source())
            await uploader.put_manifest(MANIFEST, OCI_MANIFEST, "v1")
            assert (await client.fetch_manifest(reference))[2] == MANIFEST
            return await client.open_blob(reference, LAYER).fetch(500_000, 1000)

    with pytest.raises(UnavailableError, match="nobody known here has signed it"):
        await work()
    authority.cert_pem.write_to_path(certs / "ca.crt")
    with pytest.raises(UnavailableError, match="wants a client certificate"):
        await work()
    leaf = authority.issue_cert("host.example")
    leaf.private_key_pem.write_to_path(certs / "client.key")
    leaf.cert_chain_pems[0].write_to_path(certs / "client.cert")
    with pytest.raises(UnauthorizedError, match=f"no credentials for {host}/team/app are known here"):
        await work()
    log_in(settings, host, "wr0ng")
    with pytest.raises(UnauthorizedError, match=r"the credentials from .*/auth\.json are not accepted") as caught:
        await work()
    assert "wr0ng" not in str(caught.value)
    log_in(settings, host, "s3cret-s3cret")
    assert await work() == DATA[500_000:501_000]


_MIRRORS = (
    '[[registry]]\nprefix = "example.com"\nlocation = "{a}"\ninsecure = true\n'
    '[[registry.mirror]]\nlocation = "{b}/x"\ninsecure = true\n'
    '[[registry.mirror]]\nlocation = "{c}"\ninsecure = true\n'
)
_DIGEST = "sha256:" + "1" * 64


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (_MIRRORS, "example.com/team/app:v1"),
        (_MIRRORS, f"example.com/team/app@{_DIGEST}"),
        (_MIRRORS.replace("[[registry.", "mirror-by-digest-only = true\n[[registry.", 1), "example.com/app:v1"),
        (_MIRRORS.replace("[[registry.", "mirror-by-digest-only = true\n[[registry.", 1), f"example.com/app@{_DIGEST}"),
        (_MIRRORS.replace('"example.com"', '"*.example.com"'), "a.b.example.com/team/app:v1"),
        (_MIRRORS.replace('"example.com"', '"example.com/team"'), "example.com/team/app:v1"),
        (
            _MIRRORS.replace('"example.com"', '"example.com/team/app"').replace("{a}", "{a}/n").replace("{c}", "{c}/n"),
            "example.com/team/app:v1",
        ),
        (_MIRRORS.replace('"example.com"', '"docker.io"'), "docker.io/library/nginx:latest"),
        (
            _MIRRORS + '[[registry]]\nprefix = "example.com/team"\nlocation = "{c}/deep"\ninsecure = true\n',
            "example.com/team/app:v1",
        ),
    ],
)
def test_the_same_places_are_asked_as_by_skopeo(tmp_path: Path, text: str, name: str) -> None:
    path = tmp_path / "registries.conf"
    with ExitStack() as stack:
        fakes = [stack.enter_context(FakeRegistry().in_thread()) for _ in range(3)]
        path.write_text(text.format(**{key: fake.host for key, fake in zip("abc", fakes, strict=True)}))
        words = ["skopeo", "--registries-conf", str(path), "inspect", "--raw", f"docker://{name}"]
        asked = subprocess.run(words, capture_output=True, text=True, check=False)
        assert asked.returncode != 0, "all of them are empty"
        theirs = {f"{fake.host}{one.path}" for fake in fakes for one in fake.requests("/manifests/")}
        order = [fake.host for fake in fakes if fake.log]
        ours = RegistriesConf([path], []).endpoints(Reference.parse(name))
        version = Reference.parse(name).version
        assert {f"{one.host}/v2/{one.repository}/manifests/{version}" for one in ours} == theirs
        assert sorted(order) == sorted(one.host for one in ours)
        said = [asked.stderr.find(one.host) for one in ours]
        assert said == sorted(said), "skopeo names its attempts in order"
