"""Each command loads what it needs, and nothing that takes long."""

import argparse
import subprocess
import sys

import pytest

from registry_storage import ctl


def commands(parser: argparse.ArgumentParser) -> list[str]:
    (found,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return list(found.choices)


@pytest.mark.parametrize("module", ctl._COMMANDS)
def test_a_command_is_where_the_table_says(module: str) -> None:
    for command in ctl._COMMANDS[module]:
        assert commands(ctl.build_parser(command)) == list(ctl._COMMANDS[module])


def test_without_a_known_command_all_are_offered() -> None:
    offered = [command for names in ctl._COMMANDS.values() for command in names]
    assert commands(ctl.build_parser()) == commands(ctl.build_parser("nonsense")) == offered


def test_adding_an_image_does_not_wait_for_the_converter_to_be_loaded() -> None:
    program = "import sys; from registry_storage import ctl; ctl.build_parser('add'); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "registry_storage.commands.images" in loaded
    assert not {"registry_storage.convert", "registry_storage.registry", "registry_storage.formats"} & set(loaded)
    assert not {"trio", "httpx", "rich"} & set(loaded)
