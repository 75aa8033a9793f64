"""Names of images in and outside registries, as containers-transports(5) writes them."""

import re
from dataclasses import dataclass

from ..errors import InvalidReferenceError
from ..reference import Reference

BY_SKOPEO = ("oci-archive", "docker-archive", "dir", "containers-storage")
"""Transports that skopeo reads and writes for us."""
TRANSPORTS = ("docker", "oci", *BY_SKOPEO)
_OTHERS = ("docker-daemon", "ostree", "sif", "tarball", "atomic")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@/+:-]{0,254}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an image is, or is to be."""

    transport: str
    """One of TRANSPORTS."""
    text: str
    """What stands behind the transport's colon (and slashes)."""
    reference: Reference | None = None
    """Of ``docker``."""
    path: str = ""
    """Of ``oci``, the archives and ``dir``."""
    tag: str | None = None
    """The image's name in an ``oci`` layout or an archive."""

    @classmethod
    def parse(cls, text: str) -> "Place":
        """``docker://REF`` or bare ``REF``, ``oci:DIR[:TAG]`` and so on. Raises InvalidReferenceError."""
        transport, colon, rest = text.partition(":")
        if colon and transport in _OTHERS:
            raise InvalidReferenceError(f"{text}: wanted one of {', '.join(TRANSPORTS)}, got the transport {transport}")
        if not colon or transport not in TRANSPORTS or (transport == "docker" and not rest.startswith("//")):
            return cls("docker", text, Reference.parse(text))
        if transport == "docker":
            return cls("docker", rest[2:], Reference.parse(rest[2:]))
        if not rest:
            raise InvalidReferenceError(f"{text}: wanted a place after {transport}:")
        if transport == "containers-storage":
            return cls(transport, rest)
        path, _, tag = (rest, "", "") if transport == "dir" else rest.partition(":")
        if not path or (tag and not _TAG.fullmatch(tag)):
            raise InvalidReferenceError(f"{text}: wanted {transport}:PATH[:NAME]")
        return cls(transport, rest, path=path, tag=tag or None)

    def __str__(self) -> str:
        return f"docker://{self.text}" if self.transport == "docker" else f"{self.transport}:{self.text}"
