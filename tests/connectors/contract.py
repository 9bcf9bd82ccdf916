"""What the contract tests ask of each type; `types/` answers, one file per type."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

CANARY = "canary-7f3a9c"
"""Part of every secret here; it may appear in nothing that a connector gives back."""

HASTY_S = 2.0
"""A time-out that is waited for: long enough for a name, a connection and a sign-in on a machine that is busy with other
things, so that it is the silent step that runs into it and none before."""

Running = TypeVar("Running")


class Start(Protocol):
    """Enters a context manager once per test run, whoever asks, and leaves it at the end of the run."""

    def __call__(self, server: Callable[..., AbstractContextManager[Running]], *args: Any) -> Running: ...


Values = dict[str, Any]
FieldFacts = tuple[str, str, str, bool]
"""Name, portable type, native type, nullable."""


@dataclass(frozen=True)
class Case:
    """A source that does not work: what is changed about the good one, and how the check has to end."""

    name: str
    step: str
    code: str
    config: Values = field(default_factory=dict)
    secrets: Values = field(default_factory=dict)


@dataclass(frozen=True)
class Ports:
    closed: int
    silent: int
    ssh: int


@dataclass(frozen=True)
class Kind:
    """Everything the contract asks about one type."""

    type: str
    config: Values
    secrets: Values
    cases: tuple[Case, ...]
    objects: dict[tuple[str, ...], tuple[str, tuple[FieldFacts, ...]]]
    """Path to kind and fields: all objects there are."""
    previews: dict[tuple[str, ...], list[list[Any]]]
    """Path to all of its rows; one at least has two rows and two columns."""
    statuses: tuple[str, ...] = ("passed", "passed", "skipped", "passed", "passed")
    """How the five steps of the good check end."""
    server: Values = field(default_factory=lambda: {"encryption": "none"})
    """Part of what the good check says of the server."""
    policy: Values = field(default_factory=lambda: {"loopback_allowed": True})
    """The `EgressPolicy` under which it works."""
    dials: bool = True
    """False for a type that opens files only: the egress policy has nothing to refuse."""
