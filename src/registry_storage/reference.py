"""Image references, normalised as podman does it (distribution/reference, "docker.io/library/…")."""

import re
from dataclasses import dataclass, replace

from .digest import Digest
from .errors import InvalidReferenceError

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]{{1,5}})?"
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|[-]+)[a-z0-9]+)*"
_HOST_RE = re.compile(_HOST, re.ASCII)
_REPOSITORY_RE = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*", re.ASCII)
_TAG_RE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_MAX_NAME = 255
_MAX_REFERENCE = 1024


@dataclass(frozen=True, slots=True)
class Reference:
    """A name of an image in a registry: host, repository, and a tag or a manifest digest or both."""

    host: str
    """Registry with its port, as in the name: ``docker.io``, ``127.0.0.1:5000``."""
    repository: str
    """Path below the host: ``library/nginx``."""
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Parse and normalise: ``nginx`` is ``docker.io/library/nginx:latest``.

        Raises InvalidReferenceError.
        """
        rest, tag, digest = text, None, None
        if len(text) > _MAX_REFERENCE:
            raise InvalidReferenceError(f"image reference: wanted at most {_MAX_REFERENCE} characters, got {len(text)}")
        if "@" in rest:
            rest, _, digest_text = rest.partition("@")
            try:
                digest = Digest.parse(digest_text)
            except ValueError as error:
                raise InvalidReferenceError(f"image reference {text!r}: {error}") from None
        slash, colon = rest.rfind("/"), rest.rfind(":")
        if colon > slash:
            rest, tag = rest[:colon], rest[colon + 1 :]
            if not _TAG_RE.fullmatch(tag):
                raise InvalidReferenceError(f"image reference {text!r}: {tag!r} is not a tag")
        host, _, repository = rest.partition("/")
        if not repository or not ("." in host or ":" in host or host == "localhost" or host.lower() != host):
            host, repository = "docker.io", rest
        if host == "index.docker.io":
            host = "docker.io"
        if host == "docker.io" and "/" not in repository:
            repository = f"library/{repository}"
        if not _HOST_RE.fullmatch(host):
            raise InvalidReferenceError(f"image reference {text!r}: {host!r} is not a registry host")
        if not _REPOSITORY_RE.fullmatch(repository) or len(host) + 1 + len(repository) > _MAX_NAME:
            raise InvalidReferenceError(f"image reference {text!r}: {repository!r} is not a repository name")
        if tag is None and digest is None:
            tag = "latest"
        return cls(host, repository, tag, digest)

    @property
    def name(self) -> str:
        """Host and repository: ``docker.io/library/nginx``."""
        return f"{self.host}/{self.repository}"

    @property
    def version(self) -> str:
        """What to ask the registry for: the digest where there is one, else the tag."""
        return str(self.digest) if self.digest else self.tag or "latest"

    def with_digest(self, digest: Digest) -> "Reference":
        """The same repository, by manifest digest alone."""
        return replace(self, tag=None, digest=digest)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"
