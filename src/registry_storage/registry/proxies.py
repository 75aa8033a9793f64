"""The proxy for a URL, from the environment, with the rules of Go's clients that podman follows."""

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

import httpx

from ..errors import ConfigError
from .hosts import host_name, is_loopback
from .redirects import host_of, port_of

VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
_SCHEMES = ("http", "https", "socks5", "socks5h")


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy; its password is in no representation of it."""

    url: httpx.URL
    """With scheme, host and port only."""
    variable: str
    """Which variable of the environment named it."""
    authorization: tuple[str, str] | None = None
    """User and password."""

    def __repr__(self) -> str:
        return f"Proxy({str(self.url)!r}, {self.variable!r})"


def proxy_for(url: httpx.URL, environ: Mapping[str, str] | None = None) -> Proxy | None:
    """None: the host is asked directly. Raises ConfigError for a variable that names no proxy.

    This machine itself is never asked through a proxy. ``NO_PROXY`` is a list of host names (which stand for all
    below them), names beginning with a dot (only those below), addresses, networks (10.0.0.0/8), each with a
    port where only that one is meant; or ``*``.
    """
    environ = os.environ if environ is None else environ
    if is_loopback(host_of(url)):
        return None
    name = "HTTPS_PROXY" if url.scheme == "https" else "HTTP_PROXY"
    found = _variable(environ, name)
    if found is None or _excepted(url, (_variable(environ, "NO_PROXY") or ("", ""))[1]):
        return None
    variable, text = found
    # A user in the URL, even one that looks like the beginning of a name, must not reach a message.
    try:
        proxy = httpx.URL(text if "://" in text else f"http://{text}")
        usable = proxy.scheme in _SCHEMES and bool(proxy.raw_host) and 0 < port_of(proxy) < 1 << 16
    except (httpx.InvalidURL, ValueError):
        usable = False
    if not usable:
        raise ConfigError(f"{variable}: wanted the URL of a proxy (http://proxy.example:3128), got something else")
    user = (unquote(proxy.username), unquote(proxy.password)) if proxy.userinfo else None
    bare = httpx.URL(scheme=proxy.scheme, host=proxy.host, port=proxy.port)
    return Proxy(bare, variable, user)


def configured(environ: Mapping[str, str] | None = None) -> dict[str, Proxy]:
    """By scheme, for hosts that no exception is made for. Raises ConfigError."""
    environ = os.environ if environ is None else environ
    asked = {name: value for name, value in environ.items() if name.upper() != "NO_PROXY"}
    found = {scheme: proxy_for(httpx.URL(f"{scheme}://registry.invalid/"), asked) for scheme in ("https", "http")}
    return {scheme: proxy for scheme, proxy in found.items() if proxy is not None}


def _variable(environ: Mapping[str, str], name: str) -> tuple[str, str] | None:
    for spelling in (name, name.lower()):
        if value := environ.get(spelling, "").strip():
            return spelling, value
    return None


def _excepted(url: httpx.URL, exceptions: str) -> bool:
    host = host_name(host_of(url)).lower()
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    for item in exceptions.lower().split(","):
        rule = item.strip()
        if rule == "*":
            return True
        if not rule:
            continue
        if "/" in rule:
            try:
                if address is not None and address in ipaddress.ip_network(rule, strict=False):
                    return True
            except ValueError:
                continue
            continue
        bare, port = _split_port(rule)
        if port and port != str(port_of(url)):
            continue
        if address is not None:
            if bare.strip("[]") == str(address):
                return True
            continue
        bare = bare.removeprefix("*")
        below = bare if bare.startswith(".") else f".{bare}"
        if host.endswith(below) or host == bare:
            return True
    return False


def _split_port(rule: str) -> tuple[str, str]:
    head, colon, tail = rule.rpartition(":")
    if colon and tail.isdigit() and (":" not in head or head.endswith("]")):
        return head, tail
    return rule, ""
