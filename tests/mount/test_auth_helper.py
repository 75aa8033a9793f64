"""Credentials that only podman knows, handed over by its helper."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fakes.images import File, build_layer, put_image
from tests.fakes.registry import FakeRegistry

from .conftest import Daemon

SECRET = "s3cret-s3cret"


def hand_over(daemon: Daemon, document: str) -> subprocess.CompletedProcess[str]:
    """As podman does it: no words but what registries.conf names, JSON on standard input."""
    command = [sys.executable, "-m", "registry_storage.auth_helper", str(daemon.root / "control.sock")]
    return subprocess.run(command, input=document, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("mirrored", [False, True], ids=["registry", "mirror"])
def test_what_podman_knows_opens_the_registry(daemon: Daemon, mirrored: bool) -> None:
    with FakeRegistry(auth="bearer", users={"alice": SECRET}).in_thread() as private:
        data = bytes(range(256)) * 100
        image = put_image(private, [build_layer([File("file", data)])])
        if mirrored:
            daemon.registries_conf.write_text(
                '[[registry]]\nlocation = "registry.example"\n'
                f'[[registry.mirror]]\nlocation = "{private.host}"\n'
            )
            image = replace(image, reference="registry.example/team/app:v1")
        daemon.start()
        entry = {"username": "alice", "password": SECRET}
        said = hand_over(daemon, json.dumps({f"{private.host}/team/app:v1": entry}))
        assert (said.returncode, said.stderr) == (0, "")
        assert (daemon.layer(image) / "diff" / "file").read_bytes() == data
        assert SECRET not in daemon.log_text()
        for path in daemon.root.rglob("*"):
            if path.is_file():
                assert SECRET.encode() not in path.read_bytes(), "nothing of it is on disk"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{s3cret-s3cret", "no JSON"),
        ('["s3cret-s3cret"]', "wanted a JSON object"),
        ('{"r.example/a": "s3cret-s3cret"}', "wanted an object with username"),
        ('{"r.example/a": {"password": ["s3cret-s3cret"]}}', "wanted strings"),
        ('{"UPPER/!": {}}', "image reference"),
    ],
)
def test_what_is_wrong_is_named_without_the_secret(daemon: Daemon, document: str, message: str) -> None:
    daemon.start()
    said = hand_over(daemon, document)
    assert said.returncode == 1
    assert message in said.stderr
    assert SECRET not in said.stderr


def test_without_a_daemon_it_fails_at_once(daemon: Daemon, tmp_path: Path) -> None:
    said = hand_over(daemon, "{}")
    assert said.returncode == 1
    assert "no daemon listens there" in said.stderr
