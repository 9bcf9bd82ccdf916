"""`?dry_run=true`: who would gain and who would lose what by a change, and nothing of it done.

The change is carried out as ever, by the same rules and with the same refusals, in a transaction that is then undone:
what it says of itself is neither written nor told to anybody. Services say before they change something on which rights
hang (`before_change`); the handlers whose answer this changes are wrapped in `rehearsed`.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from functools import wraps
from typing import Any, TypeVar
from uuid import UUID

import msgspec
from msgspec import Struct

from app.core.answers import Answer, answer
from app.core.errors import BadRequest, Fault
from app.core.extent import Place
from app.core.faults import shown_name
from app.core.lists.parameters import parse_parameters
from app.core.security import Principal
from app.domain.dry_runs.schemas import PlaceOut, PlaceType, RightsChange, RightsLine
from app.domain.dry_runs.statements import AFTER, BEFORE, MOST_LINES, PLANNING
from app.domain.requests import HubRequest
from app.domain.roles.ownership import OWNER_BRINGS
from app.domain.work import UnitOfWork

Handler = TypeVar("Handler", bound=Callable[..., Awaitable[Any]])
MEDIA_TYPE = "application/vnd.dfh.rights-change+json"
"""Of its own, so that what a client knows of the real answer stays true: the types of generated clients go by it."""
DRY_RUN: dict[str, Mapping[str, object]] = {
    "dry_run": {
        "type": "boolean",
        "default": False,
        "description": "Show who would gain and who would lose which permissions, and change nothing.",
    }
}
"""For the `parameters` of a route whose handler is `rehearsed`."""


class Change(Struct, frozen=True, kw_only=True):
    """What is about to be changed."""

    kind: str
    """`role`: one that is held; `subject`: what is given to somebody at one place; `group`: who is in one, or that it
    is; `data_domain`: where one stands, who owns it, or that it is."""
    row_id: UUID
    at: datetime | None = None
    """For what takes effect later: the moment that is looked at."""
    subject_type: str = "user"
    scope_type: str = "tenant"
    scope_id: UUID | None = None
    user_id: UUID | None = None
    """Of a group, the one member whom it is about."""
    domain_ids: tuple[UUID, ...] = ()
    """Of a domain, itself and the one that it is moved into."""
    role_ids: tuple[UUID, ...] = ()
    """Of a domain, the role that will own it."""

    def values(self) -> dict[str, Any]:
        named = {name: getattr(self, name) for name in self.__struct_fields__ if name not in ("kind", "at")}
        return named | {"moment": self.at, "domain_ids": list(self.domain_ids), "role_ids": list(self.role_ids)}


class Rehearsal:
    """What was before the changes of one request."""

    def __init__(self) -> None:
        self._before: list[tuple[Change, str]] = []

    async def remember(self, work: UnitOfWork, change: Change) -> None:
        if not self._before:
            await work.session.execute(PLANNING)
        self._before.append((change, await self._run(work, BEFORE[change.kind], change.values())))

    async def outcome(self, work: UnitOfWork) -> RightsChange:
        report = RightsChange([], [], 0, False)
        for change, before in self._before:
            values = {"before": before, "moment": change.at}
            users, found, lines = await self._run(work, AFTER, values)
            is_shown = _may_see(work.actor, change)
            if is_shown:
                _add(report, msgspec.json.decode(lines, type=list[_Lines]))
            report.users += users
            report.truncated |= found > (MOST_LINES if is_shown else 0)
        return report

    async def _run(self, work: UnitOfWork, statement: Any, values: Mapping[str, Any]) -> Any:
        known = {"tenant_id": work.tenant_id, "owner_brings": sorted(OWNER_BRINGS), **values}
        wanted = {name: known[name] for name in statement.compile().params}
        row = (await work.session.execute(statement, wanted)).one()
        return row[0] if len(row) == 1 else row


def _may_see(actor: Principal, change: Change) -> bool:
    """Whoever changes rights sees whose. To write domains is no right to know who holds what in them, and to give a
    group something is none to know who is in it: that takes what the lists of them take."""
    if change.kind == "subject" and change.subject_type == "group":
        return actor.may("groups:read")
    return change.kind != "data_domain" or actor.may_at("role-assignments:read", Place(domain_id=change.row_id))


class _Lines(Struct):
    """Of all who change alike."""

    scope_type: PlaceType
    scope_id: UUID | None
    people: int
    users: list[UUID]
    gained: list[str]
    lost: list[str]


def _add(report: RightsChange, found: Iterable[_Lines]) -> None:
    for lines in found:
        for shown, permissions in ((report.gains, lines.gained), (report.loses, lines.lost)):
            room = MOST_LINES - len(report.gains) - len(report.loses)
            if permissions:
                place = PlaceOut(lines.scope_type, lines.scope_id)
                shown += [RightsLine(user, permissions, place) for user in lines.users[:room]]


async def before_change(work: UnitOfWork, change: Change) -> None:
    """To be called before something is changed on which rights hang, and after it was judged whether it may be."""
    if work.rehearsal is not None:
        await work.session.flush()
        await work.rehearsal.remember(work, change)


def rehearsed(handler: Handler) -> Handler:
    """Wrap a handler that takes `request` and `work`, around `idempotent` where that is there, too: a dry run is never
    the first answer to a key, nor a replayed one."""

    @wraps(handler)
    async def rehearsing(*args: Any, request: HubRequest, work: UnitOfWork, **kwargs: Any) -> Answer[Any]:
        if not _is_dry(request):
            answered: Answer[Any] = await handler(*args, request=request, work=work, **kwargs)
            return answered
        work.rehearsal = rehearsal = Rehearsal()
        await handler(*args, request=request, work=work, **kwargs)
        report = await rehearsal.outcome(work)
        await work.undo()
        return _told(request, report)

    rehearsing.is_rehearsed = True  # type: ignore[attr-defined]  # read by the OpenAPI document
    return rehearsing  # type: ignore[return-value]


def _is_dry(request: HubRequest) -> bool:
    """Raises BadRequest."""
    wanted = given_parameters(request).get("dry_run", "false")
    if wanted not in ("true", "false"):
        fault = Fault("dry_run", "invalid_parameter", "must be `true` or `false`")
        raise BadRequest(code="invalid_parameter", errors=[fault])
    return wanted == "true"


def given_parameters(request: HubRequest) -> dict[str, str]:
    """Raises BadRequest for those that the route does not take."""
    if not request.query_string:
        return {}
    given = parse_parameters(request.query_string)
    taken = request.route_handler.opt["access"].parameters
    faults = [
        Fault(shown_name(name, place), "invalid_parameter", "is not a parameter of this call")
        for place, name in enumerate(given, 1)
        if name not in taken
    ]
    if faults:
        raise BadRequest(code="invalid_parameter", errors=faults)
    return given


def _told(request: HubRequest, report: RightsChange) -> Answer[RightsChange]:
    response = answer(request.exchange, report)
    if not request.exchange.wants_msgpack:
        response.wire_headers = [(b"content-type", MEDIA_TYPE.encode())]
    return response
