"""The podman of this host: what its version does with our stores, and what it sees."""

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from ..descriptor import Descriptor
from ..errors import FormatError, ProgramError
from ..formats.detect import detect
from ..formats.estargz import TOC_DIGEST_ANNOTATION
from ..formats.zstd_chunked import PODMAN_CHECKSUM

_VERSION = re.compile(r"version:?\s+v?([0-9]+)\.([0-9]+)(?:\.([0-9]+))?")
_FORGETS_SINCE = (5, 5)
_BY_TOC_SINCE = (5, 1)
_ANSWER_SECONDS = 20


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
    def way(self) -> str:
        """How it comes to lazy layers."""
        if self.forgets_layers:
            return "runs images that were added: it does not save layers from a layer store (a defect since 5.5)"
        how = "by TOC digest, for layers with a TOC annotation" if self.asks_by_toc else "for every layer"
        return f"asks the layer store {how}, and runs images that were added"

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


def listed_images(program: str = "podman") -> frozenset[str]:
    """Ids of the images that the installed podman sees, in hex. Raises ProgramError with what it says instead."""
    said = _run(program, "images", "--all", "--no-trunc", "--quiet")
    if said.returncode:
        words = said.stderr.strip().splitlines() or [f"status {said.returncode}"]
        raise ProgramError(f"{program} images: {words[-1][:300]}")
    return frozenset(word.removeprefix("sha256:") for word in said.stdout.split())


def _run(program: str, *words: str) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run([program, *words], capture_output=True, text=True, timeout=_ANSWER_SECONDS, check=False)
    except FileNotFoundError:
        raise ProgramError(f"{program} is not installed") from None
    except subprocess.TimeoutExpired:
        raise ProgramError(f"{program} {words[0]}: no answer within {_ANSWER_SECONDS} s") from None
    except OSError as error:
        raise ProgramError(f"{program}: {error.strerror}") from None


def podman_version(program: str = "podman") -> PodmanVersion:
    """Of the installed podman. Raises ProgramError."""
    said = _run(program, "--version")
    found = PodmanVersion.parse(said.stdout)
    if found is None:
        words = (said.stderr or said.stdout).strip().splitlines() or [""]
        raise ProgramError(f"{program} --version: wanted a version, got {words[-1][:200]!r}")
    return found


def known_version(ask: Callable[[], PodmanVersion] = podman_version) -> PodmanVersion | None:
    """The same; None where none is installed, or it does not start."""
    try:
        return ask()
    except ProgramError:
        return None
