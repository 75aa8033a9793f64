"""Programs that know credentials: docker's ``docker-credential-…`` protocol."""

import contextlib
import json
import logging
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import trio

from ..errors import ConfigError
from .credentials import Credentials

_LOG = logging.getLogger(__name__)
_MAX_HELPER_BYTES = 256 << 10
_HELPER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)


class HelperPrograms:
    """Runs them, each for at most some seconds."""

    def __init__(self, seconds: float = 10.0) -> None:
        self._seconds = seconds

    async def ask(self, helper: object, server: str, path: Path, *, optional: bool = False) -> Credentials | None:
        """The answer of ``docker-credential-<helper> get``; None when it has none.

        `path` is the file that names it. `optional`: it need not be installed. Raises ConfigError.
        """
        if not isinstance(helper, str) or not _HELPER_NAME.fullmatch(helper):
            raise ConfigError(f"{path}: {helper!r:.100} is not the name of a credential helper")
        program = f"docker-credential-{helper}"
        try:
            with trio.fail_after(self._seconds):
                status, output = await run_program([program, "get"], server.encode())
        except OSError as error:
            if optional and isinstance(error, FileNotFoundError):
                _LOG.debug("%s: %s is not installed", path, program)
                return None
            raise ConfigError(f"{path}: {program}: {error.strerror}") from None
        except trio.TooSlowError:
            raise ConfigError(f"{path}: {program}: no answer in {self._seconds} seconds") from None
        if status < 0 or len(output) > _MAX_HELPER_BYTES:
            raise ConfigError(f"{path}: {program}: wanted at most {_MAX_HELPER_BYTES} bytes and no signal")
        if status:
            _LOG.debug("%s knows no credentials for %s (status %d)", program, server, status)
            return None
        try:
            answer = json.loads(output)
            username, secret = answer["Username"], answer["Secret"]
            if not isinstance(username, str) or not isinstance(secret, str):
                raise TypeError  # noqa: TRY301
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ConfigError(f"{path}: {program}: wanted JSON with Username and Secret") from None
        if username == "<token>":
            return Credentials(identity_token=secret, origin=program)
        return Credentials(username, secret, origin=program)


async def run_program(
    command: Sequence[str], stdin: bytes, environ: Mapping[str, str] | None = None
) -> tuple[int, bytes]:
    """Exit status and the beginning of the output of `command`. Raises OSError when it cannot start."""
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environ
    )
    output = bytearray()
    try:
        if process.stdin is None or process.stdout is None:
            raise OSError(0, "no pipe")
        with contextlib.suppress(trio.BrokenResourceError):  # it does not want to know
            await process.stdin.send_all(stdin)
        await process.stdin.aclose()
        while len(output) <= _MAX_HELPER_BYTES and (piece := await process.stdout.receive_some()):
            output += piece
        if len(output) > _MAX_HELPER_BYTES:
            process.kill()
        await process.wait()
    finally:
        with trio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
                await process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    await pipe.aclose()
    return process.returncode or 0, bytes(output)
