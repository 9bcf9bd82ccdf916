"""Where somebody holds a permission that they do not hold everywhere.

One shape for everything that lives in a scope: sources, what was found in them, their tests, jobs about them, and the
domains that they are in. A single thing is looked at by its `Place`; lists narrow their statement by a `Scoped`, so
that nothing is fetched to be dropped.
"""

from collections.abc import Callable, Iterator, Set
from typing import cast
from uuid import UUID

from msgspec import Struct
from sqlalchemy import ColumnElement, Uuid, any_, bindparam, false, or_
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import InstrumentedAttribute

UUIDS = ARRAY(Uuid)
Column = InstrumentedAttribute[UUID] | InstrumentedAttribute[UUID | None]


class Place(Struct, frozen=True):
    """Where a thing stands: what decides whether a scoped right reaches it."""

    source_id: UUID | None = None
    domain_id: UUID | None = None
    """The domain itself, or the one that the source is in."""
    owner_role_id: UUID | None = None
    """Of the source."""


class Extent(Struct, frozen=True, eq=False, weakref=True):
    """Which sources and domains a permission is held for: those named, those in the domains, those that roles own."""

    sources: frozenset[UUID] = frozenset()
    domains: frozenset[UUID] = frozenset()
    """With all domains below them."""
    owner_roles: frozenset[UUID] = frozenset()

    def covers(self, place: Place) -> bool:
        return (
            place.source_id in self.sources
            or place.domain_id in self.domains
            or place.owner_role_id in self.owner_roles
        )

    def includes(self, other: "Extent") -> bool:
        """Whether everything of the other is in this one, as far as names tell: a source of one that stands in a domain
        of the other is not looked up."""
        return self.sources >= other.sources and self.domains >= other.domains and self.owner_roles >= other.owner_roles

    def __or__(self, other: "Extent") -> "Extent":
        return Extent(self.sources | other.sources, self.domains | other.domains, self.owner_roles | other.owner_roles)

    def __and__(self, other: "Extent") -> "Extent":
        """What both name."""
        return Extent(self.sources & other.sources, self.domains & other.domains, self.owner_roles & other.owner_roles)

    @property
    def is_of_named_sources(self) -> bool:
        return bool(self.sources) and not self.domains and not self.owner_roles

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of those that are not empty: statements are built for each combination of them."""
        return tuple(name for name in self.__struct_fields__ if getattr(self, name))

    def values(self) -> dict[str, list[UUID]]:
        """For the parameters of `Scoped.where`."""
        return {f"extent_{name}": list(getattr(self, name)) for name in self.parts}


NOWHERE = Extent()


class Scoped(Struct, frozen=True):
    """The columns by which a list is narrowed to an extent: the one predicate for all that lives in a scope."""

    source_id: Column | None = None
    domain_id: Column | None = None
    owner_role_id: Column | None = None
    through: Callable[[ColumnElement[bool]], ColumnElement[bool]] = lambda condition: condition
    """From a condition on these columns to one on the list's rows, where they are another table's."""

    def where(self, parts: Set[str] | tuple[str, ...]) -> ColumnElement[bool]:
        """For an extent that has these parts."""
        return self.through(or_(false(), *self._conditions(parts)))

    def _conditions(self, parts: Set[str] | tuple[str, ...]) -> Iterator[ColumnElement[bool]]:
        columns = {"sources": self.source_id, "domains": self.domain_id, "owner_roles": self.owner_role_id}
        for name, column in columns.items():
            if name in parts and column is not None:
                yield cast(ColumnElement[bool], column == any_(bindparam(f"extent_{name}", type_=UUIDS)))
