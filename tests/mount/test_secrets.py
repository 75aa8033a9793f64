"""Secrets, files and doors of a running daemon, as other users of the host and other hosts find them."""

import base64
import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.images import BuiltImage, File, build_layer, put_image
from tests.fakes.registry import FakeRegistry

from .conftest import Daemon

NOBODY = 65534
OTHER_GROUP = 54321
PASSWORD = "pa55word-of-me"
LOGIN = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
CONNECT = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"


@pytest.fixture(params=["basic", "bearer"])
def private(request: pytest.FixtureRequest) -> Iterator[FakeRegistry]:
    with FakeRegistry(auth=request.param, users={"me": PASSWORD}, redirect_blobs=True).in_thread() as running:
        yield running


def log_in(daemon: Daemon, registry: FakeRegistry, password: str = PASSWORD) -> None:
    login = base64.b64encode(f"me:{password}".encode()).decode()
    (daemon.directory / "auth.json").write_text(json.dumps({"auths": {registry.host: {"auth": login}}}))


def found_in(daemon: Daemon, secrets: list[str]) -> list[str]:
    """Where a secret stands: in which file of the root, in the log, on the command line or in the metrics."""
    places = {str(path): path.read_bytes() for path in daemon.root.rglob("*") if path.is_file()}
    places |= {str(log): log.read_bytes() for log in daemon.logs}
    assert daemon.process is not None
    supervisor = daemon.process.pid
    for pid in [supervisor, *map(int, Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split())]:
        places[f"command line of {pid}"] = Path(f"/proc/{pid}/cmdline").read_bytes()
    status = [sys.executable, "-m", "registry_storage.ctl", "status", "--json", "--root", str(daemon.root)]
    places["status"] = subprocess.run(status, capture_output=True, check=True).stdout
    return [place for place, data in places.items() if any(secret.encode() in data for secret in secrets)]


def test_no_secret_is_in_files_logs_status_or_sent_to_another_host(daemon: Daemon, private: FakeRegistry) -> None:
    image = put_image(private, [build_layer([File("a", os.urandom(100_000)), File("b", b"b" * 1000)])])
    log_in(daemon, private)
    daemon.start()
    assert (daemon.layer(image) / "diff/b").read_bytes() == b"b" * 1000
    private.expire_signatures()
    private.inject("status", path="/blobs/", status=500, listener="registry", times=3)
    (daemon.layer(image) / "diff/a").read_bytes()
    tokens = list(private.tokens)
    assert tokens or private.auth == "basic"
    sent = private.requests(listener="storage")
    assert sent
    assert all("authorization" not in request.headers for request in sent)
    signatures = [request.path.partition("?")[2] for request in sent]
    assert found_in(daemon, [PASSWORD, LOGIN, *tokens, *signatures]) == []


def test_a_wrong_password_is_in_no_message(daemon: Daemon, private: FakeRegistry) -> None:
    image = put_image(private, [build_layer([File("a", b"a")])])
    log_in(daemon, private, "wr0ng-password")
    daemon.start()
    with pytest.raises(OSError, match="Input/output error"):
        (daemon.layer(image) / "diff").stat()
    assert "401" in daemon.log_text()
    assert found_in(daemon, ["wr0ng-password", base64.b64encode(b"me:wr0ng-password").decode()]) == []


def test_the_root_and_all_in_it_are_for_its_owner_alone(daemon: Daemon, registry: FakeRegistry) -> None:
    image = put_image(registry, [build_layer([File("a", os.urandom(100_000))])])
    before = os.umask(0)
    try:
        daemon.start()
    finally:
        os.umask(before)
    (daemon.layer(image) / "diff/a").read_bytes()
    (daemon.image(image) / "config").read_bytes()
    assert stat.S_IMODE(daemon.root.stat().st_mode) == 0o700
    images = daemon.root / "images"  # behind the root's own mode
    found = [path for path in daemon.root.rglob("*") if images not in (path, *path.parents)]
    assert len(found) > 6
    open_to_others = [(path, oct(path.lstat().st_mode)) for path in found if path.lstat().st_mode & 0o077]
    assert open_to_others == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_the_control_socket_admits_its_owner_and_its_group_and_nobody_else(
    daemon: Daemon, tmp_path_factory: pytest.TempPathFactory
) -> None:
    public = Path("/run") / f"registry-storage-test-{os.getpid()}"
    public.mkdir(mode=0o755)
    place = public / "control.sock"
    try:
        daemon.start("--control-socket", str(place), "--control-group", "daemon")

        def ask(*groups: str) -> int:
            who = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", *groups, "--"]
            # The machine's own Python, because ours may be in a directory of root's.
            return subprocess.run([*who, "/usr/bin/python3", "-c", CONNECT, str(place)], check=False).returncode

        assert stat.S_IMODE(place.stat().st_mode) == 0o660
        assert ask("--groups=daemon") == 0
        assert ask("--clear-groups") != 0
        assert ask(f"--groups={OTHER_GROUP}") != 0
        assert daemon.stop() == 0
    finally:
        place.unlink(missing_ok=True)
        public.rmdir()


