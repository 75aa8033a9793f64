"""Installs the Debian packages that are missing: `python3 -m lab.install [LIST]`; the list is packages.txt here."""

import os
import subprocess
import sys
from pathlib import Path

OWN_LIST = Path(__file__).with_name("packages.txt")


def needed(file: Path) -> list[str]:
    """The packages that the list names, one a line."""
    return [line.strip() for line in file.read_text().splitlines() if line.strip() and not line.startswith("#")]


def missing(file: Path = OWN_LIST) -> list[str]:
    """Those that are not installed, in the order of the list."""
    packages = needed(file)
    said = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *packages],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    installed = {line.split()[0] for line in said.splitlines() if line.endswith(" installed")}
    return [package for package in packages if package not in installed]


def main() -> int:
    packages = missing(*(Path(word) for word in sys.argv[1:2]))
    if not packages:
        return 0
    if os.geteuid() != 0:
        print(f"These Debian packages are missing: {' '.join(packages)}", file=sys.stderr)
        print("Become root, or ask root to run", file=sys.stderr)
        print("    apt-get install --no-install-recommends " + " ".join(packages), file=sys.stderr)
        return 1
    print(f"Installing {' '.join(packages)}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "-qy", "-o", "Dpkg::Use-Pty=0"]
    for command in (
        [*apt, "update"],
        [*apt, "install", "--no-install-recommends", *packages],
    ):
        if subprocess.run(command, env=environment, check=False).returncode != 0:
            print(f"{' '.join(command)} failed", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
