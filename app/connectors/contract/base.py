"""What a connector is: one class per data source type that can check, discover and preview.

A type is a file or a folder in `types/`. It holds a config Struct, a secrets Struct and a subclass of `Connector`; the
registry finds it, and the API, the JSON Schema, the documentation and the contract tests follow. Drivers are imported
inside methods, so that a missing one is an answer and not a failed start.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import ClassVar, Generic, Literal, TypeVar

from msgspec import Struct

from app.connectors.contract.config import ConnectorConfig, ConnectorSecrets, NoSecrets
from app.connectors.contract.failures import ConnectorError
from app.connectors.contract.identity import place_of
from app.connectors.contract.objects import DiscoveredObject, PreviewRequest, PreviewResult
from app.connectors.contract.pinning import Network
from app.connectors.contract.steps import Steps
from app.core.egress import EgressPolicy

Category = Literal["database", "warehouse", "object_store", "file", "api", "stream", "cache", "search", "directory"]


class Capabilities(Struct, frozen=True):
    check: bool = True
    discover: bool = True
    preview: bool = True


ConfigT = TypeVar("ConfigT", bound=ConnectorConfig)
SecretsT = TypeVar("SecretsT", bound=ConnectorSecrets)
ConfigClass = type[ConnectorConfig]
SecretsClass = type[ConnectorSecrets]


class Connector(ABC, Generic[ConfigT, SecretsT]):
    """One source, for one piece of work: made, used for one of check, discover or preview, and thrown away."""

    type: ClassVar[str]
    label: ClassVar[str]
    category: ClassVar[Category]
    description: ClassVar[str]
    config_type: ClassVar[ConfigClass]
    secrets_type: ClassVar[SecretsClass] = NoSecrets
    driver: ClassVar[str | None] = None
    """The module that has to be importable, or None if the hub's own dependencies are enough."""
    warm_modules: ClassVar[tuple[str, ...]] = ()
    """Further modules that take long to import; a template (`processes`) has them ready."""
    opens_files: ClassVar[bool] = False
    """Whether it opens files of this machine. To the processes of all others, the hub's folder for files is closed."""
    extra: ClassVar[str | None] = None
    """The extra of the hub's package that brings the driver."""
    capabilities: ClassVar[Capabilities] = Capabilities()
    is_rehearsal: ClassVar[bool] = False
    """Whether there is nothing real behind it: offered in development only."""
    verified_with: ClassVar[tuple[str, ...]] = ()
    """Servers and emulators that the tests run this type against."""
    destination_fields: ClassVar[frozenset[str]]
    """Config fields that say where a stored secret goes, as whom, and how safely. A change of one of them asks for the
    secrets again."""
    stopped_because: str | None = None
    """Set by a discovery that ends before it has seen everything: a sentence that says what stopped it. What it did not
    reach is then taken for neither there nor gone."""

    def __init__(self, config: ConfigT, secrets: SecretsT, policy: EgressPolicy) -> None:
        self.config = config
        self.secrets = secrets
        self.network = Network(policy)

    @classmethod
    def validate(cls, config: ConfigT, secrets: SecretsT) -> None:
        """What config and secrets ask of each other. Raises `InvalidField`, its path from `config` or `secrets` on."""

    @classmethod
    def identity(cls, config: ConfigT) -> dict[str, object]:
        """What says which server and database it is, in one spelling; two sources that agree in it are duplicates.
        Empty where a config does not tell."""
        return place_of(config, cls.destination_fields)

    @abstractmethod
    async def check(self, steps: Steps) -> None:
        """Walks the steps. Raises `ConnectorError` out of the one that fails."""

    def discover(self) -> AsyncIterator[list[DiscoveredObject]]:
        """Batches of at most a few hundred objects, each object once. Memory does not grow with their number. One that
        stops at a limit sets `stopped_because`."""
        raise ConnectorError("unsupported", f"{self.label} sources cannot be discovered.")

    async def preview(self, request: PreviewRequest) -> PreviewResult:
        """At most `request.limit` rows. Reads no more from the source than that, and one more to know of the rest."""
        raise ConnectorError("unsupported", f"{self.label} sources have no preview.")
