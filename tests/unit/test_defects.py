"""A defect of ours fails the one who met it; the daemon lives on."""

import pytest
import trio

from registry_storage.errors import RegistryStorageError
from registry_storage.layer.single_flight import SingleFlight


async def test_an_unexpected_error_reaches_the_callers_and_not_the_nursery(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    flights: SingleFlight[str, int] = SingleFlight(nursery)

    async def defect() -> int:
        raise ZeroDivisionError("a defect")

    with pytest.raises(RegistryStorageError, match="a defect"):
        await flights.run("key", defect)
    assert "key failed" in caplog.text
