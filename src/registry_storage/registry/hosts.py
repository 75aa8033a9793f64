"""What is known about registry hosts: how to reach them, and what was measured of them."""

import ipaddress
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import trio

from ..reference import Reference
from .breaker import Breaker

_WEIGHT = 0.2
_MAX_HOSTS = 1024
_MIN_GAP_BYTES = 4 << 10
_MAX_GAP_BYTES = 4 << 20

MIN_RANGELESS_SECONDS = 5.0
MAX_RANGELESS_SECONDS = 300.0
RANGELESS_SOON_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Way:
    """How to speak to a host."""

    scheme: str
    """``http`` or ``https``."""
    verified: bool
    """Whether the certificate must be valid (only with ``https``)."""


HTTPS = Way("https", verified=True)
UNVERIFIED_HTTPS = Way("https", verified=False)
PLAIN_HTTP = Way("http", verified=False)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A place that serves a repository."""

    host: str
    """What to connect to, with its port where it is not the scheme's own: ``registry-1.docker.io``."""
    repository: str
    """Path on that host."""
    name: str
    """Under which auth files know it: ``docker.io/library/nginx``."""
    ways: tuple[Way, ...]
    """In the order in which to try them until one works."""
    actions: str = "pull"
    """What tokens must permit: ``pull`` or ``pull,push``."""
    mounted: tuple[str, ...] = ()
    """Further repositories of the host that tokens must permit to pull from."""

    @property
    def registry(self) -> str:
        """The host as references name it, which is how certs.d and ``podman login`` know it: ``docker.io``."""
        return self.name.partition("/")[0]


def endpoint(reference: Reference, *, insecure: bool = False) -> Endpoint:
    """Where `reference` lives. `insecure`: the administrator allows plain HTTP and unknown certificates."""
    host = reference.host
    if insecure:
        ways: tuple[Way, ...] = (UNVERIFIED_HTTPS, PLAIN_HTTP)
    elif is_loopback(host):
        ways = (PLAIN_HTTP, HTTPS)
    else:
        ways = (HTTPS,)
    connect_to = "registry-1.docker.io" if host == "docker.io" else host
    return Endpoint(connect_to, reference.repository, reference.name, ways)


class Registries:
    """Maps references to endpoints; this one knows no configuration."""

    def endpoints(self, reference: Reference) -> Sequence[Endpoint]:
        """Where to fetch from, in order of preference; the last one is the registry of the reference itself.

        Raises RegistryError where the administrator blocks it, ConfigError for a broken configuration.
        """
        return (endpoint(reference),)


def host_name(host: str) -> str:
    """`host` without its port and without the brackets of an IPv6 address."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


@lru_cache(maxsize=_MAX_HOSTS)
def is_loopback(host: str) -> bool:
    """Whether `host` (with or without a port) is this machine: ``localhost``, 127.0.0.0/8, ``[::1]``."""
    name = host_name(host).lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class LinkEstimate:
    """Moving averages of what requests to one host cost."""

    round_trip_seconds: float = 0.020
    """From a sent request to the first byte of the reply."""
    bytes_per_second: float = 10e6
    """Of one connection, while a body arrives."""
    round_trips_measured: int = 0
    bodies_measured: int = 0

    @property
    def gap_bytes(self) -> int:
        """Unwanted bytes that cost as much as one more request."""
        return int(min(max(self.round_trip_seconds * self.bytes_per_second, _MIN_GAP_BYTES), _MAX_GAP_BYTES))

    def with_round_trip(self, seconds: float) -> "LinkEstimate":
        """After another first byte; the first measurement replaces the assumption."""
        weight = _WEIGHT if self.round_trips_measured else 1.0
        average = self.round_trip_seconds + weight * (seconds - self.round_trip_seconds)
        return replace(self, round_trip_seconds=average, round_trips_measured=self.round_trips_measured + 1)

    def with_body(self, size: int, seconds: float) -> "LinkEstimate":
        """After another body of `size` bytes, which arrived in `seconds` after its headers."""
        weight = _WEIGHT if self.bodies_measured else 1.0
        rate = size / max(seconds, 1e-4)
        average = self.bytes_per_second + weight * (rate - self.bytes_per_second)
        return replace(self, bytes_per_second=average, bodies_measured=self.bodies_measured + 1)


@dataclass(slots=True)
class HostState:
    """What this process learned about one host and port."""

    link: LinkEstimate = field(default_factory=LinkEstimate)
    replies: int = 0
    """Whose bodies are being read: what else is asked for meanwhile waits behind them."""
    breaker: Breaker = field(default_factory=Breaker)
    way: Way | None = None
    """The one that worked, where there are several."""
    probing: trio.Lock = field(default_factory=trio.Lock)
    rangeless_until: float = float("-inf")
    """Until then (trio's clock) no range is asked of this host."""
    rangeless_seconds: float = 0.0
    """How long that was the last time; 0 after a range was served."""
    resting_until: float = float("-inf")
    """Until then it is asked last, where others have the same: it did not answer."""

    @property
    def serves_ranges(self) -> bool:
        """False for some time after the host ignored or refused a range."""
        return trio.current_time() >= self.rangeless_until

    def ranges_served(self) -> None:
        """A range was asked for, and came."""
        self.rangeless_until, self.rangeless_seconds = float("-inf"), 0.0

    def ranges_refused(self, *, soon: bool) -> None:
        """A range was ignored or refused: none is asked for a while, which doubles every time until one is served.

        A host that serves ranges may fail to once, and must not be given up for minutes. `soon`: it will serve them
        in a moment, as a pull-through cache does.
        """
        longest = RANGELESS_SOON_SECONDS if soon else MAX_RANGELESS_SECONDS
        self.rangeless_seconds = min(max(2 * self.rangeless_seconds, MIN_RANGELESS_SECONDS), longest)
        self.rangeless_until = trio.current_time() + self.rangeless_seconds

    @property
    def is_resting(self) -> bool:
        """True for some time after the host did not answer as often as it was asked."""
        return trio.current_time() < self.resting_until


class HostStates:
    """The states of the hosts used last; redirects may name any number of them, so it is bounded."""

    def __init__(self) -> None:
        self._states: OrderedDict[str, HostState] = OrderedDict()

    def of(self, host: str) -> HostState:
        """The state of `host` (name and port as in URLs)."""
        state = self._states.get(host)
        if state is None:
            state = self._states[host] = HostState()
            while len(self._states) > _MAX_HOSTS:
                self._states.popitem(last=False)
        else:
            self._states.move_to_end(host)
        return state

    def links(self) -> dict[str, LinkEstimate]:
        """By host, where something was measured."""
        return {host: state.link for host, state in self._states.items() if state.link.round_trips_measured}
