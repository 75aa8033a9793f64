"""The command ``registry-storage-auth-helper``: hands podman's credentials to the daemon.

podman runs it before it pulls, where registries.conf(5) has it as ``additional-layer-store-auth-helper``, and gives it
JSON on standard input. A failure costs nothing but the credentials: podman warns and goes on.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import trio

from .config import load_settings
from .control.address import socket_path
from .control.client import connect
from .errors import RegistryStorageError

PROGRAM = "registry-storage-auth-helper"
ROUTE = "/v1/credentials"
_SECONDS = 5.0
_MAX_BYTES = 1 << 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Read, hand over; 0, or 1 with the cause on standard error."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        path = Path(words[0]) if words else socket_path(load_settings(None, {}))
        document = json.loads(sys.stdin.buffer.read(_MAX_BYTES))
        trio.run(_hand_over, path, document)
    except (RegistryStorageError, OSError) as error:
        sys.stderr.write(f"{PROGRAM}: {error}\n")
    except ValueError:  # its own words could quote a secret
        sys.stderr.write(f"{PROGRAM}: standard input is no JSON\n")
    except trio.TooSlowError:
        sys.stderr.write(f"{PROGRAM}: the daemon does not answer\n")
    else:
        return 0
    return 1


async def _hand_over(path: Path, document: object) -> None:
    with trio.fail_after(_SECONDS):
        async with connect(path) as client:
            await client.post(ROUTE, document)


if __name__ == "__main__":
    sys.exit(main())
