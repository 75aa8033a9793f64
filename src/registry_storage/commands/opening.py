"""From what stands on the command line to sources and destinations."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from ..config import Settings
from ..convert import skopeo
from ..convert.destinations import Destination, LayoutDestination, RegistryDestination
from ..convert.places import BY_SKOPEO, Place
from ..convert.sources import LayoutSource, RegistrySource, Source
from ..convert.work import WorkDirectory
from ..descriptor import Descriptor
from ..errors import InvalidReferenceError
from ..registry.client import RegistryClient
from ..registry.retry import Timeouts
from ..registry.surroundings import Surroundings

_PATIENT = Timeouts(
    connect_seconds=10.0,
    first_byte_seconds=180.0,
    stall_seconds=60.0,
    operation_seconds=300.0,
    token_seconds=30.0,
    helper_seconds=60.0,
)
"""A registry may take minutes to put a large blob where it belongs, and nobody waits behind a mount."""


@asynccontextmanager
async def registry_client() -> AsyncIterator[RegistryClient]:
    """With the registries and credentials that podman would use."""
    surroundings = Surroundings.of(Settings(), helper_seconds=_PATIENT.helper_seconds)
    async with surroundings.client(_PATIENT) as client:
        yield client


async def open_source(place: Place, client: RegistryClient, work: WorkDirectory) -> Source:
    """The image at `place`; what skopeo must read is copied into the work directory first."""
    if place.transport == "docker" and place.reference is not None:
        return RegistrySource(client, place.reference)
    if place.transport == "oci":
        return LayoutSource(Path(place.path), place.tag, str(place))
    layout = work.file("skopeo-source")
    if not (layout / "index.json").is_file():
        await skopeo.read(place, layout)
    return LayoutSource(layout, skopeo.LAYOUT_TAG, str(place))


def open_destination(
    place: Place, source: Source, client: RegistryClient, work: WorkDirectory, mount_from: Sequence[str]
) -> Destination:
    """Where the result goes. Raises InvalidReferenceError, InvalidInputError, ProgramError."""
    if place.transport == "docker" and place.reference is not None:
        if place.reference.tag is None or place.reference.digest is not None:
            raise InvalidReferenceError(f"{place}: a destination needs a tag and cannot have a digest")
        repositories = list(mount_from)
        if source.repository is not None and source.repository.host == place.reference.host:
            repositories.insert(0, source.repository.repository)
        return RegistryDestination(client, place.reference, mount_from=repositories)
    if place.transport == "oci":
        return LayoutDestination(Path(place.path), place.tag, str(place))
    if place.transport in BY_SKOPEO:
        skopeo.check_installed(place)
        skopeo.check_vacant(place)
    return SkopeoDestination(place, work.file("skopeo-result"))


class SkopeoDestination(LayoutDestination):
    """A layout that skopeo copies to where the image goes."""

    def __init__(self, place: Place, layout: Path) -> None:
        super().__init__(layout, skopeo.LAYOUT_TAG, str(place))
        self._place = place
        self._path = layout

    async def publish(self, descriptor: Descriptor, data: bytes, suffix: str = "") -> None:
        """See Destination."""
        if suffix:
            raise InvalidReferenceError(f"{self._place}: an external TOC needs a registry or an oci: directory")
        await super().publish(descriptor, data)
        await skopeo.write(self._path, self._place)
