"""Why an exchange failed, in words that say what to do about it; never with a secret in them."""

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from .redirects import host_of
from .routes import Route

if TYPE_CHECKING:
    from .transport import Reply

_PLAIN_HTTP = frozenset(
    {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"}
)
_CLIENT_CERTIFICATE = frozenset(
    {
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        "SSLV3_ALERT_HANDSHAKE_FAILURE",
        "TLSV1_ALERT_UNKNOWN_CA",
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "SSLV3_ALERT_CERTIFICATE_REVOKED",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "TLSV1_ALERT_ACCESS_DENIED",
    }
)
# X509_V_ERR_… of OpenSSL's x509_vfy.h
_EXPIRED, _NOT_YET_VALID = 10, 9
_UNKNOWN_AUTHORITY = frozenset({2, 18, 19, 20, 21})
_OTHER_NAME = frozenset({62, 64})


def explain(error: BaseException) -> str:
    """What the library says; httpx leaves the words for TLS to what lies beneath."""
    beneath = next((cause for cause in _chain(error) if isinstance(cause, OSError)), None)
    return str(error) or str(beneath or "") or type(error).__name__


def cause(error: httpx.HTTPError, url: httpx.URL, registry: str, route: Route) -> str:
    """The same for a request to `url` in a conversation with `registry`, and what to do."""
    host = host_of(url)
    said = explain(error)
    if route.proxy is not None and isinstance(error, httpx.ProxyError):
        return f"{_proxy(route)} refuses: {said}{_proxy_advice(said, route)}"
    for beneath in _chain(error):
        if isinstance(beneath, ssl.SSLError):
            return _of_tls(beneath, host, registry, said, route)
        if isinstance(beneath, socket.gaierror):
            unknown = host if route.proxy is None else f"the proxy {host_of(route.proxy.url)} ({route.proxy.variable})"
            return f"the name of {unknown} cannot be resolved ({beneath.strerror}): is it right, and does DNS work?"
    if route.proxy is not None and isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return f"{_proxy(route)} cannot be reached: {said}"
    if any(isinstance(beneath, ConnectionRefusedError) for beneath in _chain(error)):
        return f"connection refused: nothing listens at {host}"
    return said


def advice(reply: "Reply") -> str:
    """What may help after a reply that refuses; to be put behind its status. Call `finish` of the reply before."""
    if reply.advice:
        return f"; {reply.advice}"
    if reply.status == httpx.codes.BAD_REQUEST and b"SSL certificate" in reply.drained:
        return f"; {reply.host} wants a valid client certificate: client.cert and client.key in its certs.d directory"
    if reply.status == httpx.codes.PROXY_AUTHENTICATION_REQUIRED:
        return "; the proxy wants another user and password in HTTP_PROXY"
    if reply.status == httpx.codes.TOO_MANY_REQUESTS:
        return f"; {reply.host} limits how often it is asked; those who log in may ask more often"
    return ""


def _of_tls(error: ssl.SSLError, host: str, registry: str, said: str, route: Route) -> str:
    place = route.certificates or Path("/etc/containers/certs.d", registry or host)
    if isinstance(error, ssl.SSLCertVerificationError):
        code, words = error.verify_code, error.verify_message
        what = f"the certificate of {host} is not valid ({words})"
        if code in _UNKNOWN_AUTHORITY:
            return f"{what}: nobody known here has signed it; put its authority's certificate into {place}/ca.crt"
        if code in _OTHER_NAME:
            return f"{what}: it belongs to another host; is {host} the name under which the registry is known?"
        if code in (_EXPIRED, _NOT_YET_VALID):
            return f"{what}: it must be renewed there, or this machine's clock is wrong"
        return what
    reason = error.reason or ""
    if reason in _PLAIN_HTTP:
        what = f"{host} does not speak TLS ({_words(reason)})"
        return f"{what}: if it has only plain HTTP, set insecure = true for it in registries.conf"
    if reason in _CLIENT_CERTIFICATE:
        # What servers answer to a wrong one, many answer to none.
        if any(place.glob("*.cert")):
            return f"{host} refuses the client certificate in {place} ({_words(reason)}): is it right and not expired?"
        return (
            f"{host} wants a client certificate ({_words(reason)}): put it into {place} as client.cert and client.key"
        )
    if reason == "UNEXPECTED_EOF_WHILE_READING":
        return f"{host} broke the connection off in the middle of TLS: does it speak TLS on this port?"
    return said or f"TLS with {host} failed ({_words(reason)})"


def _words(reason: str) -> str:
    return reason.lower().replace("_", " ")


def _proxy(route: Route) -> str:
    return "" if route.proxy is None else f"the proxy {host_of(route.proxy.url)} ({route.proxy.variable})"


def _proxy_advice(said: str, route: Route) -> str:
    if route.proxy is not None and said.startswith("407"):
        known = "the user and password there are wrong" if route.proxy.authorization else "it wants a user and password"
        return f"; {known}: {route.proxy.variable}=http://USER:PASSWORD@HOST:PORT"
    return "; does it allow this host?"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and what it came of."""
    at: BaseException | None = error
    seen: set[int] = set()
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        yield at
        at = at.exceptions[0] if isinstance(at, BaseExceptionGroup) else at.__cause__ or at.__context__
