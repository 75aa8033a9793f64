"""Every claim of docs/security.md about what somebody can or cannot do names tests, and they exist."""

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
TEXT = (PROJECT / "docs/security.md").read_text("utf-8")
CLAIMS = re.findall(r"^- (.*?)(?=^- |^\n|\Z)", TEXT, re.MULTILINE | re.DOTALL)
TESTS = sorted(set(re.findall(r"`(tests/[^`]*)`", TEXT)))


def test_every_claim_names_a_test() -> None:
    assert len(CLAIMS) > 25
    assert [claim for claim in CLAIMS if "`tests/" not in claim] == []


@pytest.mark.parametrize("name", TESTS)
def test_a_test_that_is_named_exists(name: str) -> None:
    path, _, function = name.partition("::")
    text = (PROJECT / path).read_text("utf-8")
    assert re.search(rf"^(async )?def {re.escape(function)}\(", text, re.MULTILINE)
