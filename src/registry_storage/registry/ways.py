"""Which way leads to a host: where several are allowed, the first that answers, from then on."""

import httpx

from .causes import explain
from .hosts import Endpoint, HostStates, Way
from .transport import Transport


class Ways:
    """One for each client; any number of tasks may ask."""

    def __init__(self, states: HostStates, transport: Transport) -> None:
        self._states = states
        self._transport = transport

    async def of(self, endpoint: Endpoint, deadline: float) -> Way:
        """How to reach `endpoint`, found out before `deadline` (trio's clock).

        Raises httpx.HTTPError, that of the way that got furthest.
        """
        if len(endpoint.ways) == 1:
            return endpoint.ways[0]
        state = self._states.of(endpoint.host)
        async with state.probing:
            if state.way is None or state.way not in endpoint.ways:
                state.way = await self._probe(endpoint, deadline)
            return state.way

    async def _probe(self, endpoint: Endpoint, deadline: float) -> Way:
        errors: list[httpx.HTTPError] = []
        for way in endpoint.ways:
            url = httpx.URL(f"{way.scheme}://{endpoint.host}/v2/")
            try:
                reply = await self._transport.send(
                    url, {}, verified=way.verified, deadline=deadline, registry=endpoint.registry
                )
            except httpx.HTTPError as error:
                errors.append(error)
                continue
            await reply.finish()
            # A server of HTTPS answers a plain request with 400.
            if way.scheme == "https" or reply.status != httpx.codes.BAD_REQUEST or way == endpoint.ways[-1]:
                return way
        chosen = next((error for error in errors if not isinstance(error, httpx.ConnectError)), errors[0])
        raise type(chosen)("; ".join(dict.fromkeys(explain(error) for error in errors)))

    def forget(self, endpoint: Endpoint) -> None:
        """Nobody answers there any more: look again next time."""
        self._states.of(endpoint.host).way = None
