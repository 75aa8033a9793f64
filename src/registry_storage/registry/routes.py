"""How a request gets to a host: with which certificates, through which proxy."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from .certificates import Certificates
from .proxies import Proxy, proxy_for
from .redirects import host_of


@dataclass(frozen=True, slots=True)
class Route:
    """Requests with the same route may share connections."""

    context: ssl.SSLContext
    proxy: Proxy | None
    certificates: Path | None = None
    """The directory that `context` comes of."""


class Routes:
    """Knows the route to every URL; the files behind it may change at any time."""

    def __init__(self, certificates: Certificates | None = None, environ: Mapping[str, str] | None = None) -> None:
        """`environ`: where proxies stand, instead of this process's environment."""
        self.certificates = certificates or Certificates()
        self._environ = environ

    def route(self, url: httpx.URL, registry: str, *, verified: bool) -> Route:
        """To `url`, in a conversation with `registry` (as references name it).

        Its token server, and where it redirects to, have its certificates too, unless they have their own: so it
        is with podman. Raises ConfigError.
        """
        directory = self.certificates.directory(host_of(url), registry)
        context = self.certificates.context(directory, verified=verified and url.scheme == "https")
        return Route(context, proxy_for(url, self._environ), directory)
