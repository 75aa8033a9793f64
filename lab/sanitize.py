"""The kernels with AddressSanitizer and UBSan, built beside the others, under the tests: `make sanitize`.

    python -m lab.sanitize [pytest's arguments]

Everything is copied to build/sanitize and compiled there, so what is installed stays as it is. The first finding ends
the test run: an access outside a buffer or behind a free, an overflow of a signed number, a wrong shift.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parent.parent
COPY = PROJECT / "build/sanitize"
PARTS = ("src", "_ext", "tests", "lab", "benchmarks", "docs", "deploy", "completion", ".github", ".ci")
FILES = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "Makefile", "mkdocs.yml", "wheels.yml", "MANIFEST.in")
FLAGS = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g -O1 -Wno-error"
TESTS = ("tests/unit", "tests/property", "tests/fuzz")
LEFT_OUT = ("-k", "not systemd and not the_site_builds and not manual_page")
"""Other programs, which the preloaded libraries only disturb."""
OPTIONS = {
    # Python never gives everything back, and closes what it forked with _exit.
    "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:abort_on_error=0",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    # Python's own allocator would hide where an object ends.
    "PYTHONMALLOC": "malloc",
}


def copy() -> None:
    """What the tests need, only where it changed, so that what was compiled stays."""
    COPY.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        for path in (PROJECT / part).rglob("*"):
            if path.is_file() and path.suffix not in (".so", ".c", ".pyc") and "__pycache__" not in path.parts:
                _copy(path)
    for name in FILES:
        _copy(PROJECT / name)


def _copy(path: Path) -> None:
    target = COPY / path.relative_to(PROJECT)
    if target.exists() and target.read_bytes() == path.read_bytes():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, target)


def build() -> None:
    """Compile the kernels there. Raises CalledProcessError."""
    environment = {**os.environ, "CFLAGS": FLAGS, "LDFLAGS": "-fsanitize=address,undefined"}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(command, cwd=COPY, env=environment, check=True)


def environment() -> dict[str, str]:
    """For a Python that loads those kernels, and for whatever it starts."""
    libraries = [
        subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
        for name in ("libasan.so", "libubsan.so", "libstdc++.so")
    ]
    path = f"{COPY / 'src'}:{COPY}"
    return {**os.environ, **OPTIONS, "LD_PRELOAD": ":".join(libraries), "PYTHONPATH": path}


def main() -> int:
    """Copy, build, test; pytest's status."""
    copy()
    build()
    arguments = sys.argv[1:] or (*TESTS, *LEFT_OUT)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-x", *arguments]
    return subprocess.run(command, cwd=COPY, env=environment(), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
