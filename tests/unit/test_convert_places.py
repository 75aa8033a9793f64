"""Names of images as containers-transports(5) writes them."""

import pytest

from registry_storage.convert.places import Place
from registry_storage.errors import InvalidReferenceError


@pytest.mark.parametrize(
    ("text", "transport", "path", "tag"),
    [
        ("oci:/a/b", "oci", "/a/b", None),
        ("oci:/a/b:v1", "oci", "/a/b", "v1"),
        ("oci-archive:a.tar:name", "oci-archive", "a.tar", "name"),
        ("docker-archive:/a.tar:docker.io/x:v1", "docker-archive", "/a.tar", "docker.io/x:v1"),
        ("dir:/a:b", "dir", "/a:b", None),
        ("containers-storage:localhost/x:1", "containers-storage", "", None),
    ],
)
def test_transports_are_told_apart(text: str, transport: str, path: str, tag: str | None) -> None:
    place = Place.parse(text)
    assert (place.transport, place.path, place.tag) == (transport, path, tag)
    assert str(place) == text


@pytest.mark.parametrize("text", ["docker://quay.io/a/b:1", "quay.io/a/b:1"])
def test_a_bare_reference_is_one_of_a_registry(text: str) -> None:
    place = Place.parse(text)
    assert str(place.reference) == "quay.io/a/b:1"
    assert str(place) == "docker://quay.io/a/b:1"


def test_a_port_is_not_a_transport() -> None:
    assert str(Place.parse("localhost:5000/a").reference) == "localhost:5000/a:latest"


@pytest.mark.parametrize(
    "text", ["docker-daemon:a:b", "oci:", "oci::tag", "oci:/a:b c", "dir:", "docker://", "quay.io/UPPER"]
)
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(InvalidReferenceError):
        Place.parse(text)
