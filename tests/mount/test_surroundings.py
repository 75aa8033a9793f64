"""Private registries: each way to reach one works lazily, and each failure is named in the daemon's log."""

import base64
import json
import random
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from tests.fakes.images import BuiltImage, File, build_layer, put_image
from tests.fakes.proxy import FakeProxy
from tests.fakes.registry import FakeRegistry

from .conftest import Daemon

SECRET = "s3cret-s3cret"
WRONG = "wr0ng-wr0ng"
DATA = [random.Random(seed).randbytes(300_000) for seed in range(4)]


@contextmanager
def running(server: Any) -> Iterator[None]:
    """A server of trio in a thread of its own."""
    ready = threading.Event()
    scopes: list[Any] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve)
            token = trio.lowlevel.current_trio_token()
            scopes.append(lambda: trio.from_thread.run_sync(nursery.cancel_scope.cancel, trio_token=token))
            ready.set()

    thread = threading.Thread(target=trio.run, args=(main,), daemon=True)
    thread.start()
    assert ready.wait(20)
    try:
        yield
    finally:
        scopes[0]()
        thread.join()


def put(registry: FakeRegistry, name: str = "team/app:v1") -> BuiltImage:
    layers = [build_layer([File(f"file{number}", data)]) for number, data in enumerate(DATA)]
    return put_image(registry, layers, name)


def renamed(image: BuiltImage, registry: str) -> BuiltImage:
    """The same image, as podman knows it."""
    name = f"{registry}/{image.reference.partition('/')[2]}"
    return BuiltImage(name, image.manifest, image.config, image.layers, image.diff_ids)


def read_all(daemon: Daemon, image: BuiltImage) -> None:
    for number, data in enumerate(DATA):
        assert (daemon.layer(image, number) / "diff" / f"file{number}").read_bytes() == data


def log_in(daemon: Daemon, registry: str, password: str = SECRET) -> None:
    entry = {"auth": base64.b64encode(f"alice:{password}".encode()).decode()}
    (daemon.directory / "auth.json").write_text(json.dumps({"auths": {registry: entry}}))


def explain(daemon: Daemon, image: BuiltImage, *words: str) -> subprocess.CompletedProcess[str]:
    """What `explain` says, with the daemon's own surroundings."""
    command = [sys.executable, "-m", "registry_storage.ctl", "explain", image.reference, *words]
    return subprocess.run(command, env=daemon.environment(), capture_output=True, text=True, check=False, timeout=120)


def fails(daemon: Daemon, image: BuiltImage, *words: str) -> None:
    """Podman does not find the layer; the log says `words`, `explain` too, and neither says a secret."""
    with pytest.raises(OSError, match=r"Input/output error|No such file"):
        (daemon.layer(image, 0) / "diff").stat()
    certs = daemon.directory / "certs.d"
    said = explain(daemon, image, *(["--certs-dir", str(certs)] if certs.exists() else []))
    assert said.returncode == 1
    for text in (daemon.log_text(), said.stdout + said.stderr):
        for wanted in words:
            assert wanted in text
        for secret in (SECRET, WRONG, base64.b64encode(f"alice:{WRONG}".encode()).decode()):
            assert secret not in text


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def certs(daemon: Daemon) -> Path:
    path = daemon.directory / "certs.d"
    path.mkdir()
    return path


