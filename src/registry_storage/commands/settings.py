"""``registry-storagectl config``: what is set, and where."""

import argparse
import json
import sys
from dataclasses import dataclass
from typing import Any

from ..config import Effective
from ..flags import add_settings, effective_settings
from ..names import DAEMON
from ..registry.proxies import VARIABLES, configured
from ..registry.surroundings import Surroundings


@dataclass(frozen=True, slots=True)
class Arguments:
    """What the command line says."""

    effective: Effective
    as_json: bool


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "config",
        help="print the effective settings and where each of them was set",
        description=f"Print the settings that {DAEMON} would have if it were started now, by this user, with these "
        "flags, and the files and variables that it would go by. The first part is a configuration file.",
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", dest="as_json", help="for machines")
    add_settings(parser)
    parser.set_defaults(read=read, run=run)


def read(given: argparse.Namespace) -> Arguments:
    """Load what the command line names. Raises ConfigError."""
    return Arguments(effective_settings(given), given.as_json)


async def run(arguments: Arguments) -> int:
    """Print; the exit status."""
    effective = arguments.effective
    around = surroundings(effective)
    if arguments.as_json:
        values = {
            name: {"value": _plain(getattr(effective.settings, name)), "origin": origin}
            for name, origin in effective.origins.items()
        }
        sys.stdout.write(json.dumps({"settings": values, **around}, indent=2) + "\n")
        return 0
    lines = []
    for name, origin in effective.origins.items():
        value = _plain(getattr(effective.settings, name))
        line = f"# {name} is not set" if value is None else f"{name} = {json.dumps(value)}"
        lines.append(f"{line:<58}  # {origin}")
    for title, entries in around.items():
        lines += ["", f"# {title}:", *(f"#   {entry}" for entry in entries or ["none"])]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def surroundings(effective: Effective) -> dict[str, list[str]]:
    """The files and variables that count besides the settings; never what is secret in them."""
    around = Surroundings.of(effective.settings)
    proxies = [
        f"{scheme}: {proxy.url}{' with a user' if proxy.authorization else ''} ({proxy.variable})"
        for scheme, proxy in configured().items()
    ]
    return {
        "configuration file": [f"{effective.file}{'' if effective.file_exists else ' (not there)'}"],
        "registries": [str(path) for path in around.registries.files],
        "credentials": [
            *(str(path) for path in around.auth_files.paths if path.exists()),
            *(f"docker-credential-{name}" for name in around.registries.credential_helpers if "." not in name),
        ],
        "certificates": [str(path) for path in around.routes.certificates.directories if path.is_dir()],
        f"proxies ({', '.join(VARIABLES)})": proxies,
    }


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
