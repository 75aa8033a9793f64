"""Images that need credentials."""

import base64
import json

import pytest

from tests.fakes.images import File, build_layer, put_image
from tests.fakes.registry import FakeRegistry

from .conftest import Daemon


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_a_private_image_is_read_with_the_credentials_of_the_auth_file(daemon: Daemon, auth: str) -> None:
    private = FakeRegistry(auth=auth, users={"me": "s3cret"}, token_seconds=5, redirect_blobs=True)
    with private.in_thread() as registry:
        image = put_image(registry, [build_layer([File("a", b"content")])])
        secret = base64.b64encode(b"me:s3cret").decode()
        auth_file = daemon.directory / "auth.json"
        auth_file.write_text(json.dumps({"auths": {registry.host: {"auth": secret}}}))
        daemon.start()
        assert (daemon.layer(image) / "diff/a").read_bytes() == b"content"
        for request in registry.requests(listener="storage"):
            assert "authorization" not in request.headers
        assert "s3cret" not in daemon.log_text()
        assert secret not in daemon.log_text()


def test_without_credentials_the_log_names_the_registry_and_the_refusal(daemon: Daemon) -> None:
    with FakeRegistry(auth="basic", users={"me": "s3cret"}).in_thread() as registry:
        image = put_image(registry, [build_layer([File("a", b"content")])])
        daemon.start()
        with pytest.raises(OSError, match="Input/output error"):
            (daemon.layer(image) / "diff").stat()
        assert f"{registry.host}/team/app" in daemon.log_text()
        assert "401" in daemon.log_text()
