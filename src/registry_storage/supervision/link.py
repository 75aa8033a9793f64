"""The supervisor as its worker sees it."""

import os
import socket
from collections.abc import Awaitable, Callable

import trio

from .. import __version__
from ..control.routes import Json, Request
from .handed import LEAVE, REFUSED, SERVING, UPGRADE, say


class SupervisorLink:
    """The worker's end of the channel."""

    def __init__(self, channel: socket.socket) -> None:
        channel.setblocking(False)
        self._channel = channel
        self._refusals = 0

    async def listen(self, leave: Callable[[], Awaitable[None]]) -> None:
        """Call `leave` when the supervisor says so, or is gone."""
        channel = trio.socket.from_stdlib_socket(self._channel)
        while True:
            word = await channel.recv(64)
            if word == REFUSED:
                self._refusals += 1
            elif word in (LEAVE, b""):
                await leave()
                return

    def serving(self) -> None:
        """Requests are being answered."""
        say(self._channel, SERVING)

    async def state(self, request: Request) -> Json:
        """``GET /v1/upgrade``: who serves; ``refusals`` counts the new workers that did not come up meanwhile."""
        return {"version": __version__, "pid": os.getpid(), "refusals": self._refusals}

    async def upgrade(self, request: Request) -> Json:
        """``POST /v1/upgrade``: the version that is installed now takes over. Answers at once, as `state`."""
        say(self._channel, UPGRADE)
        return await self.state(request)
