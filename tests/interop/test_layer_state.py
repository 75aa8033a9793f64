"""A container sees how much of its layers is here, and nothing that podman does with it contains that."""

import json

from lab import converters
from tests.interop.stand import Stand

STATE = "/.registry-storage"
SCRIPT = f"ls -a / && echo --- && cat {STATE}/*.json | tr -d '\\n' && touch /made"


def test_the_state_is_seen_inside_and_never_copied(stand: Stand) -> None:
    image = converters.tag("redis", "zstd")
    pulled = stand.pull("redis", "zstd")
    options = ("--name=seen", "--network=none")
    said = stand.podman.run("run", *options, stand.podman.name(image), "sh", "-c", SCRIPT).stdout
    listing, _, documents = said.partition("---\n")
    assert STATE[1:] not in listing
    states = [json.loads(text + "}") for text in documents.split("}") if text.strip()]
    if stand.generation.asks_for("zstd"):
        assert len(states) == len(pulled.lazy)
    assert all(0 < state["fetchedSize"] <= state["size"] for state in states)
    changed = stand.podman.run("diff", "seen").stdout
    assert "/made" in changed
    assert STATE not in changed
    stand.podman.run("commit", "-q", "seen", "localhost/committed")
    again = stand.podman.run("run", "--rm", "--network=none", "localhost/committed", "ls", "-a", "/").stdout
    assert "made" in again
    assert STATE[1:] not in again
    stand.podman.run("rm", "seen")
    stand.podman.run("rmi", "localhost/committed")
    stand.remove_everything()
