"""What the fake registry can be told to do wrong."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

KINDS = frozenset(
    {
        "status",  # answer `status` with `headers` and `body`
        "wrong-range",  # serve the range one byte further on, and say so
        "shift",  # serve the bytes of the range one byte further on, but claim the range asked for
        "ignore-range",  # 200 with everything
        "garbage",  # no HTTP
        "disconnect",  # close before the first byte
        "truncate",  # close after `at` bytes of the body
        "unframed",  # the same without Content-Length
        "chunked",  # Transfer-Encoding: chunked
        "reset",  # RST after `at` bytes of the body
        "stall",  # nothing more after `at` bytes of the body; None: not even headers
        "delay",  # wait `seconds` before the headers
        "drip",  # wait `seconds` before each piece of `at` bytes
        "headers",  # set `headers`; a value of None removes
        "flip",  # flip the lowest bit of the bytes at `offsets` of the blob
        "corrupt",  # flip the lowest bit of byte `at`, modulo its length, of the body
        "swap",  # send the second half of the body before the first
        "length",  # claim `at` bytes more (or fewer, below 0) than there are, send all, and close
        "expire",  # from now on no token and no URL that was given out before is accepted
        "cut",  # close after `at` bytes of the request's body, which an upload keeps
        "redirect",  # 307 to `location`
    }
)


@dataclass(slots=True)
class Fault:
    """Does something to the requests that it matches; several may match one request."""

    kind: str
    path: str = ""
    """A regular expression, searched in the path."""
    times: int | None = 1
    """How many requests it does it to; None: all."""
    skip: int = 0
    """Matching requests that are spared first."""
    listener: str = "registry|storage"
    """A regular expression for ``registry``, ``storage`` or ``token``."""
    method: str = "GET"
    status: int = 500
    headers: Mapping[str, str | None] = field(default_factory=dict)
    body: bytes = b""
    at: int | None = 0
    seconds: float = 0.0
    offsets: tuple[int, ...] = ()
    location: str = ""
    seen: int = 0
    """Matching requests so far."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"fault: wanted one of {sorted(KINDS)}, got {self.kind!r}")

    @property
    def hits(self) -> int:
        """Requests to which it was done."""
        hits = max(0, self.seen - self.skip)
        return hits if self.times is None else min(hits, self.times)

    def strikes(self, listener: str, method: str, path: str) -> bool:
        """Whether it is done to this request; counts."""
        if not (
            method == self.method and re.fullmatch(self.listener, listener) and re.search(self.path, path)
        ):
            return False
        before = self.hits
        self.seen += 1
        return self.hits > before

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Fault":
        """As the command line and the control path give it; the body is text."""
        return cls(**{**value, "body": value.get("body", "").encode()})
