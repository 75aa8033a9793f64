"""What the files and the environment of this host say about registries: the same that podman goes by."""

from dataclasses import dataclass

from ..config import Settings
from .auth_files import AuthFiles
from .certificates import Certificates
from .client import RegistryClient
from .credential_helpers import HelperPrograms
from .credentials import Credentials
from .handed import HandedCredentials
from .providers import CredentialProviders
from .registries_conf import AUTH_FILES, RegistriesConf
from .retry import Timeouts
from .routes import Routes


class ConfiguredCredentials:
    """What podman handed over, the auth files, the helpers of registries.conf, and the kubelet's plugins."""

    def __init__(
        self,
        registries: RegistriesConf,
        files: AuthFiles,
        providers: CredentialProviders | None = None,
        *,
        helper_seconds: float = 10.0,
    ) -> None:
        self._providers = providers
        self.handed = HandedCredentials()
        self._registries = registries
        self._files = files
        self._programs = HelperPrograms(helper_seconds)

    async def find(self, name: str) -> Credentials | None:
        """See CredentialsSource."""
        if (handed := await self.handed.find(name)) is not None:
            return handed
        for helper in self._registries.credential_helpers:
            if helper == AUTH_FILES:
                found = await self._files.find(name)
            else:
                found = await self._programs.ask(helper, name.partition("/")[0], self._registries.files[0])
            if found is not None:
                return found
        return await self._providers.find(name) if self._providers is not None else None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The parts, for whoever fetches and for whoever explains."""

    registries: RegistriesConf
    auth_files: AuthFiles
    credentials: ConfiguredCredentials
    routes: Routes

    @classmethod
    def of(cls, settings: Settings, *, helper_seconds: float = 10.0) -> "Surroundings":
        """As the settings say, else as podman would find them. Nothing is read yet."""
        registries = RegistriesConf(None if settings.registries_conf is None else [settings.registries_conf])
        files = AuthFiles(None if settings.auth_file is None else [settings.auth_file], helper_seconds=helper_seconds)
        providers = None
        if settings.credential_providers is not None:
            directory = settings.credential_provider_dir
            providers = CredentialProviders(settings.credential_providers, directory, seconds=helper_seconds)
        return cls(
            registries,
            files,
            ConfiguredCredentials(registries, files, providers, helper_seconds=helper_seconds),
            Routes(Certificates(None if settings.certs_dir is None else [settings.certs_dir])),
        )

    def client(self, timeouts: Timeouts | None = None) -> RegistryClient:
        """A client that goes by them."""
        return RegistryClient(
            registries=self.registries, credentials=self.credentials, routes=self.routes, timeouts=timeouts
        )
