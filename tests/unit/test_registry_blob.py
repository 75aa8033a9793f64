"""Reading a blob by ranges, from a registry that works and from one that breaks in every way we know."""

import gzip
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from registry_storage.errors import (
    BadResponseError,
    NotFoundError,
    RangeNotServedError,
    RegistryError,
    UnauthorizedError,
    UnavailableError,
)
from tests.fakes.registry_world import DATA, World

pytest_plugins = ["tests.fakes.registry_fixtures"]


async def test_a_range_is_fetched_with_one_request(world: World) -> None:
    assert await world.blob().fetch(1000, 300_000) == DATA[1000:301_000]
    (request,) = world.fake.requests("/blobs/")
    assert request.headers["range"] == "bytes=1000-300999"
    assert request.headers["accept-encoding"] == "identity"
    assert "cookie" not in request.headers


async def test_the_whole_blob_is_fetched_without_a_range(world: World) -> None:
    assert await world.blob().fetch(0, len(DATA)) == DATA
    assert "range" not in world.fake.requests("/blobs/")[0].headers


async def test_a_whole_blob_that_breaks_is_continued_by_range(world: World, clock: MockClock) -> None:
    world.fake.inject("reset", path="/blobs/", at=400_000)
    assert await world.blob().fetch(0, len(DATA)) == DATA
    assert world.fake.requests("/blobs/")[1].headers["range"].startswith("bytes=")


async def test_nothing_is_fetched_for_no_bytes(world: World) -> None:
    assert await world.blob().fetch(500, 0) == b""
    assert world.fake.log == []


@pytest.mark.parametrize(("offset", "size"), [(-1, 5), (0, -1), (len(DATA), 1), (0, len(DATA) + 1)])
async def test_a_range_outside_the_blob_is_the_callers_mistake(world: World, offset: int, size: int) -> None:
    with pytest.raises(ValueError, match="wanted bytes in 0 to 1000000"):
        await world.blob().fetch(offset, size)


async def test_bytes_are_seen_as_they_arrive(world: World, clock: MockClock) -> None:
    world.fake.inject("stall", path="/blobs/", at=100_000)
    got = b""
    async with aclosing(world.blob().stream(0, 500_000)) as stream:
        async for piece in stream:
            got += piece
            if len(got) == 100_000:
                break
    assert got == DATA[:100_000]
    assert world.gets() == 1


async def test_connections_are_used_again(world: World) -> None:
    blob = world.blob()
    for offset in range(0, 100_000, 10_000):
        assert len(await blob.fetch(offset, 10_000)) == 10_000
    assert world.fake.connections == 1


async def test_many_readers_share_a_blob(world: World) -> None:
    blob = world.blob()
    got: dict[int, bytes] = {}

    async def read(offset: int) -> None:
        got[offset] = await blob.fetch(offset, 10_000)

    async with trio.open_nursery() as nursery:
        for offset in range(0, 600_000, 10_000):
            nursery.start_soon(read, offset)
    assert all(got[offset] == DATA[offset : offset + 10_000] for offset in range(0, 600_000, 10_000))
    assert world.fake.connections <= 33


async def test_more_bytes_than_asked_for_are_never_handed_out(world: World) -> None:
    world.fake.inject(
        "headers", path="/blobs/", headers={"content-length": None, "transfer-encoding": "chunked"}
    )
    world.fake.inject("ignore-range", path="/blobs/")
    assert await world.blob().fetch(0, 1000) == DATA[:1000]


# Broken on the way.


