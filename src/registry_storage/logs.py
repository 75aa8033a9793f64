"""Log lines for people (text) or for machines (one JSON object a line), on standard error."""

import json
import logging
import sys
import time
from typing import Any

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def printable(text: str) -> str:
    """Names come from images: no control character may forge a line or steer a terminal."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


class TextFormatter(logging.Formatter):
    """``LEVEL message key=value …``; the journal adds the time."""

    def format(self, record: logging.LogRecord) -> str:
        """One line (and a traceback where there is one)."""
        extra = "".join(f" {key}={value}" for key, value in _extra(record).items())
        line = printable(f"{record.levelname.lower()}: {record.getMessage()}{extra}")
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, logger, message, and the event's own keys."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        event: dict[str, Any] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        event |= _extra(record)
        if record.exc_info:
            event["traceback"] = self.formatException(record.exc_info)
        return json.dumps(event, default=str)


def set_up(level: str, form: str) -> None:
    """Send every record of `level` ("debug", "info" …) or worse to standard error in `form` ("text", "json")."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for chatty in ("httpx", "httpcore", "pyfuse3", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
