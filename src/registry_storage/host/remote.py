"""What must be asked of others: registries, their credentials and certificates, and whether they serve ranges."""

from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from ..descriptor import INDEXES, Descriptor, Index, Manifest, Platform
from ..errors import ConfigError, RangeNotServedError, RegistryStorageError
from ..reference import Reference
from ..registry.client import RegistryClient
from ..registry.proxies import configured
from ..registry.surroundings import Surroundings
from .finding import Finding, failure, ok, warning

_NOBODY = Reference("registry.invalid", "doctor", "latest")


async def check_files(around: Surroundings) -> AsyncIterator[Finding]:
    """The files that podman has too: can they be read?"""
    mend = "mend the file: podman cannot use it either"
    try:
        around.registries.endpoints(_NOBODY)
    except ConfigError as error:
        yield failure("registries", str(error), mend)
    else:
        yield ok("registries", ", ".join(map(str, around.registries.files)) or "no registries.conf")
    try:
        await around.auth_files.find(_NOBODY.name)
    except ConfigError as error:
        yield failure("credentials", str(error), "podman login again, or mend the file")
    else:
        present = [path for path in around.auth_files.paths if path.is_file()]
        for path in present:
            if path.stat().st_mode & 0o044:
                yield warning("credentials", f"{path} can be read by others", f"chmod 600 {path}")
        yield ok("credentials", ", ".join(map(str, present)) or "none (only public images)")
    for found in check_certificates(around):
        yield found
    try:
        proxies = configured()
    except ConfigError as error:
        yield failure("proxy", str(error), "mend the variable in the daemon's environment")
    else:
        for scheme, proxy in proxies.items():
            yield ok("proxy", f"{scheme} through {proxy.url} ({proxy.variable})")


def check_certificates(around: Surroundings) -> Iterator[Finding]:
    """Every directory of certs.d."""
    certificates = around.routes.certificates
    good: list[Path] = []
    for directory in certificates.directories:
        try:
            hosts = sorted(path.name for path in directory.iterdir() if path.is_dir())
        except OSError:
            continue
        for host in hosts:
            try:
                certificates.context(certificates.directory(host), verified=True)
            except ConfigError as error:
                yield failure("certificates", str(error), "mend or remove the file: podman cannot use it either")
            else:
                good.append(directory / host)
    if good:
        yield ok("certificates", ", ".join(map(str, good)))


async def check_registries(
    client: RegistryClient, references: Sequence[Reference], platform: Platform
) -> AsyncIterator[Finding]:
    """For one image of each registry: is it there, may we have it, and in ranges?"""
    for reference in references:
        subject = f"registry {reference.host}"
        try:
            manifest = await fetch_manifest(client, reference, platform)
            layer = max(manifest.layers, key=lambda one: one.size, default=None)
            if layer is None or layer.size < 2:
                yield ok(subject, f"{reference}: there, without layers to try ranges on")
                continue
            await try_range(client, reference, layer)
        except RangeNotServedError as error:
            said = f"{error}: layers from there are never lazy"
            yield failure(subject, said, "ask for it through a mirror that serves ranges (registries.conf)")
        except RegistryStorageError as error:
            yield failure(subject, str(error), "see docs/configuration.md, and registry-storagectl explain")
        else:
            yield ok(subject, f"{reference}: there, and served in ranges")


async def fetch_manifest(client: RegistryClient, reference: Reference, platform: Platform) -> Manifest:
    """Of this platform. Raises RegistryStorageError."""
    _, media_type, data = await client.fetch_manifest(reference)
    if media_type in INDEXES:
        index = Index.parse(data, f"index of {reference}")
        chosen = index.select(platform)
        if chosen is None:
            raise ConfigError(f"{reference}: {index.lacks(platform)}; another one: the setting `platform`")
        _, _, data = await client.fetch_manifest(reference, chosen.digest)
    return Manifest.parse(data, f"manifest of {reference}")


async def try_range(client: RegistryClient, reference: Reference, layer: Descriptor) -> None:
    """One byte from the middle. Raises RegistryError."""
    await client.open_blob(reference, layer).fetch(layer.size // 2, 1)