@pytest.mark.parametrize("kind", ["reset", "truncate", "unframed", "stall"])
@pytest.mark.parametrize("at", [0, 1, 70_000, 299_999])
async def test_a_body_that_breaks_is_continued_where_it_broke(
    world: World, clock: MockClock, kind: str, at: int
) -> None:
    world.fake.inject(kind, path="/blobs/", at=at)
    assert await world.blob().fetch(1000, 300_000) == DATA[1000:301_000]
    assert world.gets() == 2


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 500},
        {"kind": "status", "status": 502},
        {"kind": "status", "status": 503},
        {"kind": "status", "status": 429},
        {"kind": "disconnect"},
        {"kind": "garbage"},
        {"kind": "stall", "at": None},
    ],
    ids=lambda fault: "-".join(str(value) for value in fault.values()),
)
async def test_what_may_pass_is_tried_again(world: World, clock: MockClock, fault: dict[str, Any]) -> None:
    world.fake.inject(path="/blobs/", **fault)
    assert await world.blob().fetch(1000, 300_000) == DATA[1000:301_000]
    assert world.gets() == 2


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ({"kind": "status", "status": 500}, UnavailableError, "got 500"),
        ({"kind": "status", "status": 429}, UnavailableError, "got 429"),
        ({"kind": "disconnect"}, UnavailableError, "the connection broke"),
        ({"kind": "garbage"}, BadResponseError, "not HTTP"),
        ({"kind": "reset", "at": 10}, UnavailableError, "the connection broke"),
        ({"kind": "truncate", "at": 10}, UnavailableError, "the connection broke"),
        ({"kind": "stall", "at": None}, UnavailableError, "no answer in time"),
        ({"kind": "stall", "at": 10}, UnavailableError, "no answer in time"),
    ],
    ids=lambda value: "-".join(str(v) for v in value.values()) if isinstance(value, dict) else None,
)
async def test_what_does_not_pass_fails_in_time(
    world: World, clock: MockClock, fault: dict[str, Any], error: type[RegistryError], words: str
) -> None:
    world.fake.inject(path="/blobs/", times=None, **fault)
    started = trio.current_time()
    with pytest.raises(error, match=words) as caught:
        await world.blob().fetch(1000, 300_000)
    assert trio.current_time() - started <= 20
    assert world.fake.host in str(caught.value)
    assert "team/app" in str(caught.value)
    world.fake.faults.clear()
    assert await world.blob().fetch(1000, 300_000) == DATA[1000:301_000]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, UnauthorizedError),
        (403, UnauthorizedError),
        (404, NotFoundError),
        (410, NotFoundError),
        (405, BadResponseError),
        (418, BadResponseError),
        (204, BadResponseError),
    ],
)
async def test_other_statuses_are_not_tried_again(
    world: World, status: int, error: type[RegistryError]
) -> None:
    world.fake.inject("status", path="/blobs/", status=status, times=None)
    with pytest.raises(error, match=f"got {status}"):
        await world.blob().fetch(1000, 10)
    assert world.gets() == 1


async def test_progress_lets_a_bad_link_go_on(world: World, clock: MockClock) -> None:
    world.fake.inject("reset", path="/blobs/", at=70_000, times=None)
    assert await world.blob().fetch(0, 900_000) == DATA[:900_000]
    assert world.gets() == 13


async def test_a_trickle_is_given_up(world: World, clock: MockClock) -> None:
    world.fake.inject("drip", path="/blobs/", at=1, seconds=5, times=None)
    started = trio.current_time()
    with pytest.raises(UnavailableError):
        await world.blob().fetch(0, 100_000)
    assert trio.current_time() - started < 30


async def test_a_slow_consumer_is_not_the_registrys_fault(world: World, clock: MockClock) -> None:
    got = b""
    async with aclosing(world.blob().stream(0, 500_000)) as stream:
        async for piece in stream:
            await trio.sleep(30)
            got += piece
    assert got == DATA[:500_000]
    assert world.gets() == 1


# Wrong on purpose.


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"kind": "wrong-range"}, "Content-Range"),
        ({"kind": "headers", "headers": {"content-range": None}}, "Content-Range: wanted bytes 1000-300999/"),
        ({"kind": "headers", "headers": {"content-range": "bytes 1000-300999/999999"}}, "Content-Range"),
        ({"kind": "headers", "headers": {"content-range": "bytes 0-299999/1000000"}}, "Content-Range"),
        ({"kind": "headers", "headers": {"content-range": "elephants"}}, "Content-Range"),
        ({"kind": "headers", "headers": {"content-encoding": "gzip"}}, "Content-Encoding"),
        ({"kind": "status", "status": 206, "body": b"short"}, "Content-Length"),
        ({"kind": "headers", "headers": {"content-length": "300001"}}, "Content-Length"),
    ],
    ids=lambda value: None if isinstance(value, str) else "-".join(str(v) for v in value.values()),
)
async def test_a_reply_to_another_question_is_refused(
    world: World, fault: dict[str, Any], words: str
) -> None:
    world.fake.inject(path="/blobs/", **fault)
    blob = world.blob()
    with pytest.raises(BadResponseError, match=words):
        await blob.fetch(1000, 300_000)
    assert world.gets() == 1
    assert await blob.fetch(1000, 300_000) == DATA[1000:301_000]


