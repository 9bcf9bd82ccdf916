"""What a connector is: one class per data source type that can check, discover and preview.

A type is one file beside this one. It holds a config Struct, a secrets Struct and a subclass of `Connector`; the
registry finds it, and the API, the JSON Schema, the documentation and the contract tests follow. Drivers are imported
inside methods, so that a missing one is an answer and not a failed start.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar, Final, Generic, Literal, TypeVar, get_args

import msgspec
from msgspec import Meta, Struct

from app.connectors.contract.failures import EXPLANATIONS, Code, ConnectorError, Fault
from app.connectors.contract.identity import place_of
from app.core.egress import EgressPolicy, EgressRefused, NameNotResolved, NotAHost, Pinned, canonical_host, resolve

PortableType = Literal[
    "boolean",
    "integer",
    "number",
    "decimal",
    "string",
    "binary",
    "date",
    "time",
    "timestamp",
    "timestamp_tz",
    "interval",
    "uuid",
    "json",
    "array",
    "object",
    "geometry",
    "unknown",
]
"""The vocabulary of field types. `number` is a binary floating point number, `decimal` an exact one; `timestamp` has no
zone, `timestamp_tz` has. What a source calls the type stays beside it as `native_type`."""

Category = Literal["database", "warehouse", "object_store", "file", "api", "stream", "cache", "search", "directory"]
StepName = Literal["resolve", "connect", "tls", "authenticate", "list"]
StepStatus = Literal["passed", "failed", "skipped"]
TestStatus = Literal["passed", "failed", "unsupported"]

STEP_NAMES: Final[tuple[StepName, ...]] = get_args(StepName)

# Config vocabulary shared by the types ------------------------------------------------------------------------------

Host = Annotated[str, Meta(min_length=1, max_length=253, description="Host name or address, without scheme or port.")]
Port = Annotated[int, Meta(ge=1, le=65535)]
Pem = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=65_536,
        description="Certificates in PEM form.",
        extra_json_schema={"contentMediaType": "application/x-pem-file"},
    ),
]
SecretText = Annotated[str, Meta(min_length=1, max_length=16_384, extra_json_schema={"writeOnly": True})]
TimeoutS = Annotated[float, Meta(ge=0.1, le=60, description="Seconds.")]


class InvalidField(ValueError):
    """A value that its type allows and its neighbours do not. `path` leads to the field from the config's or the
    secrets' root; msgspec wraps this into a `ValidationError`, whose `__cause__` it then is."""

    def __init__(self, path: Sequence[str], message: str) -> None:
        super().__init__(message)
        self.path = tuple(path)
        self.message = message


class ConnectorConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every config Struct: no control characters in any text, except the line ends of PEM fields."""

    def __post_init__(self) -> None:
        for name, text in _texts(self):
            if any((character < " " and character not in "\r\n\t") or character == "\x7f" for character in text):
                raise InvalidField((name,), f"{name} holds a control character.")
            if any(character in "\r\n" for character in text) and not text.lstrip().startswith("-----BEGIN "):
                raise InvalidField((name,), f"{name} holds a line break.")


class ConnectorSecrets(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every secrets Struct. Every field is optional; `Connector.validate` says which ones a config needs."""

    def __post_init__(self) -> None:
        for name, text in _texts(self):
            if "\x00" in text:
                raise InvalidField((name,), f"{name} holds a NUL character.")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(<hidden>)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class NoSecrets(ConnectorSecrets, frozen=True, kw_only=True):
    """For types that have none."""


def _texts(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, Struct):
        for field in value.__struct_fields__:
            yield from _texts(getattr(value, field), f"{name}.{field}" if name else field)
    elif isinstance(value, list | tuple | frozenset):
        for item in value:
            yield from _texts(item, name)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(key, name)
            yield from _texts(item, name)


# What goes over the wire --------------------------------------------------------------------------------------------


class Capabilities(Struct, frozen=True):
    check: bool = True
    discover: bool = True
    preview: bool = True


class Step(Struct, frozen=True):
    name: StepName
    status: StepStatus
    code: Code
    message: str
    duration_ms: float
    fault: Fault = "none"
    can_retry: bool = False


class TestResult(Struct, frozen=True):
    """All five steps, always, in their order; the first failed one says why, the ones after it are `not_reached`."""

    __test__: ClassVar[bool] = False  # Not a test class, whatever its name makes pytest believe.

    status: TestStatus
    steps: tuple[Step, ...]
    server: dict[str, str]
    """What the server said of itself: `product`, `version` and the like. Empty if it was not reached."""
    duration_ms: float


