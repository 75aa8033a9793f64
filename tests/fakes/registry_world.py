"""What the tests of the registry's side start from."""

import random
from dataclasses import dataclass

from registry_storage.descriptor import Descriptor
from registry_storage.reference import Reference
from registry_storage.registry.client import RegistryClient
from registry_storage.registry.mirrors import ReadableBlob

from .registry import FakeRegistry

DATA = random.Random(1).randbytes(1_000_000)


@dataclass(frozen=True, slots=True)
class World:
    """A client, and a registry with one blob."""

    fake: FakeRegistry
    client: RegistryClient
    reference: Reference
    descriptor: Descriptor

    def blob(self) -> ReadableBlob:
        """The blob, whose bytes are DATA, with nothing remembered."""
        return self.client.open_blob(self.reference, self.descriptor)

    def gets(self, path: str = "/blobs/|/sha256", listener: str = ".*") -> int:
        """How many requests for blobs (or `path`) there were."""
        return len(self.fake.requests(path, listener))
