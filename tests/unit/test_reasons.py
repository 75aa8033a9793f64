"""Why a layer is not served is said once, with its keys."""

import logging

import pytest

from registry_storage.errors import NotLazyError, RegistryStorageError, UnavailableError
from registry_storage.store.reasons import Reasons, reason_of


def concerning(error: RegistryStorageError, layer: str) -> RegistryStorageError:
    error.about = {"reference": "a/b:v1", "layer": layer, "seconds": 0.5}
    return error


def test_each_layer_is_told_once_with_reference_digest_duration_and_reason(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    reasons = Reasons()
    for layer in ("sha256:1", "sha256:2", "sha256:1"):
        reasons.tell("lookup", concerning(NotLazyError("a plain gzip layer"), layer))
    assert [record.getMessage() for record in caplog.records] == 2 * ["layer is not served: a plain gzip layer"]
    assert [vars(record)["layer"] for record in caplog.records] == ["sha256:1", "sha256:2"]
    record = vars(caplog.records[0])
    assert (record["reference"], record["seconds"], record["reason"]) == ("a/b:v1", 0.5, "not-lazy")


def test_a_registry_that_is_not_there_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    Reasons().tell("getattr", concerning(UnavailableError("no answer"), "sha256:1"))
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "layer is not served: no answer")
    ]
    assert reason_of(UnavailableError("")) == "unavailable"
