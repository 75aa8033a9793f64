"""The machine in one line, for results that are written down."""

import os
import platform
from pathlib import Path


def describe() -> str:
    """Cores, memory, kernel, distribution, Python."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.machine(),
    )
    kib = int(next(line for line in _lines("/proc/meminfo") if line.startswith("MemTotal")).split()[1])
    system = platform.freedesktop_os_release()
    release = f"{system.get('ID', '').capitalize()} {system.get('VERSION_ID', '')}".strip()
    kernel = ".".join(platform.release().split("-")[0].split(".")[:2])
    return (
        f"{os.cpu_count()} cores ({model}), {kib / 2**20:.0f} GiB, Linux {kernel}, {release}, "
        f"Python {platform.python_version()}"
    )


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()
