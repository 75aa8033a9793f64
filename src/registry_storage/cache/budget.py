"""How much of the disk the cache may take."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ..config import Settings
from ..errors import ConfigError

_SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s*(%|[kKMGT]i?B?|B)?", re.ASCII)
_UNITS = {"k": 1, "M": 2, "G": 3, "T": 4}

HIGH, LOW = 0.95, 0.90
"""Above the high mark, the cache shrinks to the low one, in shares of the budget."""


def parse_size(text: str, disk_bytes: int, what: str) -> int:
    """Bytes: ``20GiB``, ``500M`` (both of 1024), ``25%`` of the disk. Raises ConfigError."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ConfigError(f"{what}: wanted a size such as 20GiB, or a share such as 25%, got {text!r}")
    number, unit = float(found[1]), found[2] or "B"
    if unit == "%":
        if number > 100:
            raise ConfigError(f"{what}: wanted at most 100%, got {text!r}")
        return int(disk_bytes * number / 100)
    return int(number * 1024 ** _UNITS.get(unit[0].replace("K", "k"), 0))


@dataclass(frozen=True, slots=True)
class Budget:
    """The limits for one root directory, in bytes."""

    size: int
    """Of everything in the root."""
    keep_free: int
    """What must stay free on its disk, whoever fills it."""

    @classmethod
    def of(cls, settings: Settings, root: Path) -> Self:
        """Raises ConfigError."""
        disk = os.statvfs(root)
        total = disk.f_blocks * disk.f_frsize
        return cls(
            parse_size(settings.cache_size, total, "cache_size"), parse_size(settings.keep_free, total, "keep_free")
        )
