"""The podman (or CRI-O) of this host: what its version does with a layer store."""

import re
import subprocess
from dataclasses import dataclass

from ..descriptor import Descriptor
from ..errors import FormatError, ProgramError
from ..formats.detect import detect
from ..formats.estargz import TOC_DIGEST_ANNOTATION
from ..formats.zstd_chunked import PODMAN_CHECKSUM

_VERSION = re.compile(r"version:?\s+v?([0-9]+)\.([0-9]+)(?:\.([0-9]+))?")
_FORGETS_SINCE = (5, 5)
_BY_TOC_SINCE = (5, 1)


@dataclass(frozen=True, slots=True, order=True)
class PodmanVersion:
    """Of podman; what it does follows from it."""

    major: int
    minor: int
    patch: int = 0

    @classmethod
    def parse(cls, text: str) -> "PodmanVersion | None":
        """From what ``podman --version`` prints."""
        found = _VERSION.search(text)
        return None if found is None else cls(int(found[1]), int(found[2]), int(found[3] or 0))

    @property
    def forgets_layers(self) -> bool:
        """Its known defect: layers of a store are not saved, so the next process does not find the image."""
        return (self.major, self.minor) >= _FORGETS_SINCE

    @property
    def asks_by_toc(self) -> bool:
        """It asks by TOC digest, and only for layers whose annotations it knows."""
        return (self.major, self.minor) >= _BY_TOC_SINCE

    def asks_for(self, descriptor: Descriptor) -> str | None:
        """By which digest it asks a store for the layer; None: it downloads it without asking."""
        if not self.asks_by_toc:
            return str(descriptor.digest)
        if not {TOC_DIGEST_ANNOTATION, PODMAN_CHECKSUM} & set(descriptor.annotations):
            return None
        try:
            return str(detect(descriptor).toc_digest)
        except FormatError:
            return None

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


def podman_version(program: str = "podman") -> PodmanVersion:
    """Of the installed podman. Raises ProgramError."""
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=False)
    except FileNotFoundError:
        raise ProgramError(f"{program} is not installed") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ProgramError(f"{program}: {getattr(error, 'strerror', None) or 'no answer within 20 s'}") from None
    found = PodmanVersion.parse(said.stdout)
    if found is None:
        words = (said.stderr or said.stdout).strip().splitlines() or [""]
        raise ProgramError(f"{program} --version: wanted a version, got {words[-1][:200]!r}")
    return found
