"""A user's own daemon and rootless podman: what `install --user` writes, an image that is added, containers of it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from lab import converters, places
from tests.interop.stand import Laboratory

USER = 4711
ROOT = ".local/share/registry-storage"
FILES = {
    "containers.conf": '[containers]\ndefault_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]\n[engine]\n'
    'runtime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nlock_type = "file"\n',
    "registries.conf": 'unqualified-search-registries = []\n[[registry]]\nlocation = "{host}"\ninsecure = true\n',
    "more.passwd": "layers:x:4711:4711::{home}:/bin/sh\n",
    "more.group": "layers:x:4711:\n",
    "more.subuid": "layers:1000000:65536\n",
    "more.subgid": "layers:1000000:65536\n",
    # In a mount namespace of its own: a user with subordinate ids, and a /dev/fuse that everybody may open.
    "as_root.sh": """
set -eu
mknod -m 666 fuse c 10 229
mount --bind fuse /dev/fuse
for name in passwd group subuid subgid; do
    cat /etc/$name more.$name > $name
    mount --bind $name /etc/$name
done
exec setpriv --reuid=4711 --regid=4711 --clear-groups env -i \\
    PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin HOME="{home}" XDG_RUNTIME_DIR="{home}/run" \\
    CONTAINERS_CONF="$PWD/containers.conf" CONTAINERS_REGISTRIES_CONF="$PWD/registries.conf" \\
    PYTHON="$PYTHON" PYTHONPATH="$PYTHONPATH" IMAGE="$IMAGE" sh as_user.sh
""",
    "as_user.sh": """
cd "$HOME"
unit=.config/systemd/user/registry-storage.service
ctl() { "$PYTHON" -m registry_storage.ctl "$@"; }
run() { podman run --rm --pull=never --network=none "$@"; }
ctl install --user > installed 2>&1
eval "$(sed -n 's/^ExecStart=//p' $unit) --no-background-fetch" > log 2>&1 &
for i in $(seq 300); do grep -q 'serving ' log && break; sleep 0.1; done
ctl add --json "$IMAGE" > added 2>&1
podman images --format '{{.Repository}}:{{.Tag}} {{.ReadOnly}}' > images 2>&1
run "$IMAGE" sh -c 'stat -c "%u:%g" /etc/shadow; head -c 4 /etc/shadow; chown 33 /etc/shadow; stat -c %u /etc/shadow' \\
    > as-root 2>&1
run --user nobody "$IMAGE" sh -c 'id -un; cat /etc/shadow' > as-nobody 2>&1
podman pull -q "$IMAGE" > pulled 2>&1
eval "$(sed -n 's/^next: .* then //p' installed)" > doctor 2>&1
echo "status $?" >> doctor
ctl doctor > outside 2>&1
kill -KILL $(tr -dc 0-9 < ROOT/lock)
for i in $(seq 300); do podman images > dead 2>&1 || break; sleep 0.1; done
clean="$(sed -n 's/^ExecStopPost=-//p' $unit | sed 's/[$][$]/$/g')"
eval "$(echo "$clean" | sed "s|%t|$XDG_RUNTIME_DIR|")" > cleaned 2>&1
podman images --format '{{.Repository}}:{{.Tag}} {{.ReadOnly}}' > after 2>&1
""",
}


@pytest.fixture
def place(laboratory: Laboratory) -> Iterator[Path]:
    """The user's home, in a directory that the user may pass through."""
    above = Path(tempfile.mkdtemp(prefix="rootless-", dir="/var/tmp"))
    above.chmod(0o755)
    home = above / "home"
    for path in (home, home / "run"):
        path.mkdir(mode=0o700)
        os.chown(path, USER, USER)
    for name, text in FILES.items():
        text = text.replace("{home}", str(home)).replace("{host}", laboratory.link.host).replace("ROOT", ROOT)
        (above / name).write_text(text)
    try:
        yield home
    finally:
        with suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int((home / "run/libpod/tmp/pause.pid").read_text()), signal.SIGKILL)
        for mounted in places.mounts_below(above):
            subprocess.run(["umount", "-l", mounted], check=False)
        shutil.rmtree(above)


def test_a_user_adds_an_image_and_runs_it_with_the_owners_that_podman_maps(
    laboratory: Laboratory, place: Path
) -> None:
    image = f"{laboratory.link.host}/{converters.tag('redis', 'zstd')}"
    python = Path(f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}")
    environment = os.environ | {
        "PYTHON": str(python if python.exists() else sys.executable),  # root's own may be where nobody else can go
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "IMAGE": image,
    }
    done = subprocess.run(
        ["unshare", "--mount", "sh", "as_root.sh"], cwd=place.parent, env=environment, timeout=120, check=False,
        stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    said = {path.name: path.read_text() for path in place.iterdir() if path.is_file()}
    assert done.returncode == 0, (done, said)
    assert json.loads(said["added"].splitlines()[-1])["outcome"] == "added", said
    assert f"{image} true\n" in said["images"], said
    assert said["as-root"].endswith("0:42\nroot33\n"), said
    assert "nobody\n" in said["as-nobody"], said
    assert "Permission denied" in said["as-nobody"], said
    assert said["doctor"].endswith("status 0\n"), said["doctor"]
    assert "podman unshare registry-storagectl doctor" in said["outside"], said["outside"]
    layers = place / ".local/share/containers/storage/overlay-layers/layers.json"
    assert not layers.exists() or not json.loads(layers.read_bytes()), "the pull copied something"
    assert "not connected" in said["dead"], "what the next line is about"
    assert f"{image} true\n" in said["after"], "what a killed daemon left was cleaned up"
