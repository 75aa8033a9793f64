"""What is made from the program itself and kept in the repository: `make pages`."""

import re
import sys
from pathlib import Path

import shtab

from registry_storage import cli, ctl, manual
from registry_storage.flags import settings_table
from registry_storage.names import CONTROL, DAEMON

PROJECT = Path(__file__).parent.parent
_TABLE = re.compile(r"(?<=<!-- settings -->\n)(\|.*\n)+")


def main() -> int:
    """Write them all."""
    for name, text in manual.pages().items():
        (PROJECT / "docs/man" / name).write_text(text)
    for name, parser in ((DAEMON, cli.build_parser()), (CONTROL, ctl.build_parser())):
        (PROJECT / "completion" / f"{name}.bash").write_text(shtab.complete(parser, "bash"))
        (PROJECT / "completion" / f"_{name}").write_text(shtab.complete(parser, "zsh"))
    page = PROJECT / "docs/configuration.md"
    page.write_text(_TABLE.sub(lambda _: settings_table() + "\n", page.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
