"""A source that is not there: it does what its config says, so that clients and tests can rehearse without a server.

Everything follows from the config alone: which step fails and how, how long each takes, what is inside, and how that
drifts from one generation to the next. Nothing is dialled and no name looked up. Development only.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from app.connectors.contract.base import Connector
from app.connectors.contract.config import ConnectorConfig, ConnectorSecrets, Host, InvalidField, SecretText
from app.connectors.contract.failures import Code, ConnectorError
from app.connectors.contract.objects import (
    DiscoveredField,
    DiscoveredObject,
    PortableType,
    PreviewRequest,
    PreviewResult,
)
from app.connectors.contract.steps import STEP_NAMES, StepName, Steps
from app.connectors.values.preview import Preview

_BATCH: Final = 200
_PASSED: Final[dict[StepName, str]] = {
    "resolve": "The name resolves, as it was told to.",
    "connect": "The connection stands, as it was told to.",
    "tls": "The certificate is good, as it was told to be.",
    "authenticate": "The credentials are good, as they were told to be.",
    "list": "The contents can be listed, as they were told to be.",
}
_NOT_FAILURES: Final = frozenset({"ok", "not_applicable", "not_reached"})

DelayMs = Annotated[int, Meta(ge=0, le=60_000)]


class Delays(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Milliseconds that each step takes; `batch` and `row` slow discovery and preview down."""

    resolve: DelayMs = 0
    connect: DelayMs = 0
    tls: DelayMs = 0
    authenticate: DelayMs = 0
    list: DelayMs = 0
    batch: DelayMs = 0
    row: DelayMs = 0


class SimulatedConfig(ConnectorConfig, frozen=True, kw_only=True):
    host: Annotated[Host, Meta(description="A name that is never looked up; where the password is said to go.")] = (
        "simulated.invalid"
    )
    fail_at: Annotated[StepName | None, Meta(description="The step that fails. Unset: none.")] = None
    fail_code: Annotated[Code, Meta(description="The code with which it fails.")] = "server_error"
    misbehaviour: Annotated[
        Literal["none", "hang", "crash", "exhaust_memory"],
        Meta(description="What the driver does to its process in the last step, in discovery and in preview."),
    ] = "none"
    delays_ms: Annotated[Delays, Meta(description="Milliseconds that each part takes.")] = Delays()
    with_tls: Annotated[bool, Meta(description="Whether there is a TLS step.")] = False
    objects: Annotated[int, Meta(ge=0, le=1_000_000, description="Objects to be found.")] = 3
    stops_after: Annotated[
        Annotated[int, Meta(ge=0, le=1_000_000)] | None,
        Meta(description="Objects after which discovery stops early. Unset: never."),
    ] = None
    fields: Annotated[int, Meta(ge=1, le=500, description="Fields of each object.")] = 5
    rows: Annotated[int, Meta(ge=0, le=1_000_000, description="Rows of each object.")] = 10
    generation: Annotated[
        int, Meta(ge=0, le=1_000_000, description="Raise it by one for the source to have drifted once.")
    ] = 0
    drift: Annotated[
        int,
        Meta(
            ge=0, le=1000, description="Objects that each generation takes away at the front and adds at the end; as "
            "many more change the type of their last field.",
        ),
    ] = 1  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fail_code in _NOT_FAILURES:
            raise InvalidField(("fail_code",), f"fail_code: {self.fail_code} is no failure.")


class SimulatedSecrets(ConnectorSecrets, frozen=True, kw_only=True):
    password: Annotated[SecretText | None, Meta(description="Any text; it is kept, bound and never shown.")] = None