def outside(daemon: Daemon) -> set[str]:
    """Everything beside the daemon's root and mount."""
    kept = (daemon.root, daemon.mountpoint)
    found = set()
    for folder, folders, files in os.walk(daemon.directory):
        folders[:] = [name for name in folders if Path(folder, name) not in kept]
        found |= {os.path.join(folder, name) for name in (*folders, *files)}
    return found


@pytest.mark.parametrize("kind", ["estargz", "podman"])
@pytest.mark.parametrize("name", ["../escaped", "a/../../escaped", "link/escaped", "a\0b"])
def test_a_name_that_leads_out_of_its_layer_is_refused_and_makes_nothing(
    daemon: Daemon, registry: FakeRegistry, name: str, kind: str
) -> None:
    entries = [File("link", type="symlink", link=str(daemon.directory)), File(name, b"escaped")]
    image = put_image(registry, [build_layer(entries, kind)])
    daemon.start()
    before = outside(daemon)
    with pytest.raises(OSError, match="Input/output error"):
        (daemon.layer(image) / "diff").stat()
    assert outside(daemon) == before


def test_what_an_image_calls_a_path_of_the_host_stays_in_the_image(daemon: Daemon, registry: FakeRegistry) -> None:
    entries = [
        File("etc/passwd", b"of the image"),
        File("/absolute", b"also"),
        File("shadow", type="symlink", link="/etc/shadow"),
        File("sda", type="block", major=8, minor=0),
        File("setuid", b"x", mode=0o4755),
    ]
    image: BuiltImage = put_image(registry, [build_layer(entries)])
    daemon.start()
    before = outside(daemon)
    diff = daemon.layer(image) / "diff"
    assert (diff / "etc/passwd").read_bytes() == b"of the image"
    assert (diff / "absolute").read_bytes() == b"also"
    assert os.readlink(diff / "shadow") == "/etc/shadow"
    with pytest.raises(PermissionError):
        (diff / "sda").open("rb")  # the mount has no devices
    assert outside(daemon) == before
    assert not list(daemon.root.rglob("passwd"))


@pytest.mark.parametrize("name", ["..", "Li4=", "Li4vLi4vZXRjL3Bhc3N3ZA==", "L2V0Yy9wYXNzd2Q=", "x" * 255])
def test_a_name_asked_for_in_the_mount_never_becomes_a_path(daemon: Daemon, name: str) -> None:
    daemon.start()
    before = sorted(daemon.root.rglob("*"))
    for below in ("", "sha256:" + "0" * 64, "../../etc"):
        with pytest.raises(OSError):  # noqa: PT011  # ENOENT or EIO, as it may be
            os.stat(f"{daemon.mountpoint}/{name}/{below}/no")
    assert sorted(daemon.root.rglob("*")) == before


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that everybody may enter; what is mounted in it goes away."""
    path = Path(tempfile.mkdtemp(dir="/run"))
    path.chmod(0o755)
    yield path
    for place in path.iterdir():
        subprocess.run(["umount", "-l", place], check=False, capture_output=True)
        place.rmdir()
    path.rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="root mounts")
def test_a_set_user_id_program_of_an_image_is_one_in_a_container_only(
    daemon: Daemon, registry: FakeRegistry, public: Path
) -> None:
    program = Path("/usr/bin/id").read_bytes()
    image = put_image(registry, [build_layer([File("id", program, mode=0o4755)])])
    daemon.start()
    diff = daemon.layer(image) / "diff"
    diff.stat()
    host, container = public / "host", public / "container"
    host.mkdir()
    container.mkdir()
    subprocess.run(["mount", "--bind", diff, host], check=True)
    below = daemon.directory / "below"
    below.mkdir()
    layers = "lowerdir={}:{}".format(str(diff).replace(":", r"\:"), below)
    subprocess.run(["mount", "-t", "overlay", "-o", layers, "overlay", container], check=True)

    def user_of(path: Path) -> int:
        who = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]
        return int(subprocess.run([*who, path, "-u"], capture_output=True, check=True).stdout)

    assert user_of(container / "id") == 0
    assert user_of(host / "id") == NOBODY
