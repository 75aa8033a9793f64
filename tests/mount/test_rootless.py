"""The daemon of a user without privileges: fusermount3 mounts, and passes the descriptor."""

import base64
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.images import File, build_layer, put_image
from tests.fakes.registry import FakeRegistry

NOBODY = 65534
CONTENT = os.urandom(700_000)

# In a mount namespace of its own, with a /dev/fuse that everybody may open, as hosts have it.
SCRIPT = """
set -eu
mknod -m 666 fuse c 10 229
mount --bind fuse /dev/fuse
as_nobody="setpriv --reuid=65534 --regid=65534 --clear-groups"
$as_nobody "$PYTHON" -m registry_storage --root root --no-background-fetch mnt 2> log &
daemon=$!
for i in $(seq 200); do grep -q serving log && break; sleep 0.05; done
$as_nobody cat "mnt/$LAYER/diff/big" > content || true
grep " $PWD/mnt " /proc/mounts > mounts || true
worker=$(tr -d " " < /proc/$daemon/task/$daemon/children)
grep NoNewPrivs /proc/$worker/status > privileges
stat -c %u /proc/$worker/environ >> privileges
kill -TERM $daemon
wait $daemon
grep -c " $PWD/mnt " /proc/mounts > after || true
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that an unprivileged user may work in."""
    path = Path(tempfile.mkdtemp(dir="/var/tmp"))
    os.chown(path, NOBODY, NOBODY)
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def test_a_user_without_privileges_serves_and_reads(registry: FakeRegistry, home: Path) -> None:
    image = put_image(registry, [build_layer([File("big", CONTENT)])])
    name = base64.b64encode(image.reference.encode()).decode()
    environment = os.environ | {
        "HOME": str(home),
        "PYTHON": sys.executable,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "LAYER": f"{name}/{image.layers[0].toc_digest}",
    }
    result = subprocess.run(
        ["unshare", "--mount", "sh", "-c", SCRIPT], cwd=home, env=environment, capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip
    log = (home / "log").read_text()
    assert result.returncode == 0, result.stderr + log
    assert (home / "content").read_bytes() == CONTENT, log
    assert (home / "privileges").read_text().split() == ["NoNewPrivs:", "1", "0"], "its memory is root's to look at"
    assert f"user_id={NOBODY}" in (home / "mounts").read_text()
    if Path("/etc/mtab").exists():
        assert (home / "after").read_text().strip() == "0"
    else:  # a bare chroot: fusermount3 looks there who mounted
        assert "cannot be unmounted" in log
        assert "/etc/mtab" in log