class Simulated(Connector[SimulatedConfig, SimulatedSecrets]):
    type = "simulated"
    label = "Simulated"
    category = "database"
    description = "A rehearsal: steps, failures, contents and drift as configured. Nothing is dialled."
    config_type = SimulatedConfig
    secrets_type = SimulatedSecrets
    is_rehearsal = True
    destination_fields = frozenset({"host", "with_tls"})

    async def check(self, steps: Steps) -> None:
        steps.server |= {"product": "Simulated", "version": "1", "encryption": "TLSv1.3" if self._has_tls else "none"}
        for name in STEP_NAMES:
            if name == "tls" and not self._has_tls:
                steps.skip(name, "The source is configured without TLS.")
                continue
            with steps.step(name, _PASSED[name]):
                await self._walk(name)

    async def discover(self) -> AsyncIterator[list[DiscoveredObject]]:
        await self._enter()
        first, objects, stops_after = self._first, self.config.objects, self.config.stops_after
        if stops_after is not None and stops_after < objects:
            self.stopped_because = f"There are more objects than stops_after ({stops_after:,})."
            objects = stops_after
        for start in range(first, first + objects, _BATCH):
            await _pause(self.config.delays_ms.batch)
            yield [self._object(number) for number in range(start, min(start + _BATCH, first + objects))]

    async def preview(self, request: PreviewRequest) -> PreviewResult:
        preview = Preview(request)
        await self._enter()
        fields = self._fields(self._number_of(request.path))
        columns = preview.choose(fields)
        for row in range(self.config.rows):
            await _pause(self.config.delays_ms.row)
            if not preview.add([_VALUES[column.type](row) for column in columns]):
                break
        return preview.result()

    # What is inside ---------------------------------------------------------------------------------------------------

    @property
    def _has_tls(self) -> bool:
        return self.config.with_tls or self.config.fail_at == "tls"

    @property
    def _first(self) -> int:
        return self.config.generation * self.config.drift

    def _object(self, number: int) -> DiscoveredObject:
        return DiscoveredObject.at(("simulated", f"object_{number:06}"), "table", self._fields(number))

    def _fields(self, number: int) -> tuple[DiscoveredField, ...]:
        names = tuple(_VALUES)
        types: list[PortableType] = [names[place % len(names)] for place in range(self.config.fields)]
        if number < self._first + self.config.drift and self.config.generation:
            types[-1] = names[(names.index(types[-1]) + 1) % len(names)]
        return tuple(
            DiscoveredField(f"field_{place}", portable, f"simulated_{portable}", place > 1, place)
            for place, portable in enumerate(types, 1)
        )

    def _number_of(self, path: tuple[str, ...]) -> int:
        digits = path[-1].removeprefix("object_") if len(path) == 2 and path[0] == "simulated" else ""
        number = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else -1
        if not self._first <= number < self._first + self.config.objects or self._object(number).path != path:
            raise ConnectorError("not_found", "There is no such object in this generation.")
        return number

    # What it does -----------------------------------------------------------------------------------------------------

    async def _enter(self) -> None:
        """Discovery and preview fail as the check would."""
        for name in STEP_NAMES:
            await self._walk(name)

    async def _walk(self, name: StepName) -> None:
        await _pause(getattr(self.config.delays_ms, name))
        if name == self.config.fail_at:
            code = self.config.fail_code
            raise ConnectorError(code, f"The step was told to fail with {code}.")
        if name == "list":
            _misbehave(self.config.misbehaviour)


def _misbehave(how: str) -> None:
    if how == "hang":
        time.sleep(3600)
    elif how == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif how == "exhaust_memory":
        hoard = [bytearray(64 * 1024 * 1024) for _ in range(64)]
        del hoard


async def _pause(milliseconds: int) -> None:
    if milliseconds:
        await asyncio.sleep(milliseconds / 1000)


_VALUES: Final[dict[PortableType, Callable[[int], object]]] = {
    "integer": lambda row: row + 1,
    "string": lambda row: f"text {row + 1}",
    "decimal": lambda row: f"{row}.50",
    "timestamp_tz": lambda row: f"2024-01-02T03:{row // 60 % 60:02}:{row % 60:02}Z",
    "boolean": lambda row: row % 2 == 0,
    "json": lambda row: {"row": row + 1},
    "date": lambda row: f"2024-01-{row % 28 + 1:02}",
    "number": lambda row: row / 4,
}
