"""The control socket: how ``registry-storagectl`` and podman's helpers speak with the running daemon.

HTTP/1.1 with JSON over a socket of the file system, ``<root>/control.sock`` or the setting `control_socket`; only
root, the daemon's own user and the setting `control_group` get in (`address.py`).

    curl --unix-socket /var/lib/registry-storage/control.sock http://daemon/v1/status

A route is a method and a path, and a handler that whoever wires the daemon registers (`routes.py`)::

    async def prune(request: Request) -> Json: ...          # answers one JSON document
    routes.add("POST", "/v1/cache/prune", prune)

    async def add(request: Request) -> AsyncGenerator[Json, None]:  # answers lines of JSON, as they come
        return progress_of(request.body["reference"])

`request.query` holds the parameters of the URL, `request.body` the JSON document that was sent (None without one),
`request.peer` who asks. What a handler raises from `errors.py` becomes ``{"error": message, "kind": class}`` with a
fitting status (`routes.STATUSES`); when lines have been sent already, it is the last line. The client (`client.py`)
turns both into a DaemonError again.

Requests are bounded in size, number and time (`server.py`). A client that leaves cancels its handler; work that must
go on then belongs into a nursery of its own. Nothing in this room knows what the daemon does.
"""