class DiscoveredField(Struct, frozen=True):
    name: str
    type: PortableType
    native_type: str
    is_nullable: bool
    position: int
    """Counted from 1."""


class DiscoveredObject(Struct, frozen=True):
    name: str
    path: tuple[str, ...]
    """Names from the outside in; the last one is `name`. The path, not the qualified name, identifies an object."""
    qualified_name: str
    """`qualify(path)`."""
    kind: str
    fields: tuple[DiscoveredField, ...]

    @classmethod
    def at(cls, path: Sequence[str], kind: str, fields: Sequence[DiscoveredField]) -> DiscoveredObject:
        return cls(path[-1], tuple(path), qualify(path), kind, tuple(fields))


class PreviewRequest(Struct, frozen=True, kw_only=True):
    path: tuple[str, ...]
    columns: tuple[str, ...] | None = None
    limit: Annotated[int, Meta(ge=0, le=1000)] = 100
    max_bytes: Annotated[int, Meta(ge=1024, le=16 * 1024 * 1024)] = 1024 * 1024
    """Of all values together, as they are sent; rows stop before it is passed."""
    max_value_bytes: Annotated[int, Meta(ge=64, le=1024 * 1024)] = 65_536
    """Of one value; what is longer is cut and makes the preview `truncated`."""


class PreviewColumn(Struct, frozen=True):
    name: str
    type: PortableType


class PreviewResult(Struct, frozen=True):
    """Values are JSON-safe, see `app.connectors.values.values`."""

    columns: tuple[PreviewColumn, ...]
    rows: list[list[Any]]
    truncated: bool
    """More rows exist, or a value was cut."""
    duration_ms: float


# Qualified names ----------------------------------------------------------------------------------------------------


def qualify(path: Sequence[str]) -> str:
    """One text for a path, unique and reversible: names are joined by dots, and one that is empty or holds a dot or a
    double quote is put in double quotes, its own doubled."""
    return ".".join(_quote(name) for name in path)


def unqualify(qualified_name: str) -> tuple[str, ...]:
    """The path of a qualified name. Raises `ValueError` if a quote is left open or stands in the middle of a name."""
    names: list[str] = []
    rest = qualified_name
    while True:
        name, rest = _take_name(rest)
        names.append(name)
        if not rest:
            return tuple(names)
        if not rest.startswith("."):
            raise ValueError("A quoted name is followed by a dot or nothing.")
        rest = rest[1:]


def _quote(name: str) -> str:
    if name and "." not in name and '"' not in name:
        return name
    return '"' + name.replace('"', '""') + '"'


def _take_name(text: str) -> tuple[str, str]:
    if not text.startswith('"'):
        name, dot, rest = text.partition(".")
        if '"' in name:
            raise ValueError("A double quote stands at the start of a name only.")
        return name, dot + rest
    end = 1
    while (end := text.find('"', end)) != -1:
        if text[end : end + 2] != '""':
            return text[1:end].replace('""', '"'), text[end + 1 :]
        end += 2
    raise ValueError("A quoted name has no end.")


# Steps --------------------------------------------------------------------------------------------------------------


class Steps:
    """Records the steps of a check as they happen. Discovery and preview walk the same way and throw the record away.

    `on_start` and `on_end` are told at once, so that a connector that is killed still shows where it stood.
    """

    def __init__(
        self,
        on_start: Callable[[StepName], None] | None = None,
        on_end: Callable[[Step], None] | None = None,
    ) -> None:
        self.done: list[Step] = []
        self.server: dict[str, str] = {}
        self._on_start = on_start
        self._on_end = on_end

    @contextmanager
    def step(self, name: StepName, passed: str) -> Iterator[None]:
        """`passed` is the sentence shown if the block ends well. An error makes the step failed and goes on."""
        started = time.perf_counter()
        if self._on_start:
            self._on_start(name)
        try:
            yield
        except ConnectorError as error:
            self._end(name, "failed", error.code, error.message, started)
            raise
        except MemoryError:
            self._end(name, "failed", "out_of_memory", OUT_OF_MEMORY, started)
            raise
        except Exception as error:
            self._end(name, "failed", "crashed", unexpected(error), started)
            raise
        self._end(name, "passed", "ok", passed, started)

    def skip(self, name: StepName, why: str) -> None:
        self._end(name, "skipped", "not_applicable", why, None)

    def _end(self, name: StepName, status: StepStatus, code: Code, message: str, started: float | None) -> None:
        duration_ms = 0.0 if started is None else elapsed_ms(started)
        explained = EXPLANATIONS[code]
        if status == "failed":
            message = f"{message} {explained.advice}"
        step = Step(name, status, code, message, duration_ms, explained.fault, explained.can_retry)
        self.done.append(step)
        if self._on_end:
            self._on_end(step)

    def result(self, duration_ms: float) -> TestResult:
        """The five steps in order. What was not walked is `not_reached` after a failure, `not_applicable` otherwise."""
        by_name = {step.name: step for step in self.done}
        failed = any(step.status == "failed" for step in self.done)
        steps = tuple(by_name.get(name) or _unwalked(name, after_failure=failed) for name in STEP_NAMES)
        status: TestStatus = "failed" if failed else "passed"
        if any(step.code in {"unsupported", "driver_missing"} for step in self.done):
            status = "unsupported"
        return TestResult(status, steps, self.server, duration_ms)


