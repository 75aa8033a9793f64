"""Where a reply may send us on (RFC 9110 section 15.4)."""

import httpx

from ..errors import BadResponseError
from .hosts import is_loopback

REDIRECTS = frozenset({301, 302, 303, 307, 308})


def same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    """Whether both have the scheme, host and port in common: credentials of one may go to the other."""
    # raw_host: httpx decodes `host`, which fails for a wrong "xn--" name.
    return (one.scheme, one.raw_host, port_of(one)) == (other.scheme, other.raw_host, port_of(other))


def redirected(url: httpx.URL, location: str | None, what: str, word: str = "a redirect") -> httpx.URL:
    """Where ``Location: location`` in the reply to `url` leads; may be relative. Raises BadResponseError.

    `word` says what it is. From https to http only this machine may send us, to itself.
    """
    if not location:
        raise BadResponseError(f"{what}: {word} from {host_of(url)} without Location")
    try:
        target = url.join(location)
    except (httpx.InvalidURL, ValueError):
        target = httpx.URL("")
    if target.scheme not in ("http", "https") or not target.raw_host or not 0 < port_of(target) < 1 << 16:
        raise BadResponseError(f"{what}: {word} from {host_of(url)} to what is no http or https URL")
    if target.userinfo:
        raise BadResponseError(f"{what}: {word} from {host_of(url)} to a URL with credentials")
    if (url.scheme, target.scheme) == ("https", "http") and not (_is_local(url) and _is_local(target)):
        where = f"from https at {host_of(url)} to http at {host_of(target)}"
        raise BadResponseError(f"{what}: {word} {where}")
    return target.copy_with(fragment=None)


def host_of(url: httpx.URL) -> str:
    """Name and port: all of a URL that messages may show."""
    return url.netloc.decode("ascii")


def port_of(url: httpx.URL) -> int:
    """Its port, the scheme's own where it names none."""
    return url.port or (443 if url.scheme == "https" else 80)


def _is_local(url: httpx.URL) -> bool:
    return is_loopback(host_of(url))
