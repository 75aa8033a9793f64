"""Content digests, as the OCI image specification writes them (descriptor.md, "Digests")."""

import hashlib
import re
from dataclasses import dataclass

from .errors import InvalidDigestError

_PATTERN = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A sha256 digest; the only algorithm that layers, TOCs and chunks of the known formats use."""

    hex: str
    """64 lower-case hexadecimal digits."""

    @classmethod
    def parse(cls, text: str) -> "Digest":
        """``sha256:`` and 64 hexadecimal digits.

        Raises InvalidDigestError for anything else, other algorithms included.
        """
        if not _PATTERN.fullmatch(text):
            raise InvalidDigestError(f"digest: wanted sha256:<64 lower-case hex digits>, got {text[:100]!r}")
        return cls(text[7:])

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview) -> "Digest":
        """The digest of `data`."""
        return cls(hashlib.sha256(data).hexdigest())

    @classmethod
    def from_raw(cls, raw: bytes) -> "Digest":
        """From the 32 bytes of the sum."""
        if len(raw) != 32:
            raise InvalidDigestError(f"digest: wanted 32 bytes, got {len(raw)}")
        return cls(raw.hex())

    @property
    def raw(self) -> bytes:
        """The 32 bytes of the sum."""
        return bytes.fromhex(self.hex)

    def __str__(self) -> str:
        return f"sha256:{self.hex}"
