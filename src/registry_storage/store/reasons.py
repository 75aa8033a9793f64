"""Says once why something is not served, although the kernel asks again and again."""

import logging
import re
import time

from ..errors import NoSuchNodeError, NotFoundError, NotLazyError, RegistryStorageError

_log = logging.getLogger(__name__)

REPEAT_SECONDS = 60.0
MAX_REMEMBERED = 1024
_WORD_BEGINS = re.compile(r"(?<=[a-z])(?=[A-Z])")


class Reasons:
    """Remembers what was logged lately."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, object, object], float] = {}

    def tell(self, operation: str, error: Exception) -> None:
        """Log `error`, unless the same was logged of the same layer within the last minute."""
        if isinstance(error, NoSuchNodeError):
            _log.debug("%s: %s", operation, error)
            return
        about = dict(error.about) if isinstance(error, RegistryStorageError) else {}
        text, now = f"{operation}: {error}", time.monotonic()
        known = (text, about.get("reference"), about.get("layer"))
        if self._told.get(known, -REPEAT_SECONDS) > now - REPEAT_SECONDS:
            return
        if len(self._told) >= MAX_REMEMBERED:
            self._told.clear()
        self._told[known] = now
        level = logging.INFO if isinstance(error, NotLazyError | NotFoundError) else logging.WARNING
        if about or isinstance(error, NotLazyError):
            _log.log(level, "layer is not served: %s", error, extra=about | {"reason": reason_of(error)})
        else:
            _log.log(level, "%s", text)


def reason_of(error: Exception) -> str:
    """One word for what is wrong, for machines: ``not-lazy``, ``not-found``, ``unauthorized``, ``verification`` …"""
    return _WORD_BEGINS.sub("-", type(error).__name__.removesuffix("Error")).lower()
