"""Manual pages from the same descriptions as ``--help`` (man(7))."""

import argparse
import re
from collections.abc import Iterable

from . import __version__
from .names import CONTROL, DAEMON, DEFAULT_CONFIG, DEFAULT_MOUNTPOINT, DEFAULT_ROOT

_FILES = {
    DEFAULT_CONFIG: "Settings.",
    DEFAULT_ROOT: "Contents, documents and state.",
    DEFAULT_MOUNTPOINT: "Where the layers are shown.",
    "/etc/containers/registries.conf": "Registries and mirrors, see containers-registries.conf(5).",
    "/etc/containers/certs.d": "Certificates, see containers-certs.d(5).",
    "/run/containers/0/auth.json": "Credentials, see containers-auth.json(5).",
}
_SEE_ALSO = (
    "podman(1)",
    "containers-storage.conf(5)",
    "containers-registries.conf(5)",
    "containers-certs.d(5)",
    "containers-auth.json(5)",
)


def pages() -> dict[str, str]:
    """The text of each page by its file's name."""
    from .cli import build_parser as build_daemon  # they import nothing of this module
    from .ctl import build_parser as build_control

    return {
        f"{DAEMON}.1": page(build_daemon(), "serve image layers that are fetched when they are read", CONTROL),
        f"{CONTROL}.1": page(build_control(), "convert images, look into them, and look after the daemon", DAEMON),
    }


def page(parser: argparse.ArgumentParser, purpose: str, other: str) -> str:
    """One page, commands included."""
    name = parser.prog
    lines = [
        f'.TH {name.upper()} 1 "" "{_text(f"registry-storage {__version__}")}" "User Commands"',
        ".SH NAME",
        f"{_text(name)} \\- {_text(purpose)}",
        ".SH SYNOPSIS",
        *_synopsis(parser),
        ".SH DESCRIPTION",
        *_paragraphs(parser.description or ""),
    ]
    commands = _commands(parser)
    for title, actions in _groups(parser):
        lines += [f".SH {_text(title.upper())}", *_options(actions)]
    if commands:
        lines.append(".SH COMMANDS")
    for command, (text, sub) in commands.items():
        said = sub.description or f"{text[:1].upper()}{text[1:]}."
        lines += [f".SS {_text(command)}", *_synopsis(sub), *_paragraphs(said)]
        for title, actions in _groups(sub):
            if title == "settings":
                lines += [".PP", f"And every setting of {_bold(DAEMON)}(1)."]
            else:
                lines += _options(actions)
    if parser.epilog:
        lines += [".SH EXAMPLES", ".nf", *(_text(line) for line in parser.epilog.strip().splitlines()), ".fi"]
    lines.append(".SH FILES")
    for path, text in _FILES.items():
        lines += [".TP", f"\\fI{_text(path)}\\fR", _text(text)]
    also = ", ".join(re.sub(r"^(.*)(\(\d\))$", lambda found: f"{_bold(found[1])}{found[2]}", one) for one in _SEE_ALSO)
    lines += [".SH SEE ALSO", f"{_bold(other)}(1), {also}"]
    return "\n".join(lines) + "\n"


def _synopsis(parser: argparse.ArgumentParser) -> list[str]:
    words = [_bold(word) for word in parser.prog.split()]
    optional = any(action.option_strings for action in parser._actions)
    if optional:
        words.append("[\\fIOPTIONS\\fR]")
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            words.append("\\fICOMMAND\\fR ...")
        elif not action.option_strings:
            shown = f"\\fI{_text(str(action.metavar or action.dest.upper()))}\\fR"
            words.append(f"[{shown} ...]" if action.nargs in ("*", argparse.REMAINDER) else shown)
    return [" ".join(words)]


def _groups(parser: argparse.ArgumentParser) -> Iterable[tuple[str, list[argparse.Action]]]:
    for group in parser._action_groups:
        actions = [one for one in group._group_actions if not isinstance(one, argparse._SubParsersAction)]
        actions = [one for one in actions if one.help is not argparse.SUPPRESS and (one.help or one.option_strings)]
        if actions:
            yield (group.title or "options"), actions


def _commands(parser: argparse.ArgumentParser) -> dict[str, tuple[str, argparse.ArgumentParser]]:
    found: dict[str, tuple[str, argparse.ArgumentParser]] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            found = {name: (helps.get(name, ""), sub) for name, sub in action.choices.items()}
    return found


def _options(actions: Iterable[argparse.Action]) -> list[str]:
    lines = []
    for action in actions:
        value = ""
        if action.nargs != 0 and not isinstance(action, argparse.BooleanOptionalAction):
            shown = action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper())
            value = f"\\fI{_text(str(shown))}\\fR"
        if action.option_strings:
            head = ", ".join(_bold(option) for option in action.option_strings) + (f" {value}" if value else "")
        else:
            head = value
        text = (action.help or "").replace("%%", "%").replace("%(default)s", str(action.default))
        lines += [".TP", head, _text(text) or "\\&"]
    return lines


def _paragraphs(text: str) -> list[str]:
    lines: list[str] = []
    for paragraph in text.strip().split("\n\n"):
        lines += [".PP", _text(" ".join(paragraph.split()))]
    return lines


def _bold(text: str) -> str:
    return f"\\fB{_text(text)}\\fR"


def _text(text: str) -> str:
    """Nothing in it is a command of roff, and a hyphen stays one."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped
