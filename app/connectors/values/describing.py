"""Looking into the objects of a source one by one: what cannot be read hides nothing else.

An object that cannot be looked into is there with the fields that are known of it anyway, mostly none, and with a note
that says why. Where the fault may be the server's and not the object's, a few of them are borne; more end the
discovery, which then takes nothing away from what is known of all the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

import msgspec

from app.connectors.contract.failures import Code, ConnectorError
from app.connectors.contract.objects import DiscoveredField, DiscoveredObject
from app.connectors.contract.steps import unexpected

MAX_BORNE: Final = 5
"""Objects with a fault that may be the server's."""
_OF_THE_OBJECT: Final[frozenset[Code]] = frozenset(
    {
        *("response_invalid", "response_too_large", "permission_denied", "not_found", "unsupported"),
        *("driver_missing", "protocol_mismatch", "invalid_configuration"),
    }
)
_PERHAPS_OF_THE_SERVER: Final[frozenset[Code]] = frozenset({"server_error", "timeout", "rate_limited"})


class Description(msgspec.Struct, frozen=True):
    fields: Sequence[DiscoveredField]
    notes: Sequence[str] = ()


Look = Callable[[], Awaitable[Description]]


class Describer:
    """Of one discovery. `at_once` objects are looked into at a time; the only object of a source has nothing to hide,
    and what is wrong with it is raised. Some servers fail for single objects as a matter of course: `most_borne` is how
    many of theirs."""

    def __init__(self, at_once: int = 1, *, is_only_one: bool = False, most_borne: int = MAX_BORNE) -> None:
        self._turns = asyncio.Semaphore(at_once)
        self._is_only_one = is_only_one
        self._most_borne = most_borne
        self._borne = 0

    async def describe(
        self, path: Sequence[str], kind: str, look: Look, known: Sequence[DiscoveredField] = ()
    ) -> DiscoveredObject:
        """`known` are the fields of an object that cannot be looked into. Raises what is no fault of the object."""
        async with self._turns:
            try:
                found = await look()
            except MemoryError:
                raise
            except Exception as error:
                found = Description(known, [self._bear(error)])
        return DiscoveredObject.at(path, kind, found.fields, found.notes)

    def _bear(self, error: Exception) -> str:
        code = error.code if isinstance(error, ConnectorError) else None
        if code not in _OF_THE_OBJECT:
            self._borne += 1
        is_borne = code is None or code in _OF_THE_OBJECT or code in _PERHAPS_OF_THE_SERVER
        if self._is_only_one or not is_borne or self._borne > self._most_borne:
            raise error
        return error.message if isinstance(error, ConnectorError) else unexpected(error)


NO_COLUMNS: Final = "Its columns cannot be told: what it is made of is not there any more, or the user may not see it."


def described_row(
    path: Sequence[str], kind: str, fields: Callable[[], Sequence[DiscoveredField]], *, may_have_none: bool = False
) -> DiscoveredObject:
    """Of a catalogue that is read in one query: what cannot be understood of one object hides no others, and one
    without columns says so, unless such objects are made on purpose."""
    try:
        found = fields()
    except MemoryError:
        raise
    except Exception as error:
        return DiscoveredObject.at(path, kind, (), [unexpected(error)])
    return DiscoveredObject.at(path, kind, found, () if found or may_have_none else [NO_COLUMNS])


async def together(descriptions: Iterable[Awaitable[DiscoveredObject]]) -> list[DiscoveredObject]:
    return list(await asyncio.gather(*descriptions))
