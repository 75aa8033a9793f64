"""What opens a registry, and who may know it."""

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a registry or its token server accepts from us. The secrets stay out of its representation."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    """An OAuth2 refresh token; instead of the password."""
    registry_token: str = field(default="", repr=False)
    """A Bearer token for the registry itself; instead of everything else."""
    origin: str = field(default="", compare=False)
    """Where they were found, for messages: a file or a helper."""


class CredentialsSource(Protocol):
    """Something that knows credentials."""

    async def find(self, name: str) -> Credentials | None:
        """For the repository `name`, such as ``docker.io/library/nginx``; None: nothing known.

        Raises ConfigError.
        """
