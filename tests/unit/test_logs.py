"""Log lines for people and for machines."""

import json
import logging

from registry_storage.logs import JsonFormatter, TextFormatter


def record(message: str, **extra: object) -> logging.LogRecord:
    return logging.getLogger("x").makeRecord("x", logging.WARNING, "f", 1, message, (), None, extra=extra)


def test_a_text_line_has_level_message_and_keys() -> None:
    line = TextFormatter().format(record("layer is served", layer="sha256:ab"))
    assert line == "warning: layer is served layer=sha256:ab"


def test_a_name_from_an_image_cannot_forge_a_line() -> None:
    assert TextFormatter().format(record("bad \n\x1b[31mname")) == "warning: bad \\x0a\\x1b[31mname"


def test_a_json_line_is_one_object_with_the_events_keys() -> None:
    line = JsonFormatter().format(record("layer\nis served", seconds=0.5))
    assert "\n" not in line
    event = json.loads(line)
    assert (event["level"], event["message"], event["seconds"]) == ("warning", "layer\nis served", 0.5)