def server_context(authority: trustme.CA, *, client: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("registry.test", "127.0.0.1").configure_cert(context)
    if client:
        authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@contextmanager
def private(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, registry: FakeRegistry, environment: Mapping[str, str]
) -> Iterator[BuiltImage]:
    """`registry` is known as registry.test, to a proxy only."""
    with running(registry):
        image = renamed(put(registry), "registry.test")
        proxy = FakeProxy({"registry.test": registry.host, registry.token_host: registry.token_host}, user="me:pr0xy")
        with running(proxy):
            monkeypatch.setenv("HTTPS_PROXY", f"http://{environment.get('user', 'me:pr0xy')}@{proxy.host}")
            yield image


def test_own_authority_client_certificate_short_tokens_and_proxy_together(
    daemon: Daemon, certs: Path, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = FakeRegistry(
        auth="bearer", users={"alice": SECRET}, token_seconds=5, ssl_context=server_context(authority, client=True)
    )
    (certs / "registry.test").mkdir()
    authority.cert_pem.write_to_path(certs / "registry.test/ca.crt")
    leaf = authority.issue_cert("host.example")
    leaf.private_key_pem.write_to_path(certs / "registry.test/client.key")
    leaf.cert_chain_pems[0].write_to_path(certs / "registry.test/client.cert")
    log_in(daemon, "registry.test")
    with private(daemon, monkeypatch, registry, {}) as image:
        registry.token_scheme = "https"
        daemon.start("--certs-dir", str(certs))
        read_all(daemon, image)
        assert registry.requests("/token")
        assert len(registry.requests("/blobs/")) >= len(DATA)
        for token in registry.tokens:
            assert token not in daemon.log_text()


def test_an_unknown_authority_is_named(
    daemon: Daemon, certs: Path, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = FakeRegistry(ssl_context=server_context(authority, client=False))
    with private(daemon, monkeypatch, registry, {}) as image:
        daemon.start("--certs-dir", str(certs))
        fails(daemon, image, "nobody known here has signed it", "certs.d/registry.test/ca.crt")


def test_a_missing_client_certificate_is_named(
    daemon: Daemon, certs: Path, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = FakeRegistry(ssl_context=server_context(authority, client=True))
    (certs / "registry.test").mkdir()
    authority.cert_pem.write_to_path(certs / "registry.test/ca.crt")
    with private(daemon, monkeypatch, registry, {}) as image:
        daemon.start("--certs-dir", str(certs))
        fails(daemon, image, "registry.test wants a client certificate")


def test_a_wrong_user_of_the_proxy_is_named(
    daemon: Daemon, certs: Path, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = FakeRegistry(ssl_context=server_context(authority, client=False))
    with private(daemon, monkeypatch, registry, {"user": "me:s3cret-s3cret"}) as image:
        daemon.start("--certs-dir", str(certs))
        fails(daemon, image, "(HTTPS_PROXY) refuses: 407")


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_a_wrong_password_is_named_and_a_right_one_works_at_once(daemon: Daemon, auth: str) -> None:
    with FakeRegistry(auth=auth, users={"alice": SECRET}).in_thread() as registry:
        image = put(registry)
        log_in(daemon, registry.host, WRONG)
        daemon.start()
        told = f"the credentials from {daemon.directory / 'auth.json'} are not accepted"
        fails(daemon, image, told, f"podman login {registry.host}")
        log_in(daemon, registry.host)
        read_all_when_let_in(daemon, image)


def test_an_expired_identity_token_is_named(daemon: Daemon) -> None:
    with FakeRegistry(auth="bearer", identity_tokens={"alice": SECRET}).in_thread() as registry:
        image = put(registry)
        entry = {"auth": base64.b64encode(b"alice:").decode(), "identitytoken": WRONG}
        (daemon.directory / "auth.json").write_text(json.dumps({"auths": {registry.host: entry}}))
        daemon.start()
        told = f"the credentials from {daemon.directory / 'auth.json'} are not accepted"
        fails(daemon, image, told, f"podman login {registry.host}")


def test_tokens_that_end_while_the_password_is_changed_are_named_and_a_new_login_is_enough(daemon: Daemon) -> None:
    with FakeRegistry(auth="bearer", users={"alice": SECRET}, token_seconds=5).in_thread() as registry:
        image = put(registry)
        log_in(daemon, registry.host)
        daemon.start()
        assert (daemon.layer(image, 0) / "diff" / "file0").read_bytes() == DATA[0]
        registry.users["alice"] = "n3w"
        registry.revoke_tokens()
        with pytest.raises(OSError, match="Input/output error"):
            (daemon.layer(image, 1) / "diff" / "file1").read_bytes()
        told = f"the credentials from {daemon.directory / 'auth.json'} are not accepted"
        said = explain(daemon, image)
        for text in (daemon.log_text(), said.stderr):
            assert told in text
            assert f"podman login {registry.host}" in text
            assert SECRET not in text
        log_in(daemon, registry.host, "n3w")
        read_all_when_let_in(daemon, image)
        assert explain(daemon, image).returncode == 0


def read_all_when_let_in(daemon: Daemon, image: BuiltImage) -> None:
    """A failure answers for two seconds those who ask again."""
    for _ in range(200):
        try:
            return read_all(daemon, image)
        except OSError:
            threading.Event().wait(0.1)
    return read_all(daemon, image)


def test_a_mirror_that_lacks_half_of_the_blobs(daemon: Daemon, registry: FakeRegistry) -> None:
    image = put(registry)
    with FakeRegistry().in_thread() as mirror:
        for layer in image.layers[::2]:
            mirror.put_blob("copy/team/app", layer.blob)
        daemon.registries_conf.write_text(
            f'[[registry]]\nlocation = "{registry.host}"\n[[registry.mirror]]\nlocation = "{mirror.host}/copy"\n'
        )
        daemon.start()
        read_all(daemon, image)
        served = {str(layer.descriptor.digest) for layer in image.layers[::2]}
        for digest in served:
            assert mirror.requests(f"/blobs/{digest}")
            assert not registry.requests(f"/blobs/{digest}")
        assert len(registry.requests("/blobs/")) >= 2
