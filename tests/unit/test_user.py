"""Who runs this, also in the namespace of a rootless podman."""

import os

import pytest

from registry_storage.user import user_id


@pytest.mark.parametrize(
    ("effective", "told", "wanted"),
    [(0, None, 0), (0, "1000", 1000), (0, "", 0), (0, "x", 0), (7, None, 7), (7, "0", 7)],
)
def test_podmans_namespace_is_seen_through(
    monkeypatch: pytest.MonkeyPatch, effective: int, told: str | None, wanted: int
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: effective)
    monkeypatch.delenv("_CONTAINERS_ROOTLESS_UID", raising=False)
    if told is not None:
        monkeypatch.setenv("_CONTAINERS_ROOTLESS_UID", told)
    assert user_id() == wanted