OUT_OF_MEMORY: Final = "The connector needed more memory than it is allowed."


def unexpected(error: BaseException) -> str:
    """Names the kind of error only: its text is not ours and may repeat anything."""
    return f"The connector stopped on an unexpected {type(error).__name__}."


def elapsed_ms(started: float) -> float:
    """Milliseconds since `started`, a reading of `time.perf_counter`."""
    return round((time.perf_counter() - started) * 1000, 3)


def _unwalked(name: StepName, *, after_failure: bool) -> Step:
    if after_failure:
        return Step(name, "skipped", "not_reached", "Not reached: an earlier step failed.", 0.0)
    return Step(name, "skipped", "not_applicable", EXPLANATIONS["not_applicable"].advice, 0.0)


# The way out --------------------------------------------------------------------------------------------------------


class Network:
    """The only way a connector learns an address. Each name is looked up once per run and stays what it was."""

    def __init__(self, policy: EgressPolicy) -> None:
        self.policy = policy
        self._pinned: dict[str, Pinned] = {}
        self._looked_up: list[str] = []
        self._local_ports: set[int] = set()

    async def resolve(self, host: str, port: int, timeout_s: float) -> Pinned:
        """Raises `ConnectorError` with `invalid_configuration`, `egress_refused` or `name_not_resolved`."""
        if known := self._pinned.get(host):
            return known
        try:
            self._looked_up.append(host)
            pinned = await resolve(host, port, self.policy, timeout_s)
        except NotAHost as error:
            raise ConnectorError("invalid_configuration", _not_a_host(host)) from error
        except EgressRefused as error:
            raise ConnectorError("egress_refused", f"The hub may not connect to {host}: {error.reason}.") from error
        except NameNotResolved as error:
            raise ConnectorError("name_not_resolved", f"The name {host} does not resolve.") from error
        finally:
            self._looked_up.remove(host)
        self._pinned[host] = pinned
        return pinned

    def open_local_port(self, port: int) -> None:
        """Lets a driver reach a listener of this very process, such as `PinnedProxy`."""
        self._local_ports.add(port)

    def is_open_to(self, address: str, port: int) -> bool:
        """Whether the address was handed out, or is a listener of this process."""
        if address == "127.0.0.1" and port in self._local_ports:
            return True
        return any(address in pinned.addresses for pinned in self._pinned.values())

    def is_looking_up(self, name: str) -> bool:
        """Whether a look-up of this name is under way here."""
        return any(same_host(name, looked_up) for looked_up in self._looked_up)


def _not_a_host(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if host and colon and port.isdigit():
        return f"{text} is no host: the port goes into a field of its own, `port`."
    return f"{text!r} is neither a host name nor an address; it has no blanks, scheme or path."


def same_host(one: str, other: str) -> bool:
    """Whether two spellings mean one host."""
    try:
        return canonical_host(one) == canonical_host(other)
    except EgressRefused:
        return False


# The connector ------------------------------------------------------------------------------------------------------

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
    """Further modules that take long to import; a spare process has them ready."""
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
    def identity(cls, config: ConfigT) -> dict[str, Any]:
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


def config_schema(struct: type[Struct]) -> dict[str, Any]:
    """JSON Schema 2020-12 of a config or secrets Struct; references stay inside it, under `$defs`."""
    (schema,), components = msgspec.json.schema_components([struct], ref_template="#/$defs/{name}")
    root = components.pop(struct.__name__, schema)
    document: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema", **root}
    if components:
        document["$defs"] = components
    return document


def secrets_schema(struct: type[Struct]) -> dict[str, Any]:
    """As `config_schema`, every field marked as one that can be written and never read."""
    document = config_schema(struct)
    for field in document.get("properties", {}).values():
        field["writeOnly"] = True
    return document
