"""Which rows make events on the wire, the list of them, and how they are read on and on."""

from datetime import datetime

from msgspec import structs
from sqlalchemy import ColumnElement, and_, bindparam, func, literal_column, select
from sqlalchemy.orm import aliased

from app.core.database import Repository
from app.core.event_names import TYPE_PREFIX
from app.core.extent import Scoped
from app.core.lists.filters import Column, choice_filter, text_filter, time_filter
from app.core.lists.listing import Listing, Sort
from app.core.reads import written
from app.domain.event_types import TYPES
from app.domain.events.models import OutboxEnd, OutboxEvent
from app.domain.events.schemas import EventOut

SKEW: ColumnElement[object] = literal_column("interval '5 minutes'")
"""An event's place in the order is later than its time by no more than this: by what passes before its transaction
first writes, and by what the clocks of two hubs differ."""
_NO_POSITION: ColumnElement[int] = literal_column("0")
_ANY_POSITION: ColumnElement[int] = literal_column(str(2**63 - 1))


class EventRepository(Repository[OutboxEvent]):
    model_type = OutboxEvent
    computed = {
        "specversion": literal_column("'1.0'"),
        "datacontenttype": literal_column("'application/json'"),
    }


def _is_from(name: str) -> ColumnElement[bool]:
    """Positions are nearly in the order of times: what is earlier by more than the skew says from which position on the
    events are looked at one by one."""
    moment, event = _moment(name), aliased(OutboxEvent, name="earlier")
    before = _position(event, event.time < moment - SKEW, event.time.desc(), otherwise=_NO_POSITION)
    return and_(OutboxEvent.time >= moment, OutboxEvent.position > before)


def _is_before(name: str) -> ColumnElement[bool]:
    moment, event = _moment(name), aliased(OutboxEvent, name="later")
    after = _position(event, event.time > moment + SKEW, event.time, otherwise=_ANY_POSITION)
    return and_(OutboxEvent.time < moment, OutboxEvent.position < after)


def _moment(name: str) -> ColumnElement[datetime]:
    return bindparam(name, type_=OutboxEvent.time.type)


def _position(
    event: type[OutboxEvent], is_beyond: ColumnElement[bool], order: Column, *, otherwise: ColumnElement[int]
) -> ColumnElement[int]:
    """Of the event next to a moment, on the far side of the skew. Looked up before, all of it: PostgreSQL lets nothing
    but a plain comparison into an index that stands behind row-level security."""
    is_placed = (event.tenant_id == bindparam("tenant_id", type_=event.tenant_id.type), event.position.is_not(None))
    found = select(event.position).where(*is_placed, is_beyond).order_by(order).limit(literal_column("1"))
    return select(func.coalesce(found.scalar_subquery(), otherwise)).scalar_subquery()


def _type(text: str) -> str:
    for known in (text, TYPE_PREFIX + text):
        if known in TYPES:
            return known
    raise ValueError("must be the type of an event, such as `role.created`")


EVENTS = Listing(
    EventRepository.selection(EventOut).where(OutboxEvent.position.is_not(None)),
    name="events",
    id_column=OutboxEvent.id,
    sorts={"position": Sort(OutboxEvent.position, "outbox_events_tenant_id_position_id_idx", is_filled=True)},
    default_sort="-position",
    scoped=Scoped(OutboxEvent.data_source_id, OutboxEvent.data_domain_id),
    filters={
        "type": structs.replace(
            choice_filter(OutboxEvent.type, TYPES, index="outbox_events_type_{sort}_idx"),
            parse=_type,
            description=f"As events show it; `{TYPE_PREFIX}` may be left out.",
        ),
        "subject": text_filter(
            OutboxEvent.subject, index="outbox_events_subject_{sort}_idx", description="As in `roles/<id>`."
        ),
        "from": structs.replace(
            time_filter(OutboxEvent.time, bound="from", description="At this moment or later."), where=_is_from
        ),
        "to": structs.replace(
            time_filter(OutboxEvent.time, bound="to", description="Before this moment."), where=_is_before
        ),
    },
)

END = written("SELECT last_position FROM outbox_ends WHERE tenant_id = $1", "tenant_id", table=OutboxEnd.__tablename__)
"""The last position that was given in the tenant; no row before the first one."""
READ_AT_ONCE = 200
BYTES_AT_ONCE = 1_000_000
"""Of events' data; one that is larger comes alone."""
NEXT = written(
    f"""SELECT {", ".join(f"sized.{name}" for name in EventOut.__struct_fields__)}, data_source_id, data_domain_id
        FROM (SELECT found.*, '1.0' AS specversion, 'application/json' AS datacontenttype,
                sum(size) OVER (ORDER BY position) - size AS size_before
              FROM (SELECT *, octet_length(data::text) AS size FROM outbox_events
                    WHERE tenant_id = $1 AND position > $2 ORDER BY position LIMIT {READ_AT_ONCE}) AS found) AS sized
        WHERE size_before < {BYTES_AT_ONCE} ORDER BY position""",  # noqa: S608 - names of ours
    "tenant_id",
    "after",
    table=OutboxEvent.__tablename__,
)
"""The events behind a position, with where they happened."""
