"""Everything that can go wrong, as one tree.

RegistryStorageError
├── InvalidInputError            what a person or a file gave us does not parse
│   ├── InvalidDigestError
│   ├── InvalidReferenceError
│   ├── InvalidDocumentError     a manifest, index or image config that breaks its specification
│   └── ConfigError
├── FormatError                  a blob's footer, TOC or frame breaks its format or our limits
│   └── NotLazyError             a layer in no lazily pullable format (not a defect: podman pulls it itself)
├── VerificationError            bytes whose digest is not the expected one
│   └── DiffIdError              a blob that is the manifest's, but whose tar is not the config's
├── RegistryError                the registry's side
│   ├── NotFoundError            404: no such image or blob
│   ├── UnauthorizedError        401 or 403 although every credential was tried
│   ├── RangeNotServedError      the host does not serve the range that was asked for
│   ├── BadResponseError         a reply that breaks the protocol: wrong range, wrong length, garbage
│   └── UnavailableError         the host did not answer in time, as often as we tried
├── CacheError                   the root directory: foreign, broken or in use
├── DaemonError                  the running daemon cannot be asked, or refused what was asked of it
├── ProgramError                 another program that is needed is missing, or failed
├── MountError                   the mount point or /dev/fuse
└── NoSuchNodeError              a name or a node that the store does not have

Messages say what, which, wanted and got. They never hold credentials or the query of a URL.
"""

from collections.abc import Mapping


class RegistryStorageError(Exception):
    """Any failure that this package reports on purpose.

    ``about`` is what a log says beside the message, where somebody knew: ``reference``, ``layer``, ``seconds``.
    """

    about: Mapping[str, object] = {}


class InvalidInputError(RegistryStorageError, ValueError):
    """What was given does not parse."""


class InvalidDigestError(InvalidInputError):
    """Not a digest of a supported algorithm."""


class InvalidReferenceError(InvalidInputError):
    """Not an image reference."""


class InvalidDocumentError(InvalidInputError):
    """A manifest, index or image config that breaks its specification."""


class ConfigError(InvalidInputError):
    """A setting that is unknown or out of range."""


class FormatError(RegistryStorageError):
    """A footer, TOC or frame that breaks its format or a limit.

    ``entry`` is the position in the TOC's ``entries`` array and ``field`` the field's name, where known.
    """

    def __init__(self, message: str, *, entry: int | None = None, field: str | None = None) -> None:
        super().__init__(message)
        self.entry = entry
        self.field = field


class NotLazyError(FormatError):
    """A layer in no lazily pullable format."""


class VerificationError(RegistryStorageError):
    """Bytes whose digest is not the expected one."""

    def __init__(self, what: str, *, wanted: str, got: str) -> None:
        super().__init__(f"{what}: wanted {wanted}, got {got}")
        self.what = what
        self.wanted = wanted
        self.got = got


class DiffIdError(VerificationError):
    """A layer's blob has the digest that the manifest names, but its tar not the diffID that the config names."""


class RegistryError(RegistryStorageError):
    """The registry's side failed."""


class NotFoundError(RegistryError):
    """The registry does not have it (404)."""


class UnauthorizedError(RegistryError):
    """The registry refuses us (401 or 403), whatever credentials we have."""


class RangeNotServedError(RegistryError):
    """The host does not serve the range that was asked for."""


class BadResponseError(RegistryError):
    """A reply that breaks the protocol."""


class UnavailableError(RegistryError):
    """No usable answer in time, as often as we tried."""


class CacheError(RegistryStorageError):
    """The root directory is foreign, broken or in use."""


class DaemonError(RegistryStorageError):
    """The running daemon cannot be asked, or refused; ``kind`` is the class of its own error, where it told one."""

    def __init__(self, message: str, *, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind


class ProgramError(RegistryStorageError):
    """Another program that is needed is missing, or failed."""


class MountError(RegistryStorageError):
    """The mount point or /dev/fuse cannot be used."""


class NoSuchNodeError(RegistryStorageError):
    """A name or a node that the store does not have."""
