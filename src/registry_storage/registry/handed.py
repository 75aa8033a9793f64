"""Credentials that podman hands over for the images that it pulls; kept in memory, for some hours."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import trio

from ..errors import InvalidInputError
from ..reference import Reference
from .credentials import Credentials

KEEP_SECONDS = 12 * 3600.0
MAX_NAMES = 1024
_FIELDS = ("username", "password", "identityToken")


class HandedCredentials:
    """By repository; the last ones that were handed over count."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[float, Credentials]] = OrderedDict()

    def take(self, document: object) -> int:
        """What podman's ``additional-layer-store-auth-helper`` gets: reference to user, password, identity token.

        The reference is where podman really fetches from: a mirror's name, where it is a mirror. Returns how many
        were taken. Raises InvalidInputError, whose message holds no secret.
        """
        if not isinstance(document, dict) or len(document) > MAX_NAMES:
            raise InvalidInputError("credentials: wanted a JSON object of references")
        taken = {Reference.parse(text).name: _credentials(entry) for text, entry in document.items()}
        until = trio.current_time() + KEEP_SECONDS
        for name, credentials in taken.items():
            self._known.pop(name, None)
            if credentials is not None:
                self._known[name] = until, credentials
        while len(self._known) > MAX_NAMES:
            self._known.popitem(last=False)
        return len(taken)

    async def find(self, name: str) -> Credentials | None:
        """See CredentialsSource."""
        until, credentials = self._known.get(name, (0.0, None))
        if credentials is not None and trio.current_time() >= until:
            del self._known[name]
            return None
        return credentials


def _credentials(entry: object) -> Credentials | None:
    """None for an anonymous pull."""
    if not isinstance(entry, Mapping):
        raise InvalidInputError("credentials: wanted an object with username, password and identityToken")
    values: dict[str, Any] = {name: entry.get(name) or "" for name in _FIELDS}
    if not all(isinstance(value, str) for value in values.values()):
        raise InvalidInputError("credentials: wanted strings as username, password and identityToken")
    found = Credentials(values["username"], values["password"], values["identityToken"], origin="podman's helper")
    return None if found == Credentials() else found