async def test_a_range_of_unknown_total_is_taken(world: World) -> None:
    world.fake.inject("headers", path="/blobs/", headers={"content-range": "bytes 1000-1009/*"})
    assert await world.blob().fetch(1000, 10) == DATA[1000:1010]


async def test_a_blob_shorter_than_its_descriptor_is_refused(world: World) -> None:
    descriptor = replace(world.descriptor, size=len(DATA) + 100)
    blob = world.client.open_blob(world.reference, descriptor)
    with pytest.raises(BadResponseError, match="Content-Range"):
        await blob.fetch(0, len(DATA))
    with pytest.raises(RangeNotServedError, match="got HTTP 416"):
        await blob.fetch(len(DATA), 100)
    with pytest.raises(BadResponseError, match="Content-Length"):
        await blob.fetch(0, len(DATA) + 100)
    assert await world.blob().fetch(1000, 10) == DATA[1000:1010]


async def test_compressed_transfer_is_not_asked_for_and_not_taken(world: World) -> None:
    squeezed = gzip.compress(DATA[:1000])
    headers = {"content-encoding": "gzip"}
    world.fake.inject("status", path="/blobs/", status=200, headers=headers, body=squeezed)
    with pytest.raises(BadResponseError, match="Content-Encoding"):
        await world.blob().fetch(0, 1000)


async def test_chunked_transfer_is_fine(world: World) -> None:
    world.fake.inject("chunked", path="/blobs/", times=None)
    blob = world.blob()
    assert await blob.fetch(1000, 300_000) == DATA[1000:301_000]
    assert await blob.fetch(0, len(DATA)) == DATA
    assert world.fake.connections == 1


# Hosts without ranges.


async def test_a_whole_blob_in_reply_to_a_range_is_cut_off(world: World, clock: MockClock) -> None:
    world.fake.inject("ignore-range", path="/blobs/", times=None)
    world.fake.inject("stall", path="/blobs/", at=500_000, times=None)
    with pytest.raises(RangeNotServedError, match=r"wanted a range \(206\), got the whole blob \(200\)"):
        await world.blob().fetch(1000, 10)


async def test_a_host_that_ignored_one_range_is_asked_again_in_seconds(world: World, clock: MockClock) -> None:
    world.fake.inject("ignore-range", path="/blobs/")
    with pytest.raises(RangeNotServedError):
        await world.blob().fetch(1000, 10)
    with pytest.raises(RangeNotServedError, match="does not serve ranges"):
        await world.blob().fetch(1000, 10)
    assert world.gets() == 1
    assert await world.blob().fetch(0, len(DATA)) == DATA
    await trio.sleep(6)
    assert await world.blob().fetch(1000, 10) == DATA[1000:1010]


async def test_a_host_without_ranges_is_asked_ever_more_rarely(world: World, clock: MockClock) -> None:
    world.fake.inject("ignore-range", path="/blobs/", times=None)
    for _ in range(1000):
        with pytest.raises(RangeNotServedError):
            await world.blob().fetch(1000, 10)
        await trio.sleep(1)
    assert world.gets() == 9  # after 5, 10, 20, 40, 80, 160, 300, 300 seconds


async def test_the_beginning_is_taken_from_a_host_without_ranges(world: World) -> None:
    world.fake.inject("ignore-range", path="/blobs/", times=None)
    assert await world.blob().fetch(0, 200_000) == DATA[:200_000]
    assert await world.blob().fetch(0, 10) == DATA[:10]


async def test_a_beginning_that_breaks_on_a_host_without_ranges_fails(world: World, clock: MockClock) -> None:
    world.fake.inject("ignore-range", path="/blobs/", times=None)
    world.fake.inject("reset", path="/blobs/", at=1000)
    with pytest.raises(RangeNotServedError):
        await world.blob().fetch(0, 200_000)


