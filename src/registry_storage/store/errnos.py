"""What the kernel is told of an error."""

import errno

from ..errors import InvalidInputError, NoSuchNodeError, NotFoundError, NotLazyError, RegistryStorageError

_ERRNO: tuple[tuple[type[Exception], int], ...] = (
    (NotLazyError, errno.ENOENT),
    (NotFoundError, errno.ENOENT),
    (NoSuchNodeError, errno.ENOENT),
    (InvalidInputError, errno.ENOENT),
    (RegistryStorageError, errno.EIO),
    (OSError, errno.EIO),
    (ValueError, errno.ESTALE),  # a node number that was never given
    (IndexError, errno.ESTALE),
)

EXPECTED = (RegistryStorageError, OSError, ValueError, IndexError)
"""The errors that `errno_of` knows; anything else is a defect."""


def errno_of(error: Exception) -> int:
    """For an operation on a name or a node; a read that fails is EIO, whatever the reason."""
    return next((number for kind, number in _ERRNO if isinstance(error, kind)), errno.EIO)
