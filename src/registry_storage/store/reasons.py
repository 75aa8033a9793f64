"""Says once why something is not served, although the kernel asks again and again."""

import logging
import time

from ..errors import NoSuchNodeError, NotFoundError, NotLazyError

_log = logging.getLogger(__name__)

REPEAT_SECONDS = 60.0
MAX_REMEMBERED = 1024


class Reasons:
    """Remembers what was logged lately."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}

    def tell(self, operation: str, error: Exception) -> None:
        """Log `error`, unless the same was logged within the last minute."""
        if isinstance(error, NoSuchNodeError):
            _log.debug("%s: %s", operation, error)
            return
        text, now = f"{operation}: {error}", time.monotonic()
        if self._told.get(text, -REPEAT_SECONDS) > now - REPEAT_SECONDS:
            return
        if len(self._told) >= MAX_REMEMBERED:
            self._told.clear()
        self._told[text] = now
        if isinstance(error, NotLazyError):
            _log.info("layer is not served: %s", error)
        elif isinstance(error, NotFoundError):
            _log.info("%s", text)
        else:
            _log.warning("%s", text)
