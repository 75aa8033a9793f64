"""Digests."""

import pytest

from registry_storage.digest import Digest
from registry_storage.errors import InvalidDigestError

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_digest_is_read_back_as_it_was_written() -> None:
    assert str(Digest.parse(f"sha256:{EMPTY}")) == f"sha256:{EMPTY}"
    assert Digest.from_raw(Digest(EMPTY).raw) == Digest(EMPTY)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_the_digest_of_bytes(kind: type) -> None:
    assert Digest.of(kind(b"")) == Digest(EMPTY)


@pytest.mark.parametrize(
    "text",
    [
        "",
        EMPTY,
        f"sha256:{EMPTY[:-1]}",
        f"sha256:{EMPTY}0",
        f"sha256:{EMPTY.upper()}",
        f"sha256:{EMPTY}\n",
        f" sha256:{EMPTY}",
        f"SHA256:{EMPTY}",
        f"sha512:{EMPTY}{EMPTY}",
        f"sha256:{EMPTY[:-1]}\u0661",
    ],
)
def test_anything_else_is_no_digest(text: str) -> None:
    with pytest.raises(InvalidDigestError, match="wanted sha256"):
        Digest.parse(text)


def test_a_raw_digest_has_32_bytes() -> None:
    with pytest.raises(InvalidDigestError, match="wanted 32 bytes, got 31"):
        Digest.from_raw(b"x" * 31)
