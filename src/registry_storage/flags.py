"""The daemon's settings as flags of a command line."""

import argparse
from pathlib import Path

from .config import DESCRIPTIONS, Description, Effective, Settings, load_effective
from .descriptor import Platform
from .errors import InvalidDocumentError
from .names import DEFAULT_CONFIG


def platform(text: str) -> Platform:
    """Raises argparse.ArgumentTypeError."""
    try:
        return Platform.parse(text)
    except InvalidDocumentError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_settings(parser: argparse.ArgumentParser) -> None:
    """A flag for each setting, and one for the file; those left out are not in the result."""
    group = parser.add_argument_group("settings", f"also keys of {DEFAULT_CONFIG}, with _ for -")
    group.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        default=argparse.SUPPRESS,
        help=f"the configuration file, TOML (default: {DEFAULT_CONFIG}, if there)",
    )
    defaults = Settings()
    for about in DESCRIPTIONS:
        _add(group, about, getattr(defaults, about.name))


def effective_settings(given: argparse.Namespace) -> Effective:
    """What `add_settings` put into a command line, over the file that it names. Raises ConfigError."""
    flags = {about.name: getattr(given, about.name) for about in DESCRIPTIONS if hasattr(given, about.name)}
    return load_effective(getattr(given, "config", None), flags)


def _add(group: "argparse._ArgumentGroup", about: Description, default: object) -> None:
    shown = about.text
    if about.name == "platform":
        shown += " (default: this host's)"
    elif default not in (None, ""):
        shown += f" (default: {_word(default)})"
    shown = shown.replace("%", "%%")
    if about.kind is bool:
        group.add_argument(
            about.flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=shown
        )
        return
    group.add_argument(
        about.flag,
        type=platform if about.kind is Platform else about.kind,
        choices=about.choices or None,
        metavar=None if about.choices else about.metavar or about.name.upper(),
        default=argparse.SUPPRESS,
        help=shown,
    )


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def settings_table() -> str:
    """For the documentation: each key with its default and its meaning."""
    defaults = Settings()
    lines = ["| key | default | |", "|---|---|---|"]
    for about in DESCRIPTIONS:
        default = getattr(defaults, about.name)
        if about.kind is Platform:
            shown = "this host's"
        elif default in (None, ""):
            shown = ""
        elif about.kind is bool:
            shown = f"`{str(default).lower()}`"
        else:
            shown = f"`{_word(default)}`" if isinstance(default, float | int) else f'`"{default}"`'
        more = f" ({', '.join(about.choices)})" if about.choices else ""
        more += f" ({about.bounds[0]:g} to {about.bounds[1]:g})" if about.bounds else ""
        lines.append(f"| `{about.name}` | {shown} | {about.text}{more} |")
    return "\n".join(lines)