@pytest.mark.parametrize("status", [400, 416, 501])
async def test_a_refused_range_says_so(world: World, status: int) -> None:
    world.fake.inject("status", path="/blobs/", status=status)
    with pytest.raises(RangeNotServedError, match=f"got HTTP {status}"):
        await world.blob().fetch(1000, 10)


async def test_one_blobs_refusal_does_not_speak_for_the_host(world: World) -> None:
    world.fake.inject("status", path="/blobs/", status=416)
    with pytest.raises(RangeNotServedError):
        await world.blob().fetch(1000, 10)
    assert await world.blob().fetch(1000, 10) == DATA[1000:1010]


async def test_a_host_that_does_not_implement_ranges_is_remembered(world: World) -> None:
    world.fake.inject("status", path="/blobs/", status=501)
    for _ in range(2):
        with pytest.raises(RangeNotServedError):
            await world.blob().fetch(1000, 10)
    assert world.gets() == 1


# Redirects.


async def test_the_place_redirected_to_is_remembered(world: World) -> None:
    world.fake.redirect_blobs = True
    blob = world.blob()
    for offset in (0, 5000, 70_000):
        assert await blob.fetch(offset, 100) == DATA[offset : offset + 100]
    assert world.gets(listener="registry") == 1
    assert world.gets(listener="storage") == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
async def test_an_expired_place_is_resolved_again(world: World, status: int) -> None:
    world.fake.redirect_blobs = True
    blob = world.blob()
    await blob.fetch(0, 100)
    world.fake.inject("status", listener="storage", status=status)
    assert await blob.fetch(5000, 100) == DATA[5000:5100]
    assert world.gets(listener="registry") == 2


async def test_a_signature_that_expires_in_the_middle_is_replaced(world: World, clock: MockClock) -> None:
    world.fake.redirect_blobs = True
    world.fake.inject("reset", listener="storage", at=100_000)
    blob = world.blob()
    got = b""
    async with aclosing(blob.stream(1000, 300_000)) as stream:
        async for piece in stream:
            if not got:
                world.fake.expire_signatures()
            got += piece
    assert got == DATA[1000:301_000]


async def test_a_place_that_refuses_again_fails(world: World) -> None:
    world.fake.redirect_blobs = True
    blob = world.blob()
    await blob.fetch(0, 100)
    world.fake.inject("status", listener="storage", status=403, times=None)
    with pytest.raises(UnauthorizedError, match="got 403"):
        await blob.fetch(5000, 100)
    assert world.gets(listener="storage") == 3


async def test_a_broken_place_is_resolved_again(world: World, clock: MockClock) -> None:
    world.fake.redirect_blobs = True
    blob = world.blob()
    await blob.fetch(0, 100)
    world.fake.inject("disconnect", listener="storage")
    assert await blob.fetch(5000, 100) == DATA[5000:5100]
    assert world.gets(listener="registry") == 2


async def test_a_place_without_ranges_is_known_for_the_next_blob(world: World) -> None:
    world.fake.redirect_blobs = True
    world.fake.inject("ignore-range", listener="storage", times=None)
    for _ in range(2):
        with pytest.raises(RangeNotServedError):
            await world.blob().fetch(1000, 10)
    assert world.gets(listener="storage") == 1


# What is measured.


async def test_the_link_is_assumed_before_it_is_measured(world: World) -> None:
    link = world.blob().link
    assert (link.round_trip_seconds, link.bytes_per_second) == (0.02, 10e6)


async def test_the_link_is_measured_per_host(world: World, clock: MockClock) -> None:
    world.fake.redirect_blobs = True
    world.fake.inject("delay", listener="storage", seconds=0.5)
    world.fake.inject("drip", listener="storage", at=10_000, seconds=0.1)
    blob = world.blob()
    before = blob.link
    await blob.fetch(0, 500_000)
    assert blob.link.round_trip_seconds == pytest.approx(0.5, abs=0.05)
    assert blob.link.bytes_per_second == pytest.approx(100_000, rel=0.1)
    assert before.round_trip_seconds == 0.02
