"""The database: the base of all tables, the repository, the engine for changes, and what failures mean to a caller."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from functools import cache
from typing import Any, ClassVar, TypeVar
from uuid import UUID

import asyncpg
import msgspec
from advanced_alchemy.base import AdvancedDeclarativeBase, CommonTableAttributes, orm_registry
from advanced_alchemy.mixins import AuditColumns, UUIDv7PrimaryKey
from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from advanced_alchemy.types import DateTimeUTC
from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    ForeignKey,
    Select,
    Text,
    Uuid,
    bindparam,
    event,
    func,
    literal_column,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSON
from sqlalchemy.engine import Connection as EngineConnection
from sqlalchemy.engine import ExceptionContext, make_url
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import (
    InstrumentedAttribute,
    Mapped,
    ORMExecuteState,
    Session,
    SessionTransaction,
    declared_attr,
    mapped_column,
)
from sqlalchemy.orm.exc import StaleDataError
from sqlalchemy.orm.util import identity_key
from sqlalchemy.types import UserDefinedType

from app.core import rows
from app.core.change_pool import ChangePool
from app.core.error_codes import TakenCode
from app.core.errors import (
    BadRequest,
    Conflict,
    Fault,
    HubError,
    InternalError,
    NotFound,
    PreconditionFailed,
    Unavailable,
)
from app.core.tenancy import TENANT_SETTING

METADATA = orm_registry.metadata
orm_registry.update_type_annotation_map({str: Text()})
Selection = Select[Any]
"""Of whatever columns its Struct has."""
CompoundSelection = CompoundSelect[Any]
Attribute = InstrumentedAttribute[Any]
S = TypeVar("S", bound=msgspec.Struct)

DATABASE_ERRORS = (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError)
"""All that a failing database raises: what asyncpg says while a connection is made reaches the caller as it is."""

CONNECT_TIMEOUT_S = 5.0
POOL_TIMEOUT_S = 5.0
READ_LOCK_TIMEOUT_S = 2.0
"""Reads wait for nobody but for whoever changes or locks a whole table."""
CHANGE_LOCK_TIMEOUT_S = 10.0
GOODBYE_S = 2.0


class Base(CommonTableAttributes, AdvancedDeclarativeBase):
    """Tables that are not entities: links, records, queues."""

    __abstract__ = True
    registry = orm_registry


@event.listens_for(Base, "before_insert", propagate=True)
def _refuse_gaps(_mapper: object, _connection: object, row: Base) -> None:
    rows.refuse_gaps(row)


class Entity(UUIDv7PrimaryKey, AuditColumns, Base):
    """What every entity carries. `version` guards each UPDATE: a change made on an old copy fails (StaleDataError)."""

    __abstract__ = True
    _sentinel = None  # type: ignore[assignment]  # the mixin's bulk-insert column; ids are made here, so rows need no other mark

    updated_at: Mapped[datetime] = mapped_column(DateTimeUTC(timezone=True), sort_order=3003)
    """Set by `UnitOfWork.touch`, not by every UPDATE as the mixin has it: what `version` leaves out leaves it alone."""
    created_by: Mapped[UUID | None] = mapped_column(sort_order=3004, default=None)
    updated_by: Mapped[UUID | None] = mapped_column(sort_order=3005, default=None)
    version: Mapped[int] = mapped_column(sort_order=3006, default=1)

    @declared_attr.directive
    def __mapper_args__(cls) -> dict[str, object]:  # noqa: N805
        return {"version_id_col": cls.version}


class Tenanted:
    """A row that belongs to one tenant; every select of a repository carries the predicate."""

    tenant_id: Mapped[UUID] = mapped_column(Uuid, ForeignKey("tenants.id"), sort_order=-90)


M = TypeVar("M", bound=Base)


class TransactionId(UserDefinedType[int]):
    """PostgreSQL's `xid8`: counted up as long as a cluster lives, and begun anew in another one."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        return "xid8"


class Repository(SQLAlchemyAsyncRepository[M]):
    """One table's rows, those of one tenant where they belong to tenants. Changes go through the library's own methods
    (`add`, `get_one`, `update`, `delete`, `exists`, `get_many`), each of which sees that tenant's rows alone.

    `selection` is the one place that says how rows become a Struct, whichever path runs it.
    """

    computed: ClassVar[Mapping[str, ColumnElement[Any] | Attribute]] = {}
    """Struct fields that are not columns of the table, or columns of another name."""

    def __init__(self, session: AsyncSession, *, tenant_id: UUID | None = None) -> None:
        """`tenant_id` is left out by those who name it in each call (`read`), or learn it from the row."""
        model: Any = self.model_type
        mine = None if tenant_id is None else select(model).where(model.tenant_id == tenant_id)
        super().__init__(statement=mine, session=session, auto_refresh=False, auto_expunge=False, wrap_exceptions=False)

    @staticmethod
    def check_not_found(item_or_none: M | None) -> M:
        if item_or_none is None:
            raise NotFound
        return item_or_none

    async def get(self, item_id: object, **options: Any) -> M:
        """A row that the session holds, which is one that it locked before it changes it, is not read a second time:
        `update` and `delete` ask for it, and cost one statement.
        """
        if not any(options.values()):
            held: M | None = self.session.identity_map.get(identity_key(self.model_type, item_id))
            if held is not None:
                return held
        return await super().get(item_id, **options)

    @classmethod
    def selection(cls, struct: type[msgspec.Struct]) -> Selection:
        """The columns for a Struct, in its order, of one tenant (bound as `tenant_id`)."""
        model: Any = cls.model_type
        columns = [
            cls.computed[name] if name in cls.computed else getattr(model, name) for name in struct.__struct_fields__
        ]
        statement = select(
            *(column.label(name) for name, column in zip(struct.__struct_fields__, columns, strict=True))
        )
        if issubclass(model, Tenanted):
            statement = statement.where(model.tenant_id == bindparam("tenant_id", type_=model.tenant_id.type))
        return statement

    @classmethod
    def selection_by_id(cls, struct: type[msgspec.Struct]) -> Selection:
        model: Any = cls.model_type
        return cls.selection(struct).where(model.id == bindparam("id", type_=model.id.type))

    @classmethod
    def shown(cls, row: M, struct: type[S]) -> S:
        """A row of this transaction as the Struct that `selection` would read: nothing is asked of the database."""
        return struct(*(getattr(row, name) for name in cls._attributes_of(struct)))

    @classmethod
    def shown_as_inserted(cls, columns: Mapping[str, Any], struct: type[S]) -> S:
        """As `shown`, of a row that was inserted with these columns, without its model."""
        return struct(*(columns[name] for name in cls._attributes_of(struct)))

    @classmethod
    @cache
    def _attributes_of(cls, struct: type[msgspec.Struct]) -> tuple[str, ...]:
        return tuple(map(cls._attribute_of, struct.__struct_fields__))

    @classmethod
    def _attribute_of(cls, field: str) -> str:
        """Raises TypeError for what only the database can compute."""
        if field not in cls.computed:
            return field
        column = cls.computed[field]
        if not isinstance(column, InstrumentedAttribute):
            raise TypeError(f"{field} is computed by the database: use `read`.")
        return column.key

    async def read(self, struct: type[S], **parameters: object) -> S:
        """One row by `selection_by_id` inside the present transaction. Raises NotFound."""
        row = (await self.session.execute(self.selection_by_id(struct), parameters)).one_or_none()
        if row is None:
            raise NotFound
        return struct(**row._mapping)


class _Nobody:
    """Stands for a tenant of which is not known whether the server has taken it in."""


class Connection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """Says goodbye without keeping anybody waiting, and is in one tenant, or in none.

    Outside of transactions it is in the one that it entered last; each transaction is in the one that was named for it,
    or in none.
    """

    _goodbyes: ClassVar[set[asyncio.Task[None]]] = set()
    query_logger: ClassVar[Callable[[Any], None] | None] = None
    """Told of each statement that is not SQLAlchemy's, where traces are sent; of connections that are made from then
    on."""
    tenant_id: UUID | None | _Nobody = None
    """That it entered last."""
    _next_tenant_id: UUID | None = None

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        if Connection.query_logger is not None:
            self.add_query_logger(Connection.query_logger)

    async def enter(self, tenant_id: UUID | None) -> None:
        """A round trip; whoever is in that tenant already need not call this."""
        self.tenant_id = _Nobody()  # whatever comes in between, it enters anew
        await super().execute(f"SET {TENANT_SETTING} = '{_written(tenant_id)}'")
        self.tenant_id = tenant_id

    async def enter_in_transaction(self, tenant_id: UUID | None) -> None:
        """Until the transaction ends. A round trip."""
        await super().execute(f"SET LOCAL {TENANT_SETTING} = '{_written(tenant_id)}'")

    def name_tenant(self, tenant_id: UUID | None) -> None:
        """Of the transaction that begins next; nothing is sent before it does."""
        self._next_tenant_id = tenant_id

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        """A transaction begins in its tenant, in the same round trip."""
        if query.startswith("BEGIN"):
            tenant_id, self._next_tenant_id = self._next_tenant_id, None
            query += f"SET LOCAL {TENANT_SETTING} = '{_written(tenant_id)}'"
        done: str = await super().execute(query, *args, timeout=timeout)
        return done

    async def close(self, *, timeout: float | None = None) -> None:
        """Returns at once where there is a timeout: SQLAlchemy closes so what it gives up, in the middle of a request
        whose own time is over, and a server that has fallen silent would use all of it."""
        if timeout is None:
            await super().close()
        else:
            self.abandon(timeout)

    def abandon(self, timeout_s: float = GOODBYE_S) -> None:
        """In whatever it is in the middle of: a statement that nobody waits for any more is ended on the server too."""
        goodbye = asyncio.create_task(self._say_goodbye(timeout_s))
        self._goodbyes.add(goodbye)
        goodbye.add_done_callback(self._goodbyes.discard)

    async def _say_goodbye(self, timeout_s: float) -> None:
        """asyncpg drops the connection if the server does not answer."""
        with suppress(*DATABASE_ERRORS):
            await super().close(timeout=timeout_s)


def _written(tenant_id: UUID | None) -> str:
    """Raises TypeError for what is no UUID: it stands in a statement as it is."""
    if tenant_id is None:
        return ""
    if not isinstance(tenant_id, UUID):
        raise TypeError(f"{tenant_id!r} names no tenant")
    return str(tenant_id)


def create_engine(url: str, *, pool_size: int, timeout_s: float) -> AsyncEngine:
    """The engine for changes. A statement ends after `timeout_s`, waiting for a connection after five seconds."""
    engine = create_async_engine(
        make_url(url).set(drivername="postgresql+asyncpg"),
        poolclass=ChangePool,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT_S,
        hide_parameters=True,  # an error's text ends in the log; a password's hash does not
        json_serializer=lambda value: msgspec.json.encode(value).decode(),
        json_deserializer=msgspec.json.decode,
        connect_args={
            "connection_class": Connection,
            "timeout": CONNECT_TIMEOUT_S,
            "command_timeout": timeout_s,
            "server_settings": server_settings("hub", timeout_s, lock_timeout_s=CHANGE_LOCK_TIMEOUT_S),
        },
    )
    event.listen(engine.sync_engine, "handle_error", _forget_broken_pool)
    event.listen(engine.sync_engine, "checkout", _pass_over_closed)
    return engine


def _pass_over_closed(connection: Any, _record: object, _proxy: object) -> None:
    """One that the server has closed while nobody had it: the pool gives another, and no change fails over it."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError


def _forget_broken_pool(context: ExceptionContext) -> None:
    """A connection that timed out on the client's side is of no more use, though the driver keeps it."""
    if isinstance(context.original_exception, asyncio.TimeoutError):
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = False


def driver_url(url: str) -> str:
    """As asyncpg itself takes it."""
    return url.replace("postgresql+asyncpg://", "postgresql://")


def server_settings(name: str, timeout_s: float, *, lock_timeout_s: float) -> dict[str, str]:
    """Of a connection: how long a statement may take, and how long of that it may wait for somebody else's lock."""
    return {
        "application_name": name,
        "statement_timeout": str(int(timeout_s * 1000)),
        "lock_timeout": str(int(min(timeout_s, lock_timeout_s) * 1000)),
        "idle_in_transaction_session_timeout": str(int(timeout_s * 2000)),
        "timezone": "UTC",
        "datestyle": "ISO",
    }


class _SessionInTenant(Session):
    """Each of its transactions begins in `info["tenant_id"]`."""


@event.listens_for(_SessionInTenant, "after_begin")
def _name_tenant(session: Session, _transaction: SessionTransaction, connection: EngineConnection) -> None:
    driver = connection.connection.driver_connection
    assert isinstance(driver, Connection)
    driver.name_tenant(session.info["tenant_id"])


@event.listens_for(_SessionInTenant, "do_orm_execute")
def _see_what_was_waited_for(execution: ORMExecuteState) -> None:
    """A row that is locked is how it is now, though the session has read it before: whoever held it may have changed it
    since. What the session itself has changed is written first."""
    statement = execution.statement
    if isinstance(statement, Select) and statement._for_update_arg is not None:
        if execution.session.dirty:
            execution.session.flush()
        execution.update_execution_options(populate_existing=True)


class Sessions:
    """Of changes, each of them in one tenant. One of no tenant sees what the functions of the owner answer, and nothing
    else."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._make = async_sessionmaker(
            engine, expire_on_commit=False, autoflush=False, sync_session_class=_SessionInTenant
        )

    def __call__(self, tenant_id: UUID | None) -> AsyncSession:
        return self._make(info={"tenant_id": tenant_id})

    @asynccontextmanager
    async def begin(self, tenant_id: UUID | None) -> AsyncIterator[AsyncSession]:
        """Committed at the end of the block, unless the block raises."""
        async with self(tenant_id) as session, session.begin():
            yield session


async def enter_tenant(session: AsyncSession, tenant_id: UUID) -> None:
    """From here to the end of its transaction: for what learns only from a row whose it is."""
    await session.execute(_ENTER, {"tenant_id": str(tenant_id)})


_ENTER = text(f"SELECT set_config('{TENANT_SETTING}', :tenant_id, true)")


def json_object(members: Mapping[str, ColumnElement[Any] | Attribute]) -> ColumnElement[Any]:
    """A JSON object of columns.

    Its names are part of the statement: as parameters they would be sent with every read.
    """
    arguments = [part for name, value in members.items() for part in (literal_column(f"'{name}'"), value)]
    return func.json_build_object(*arguments, type_=JSON)


INTERRUPTED = asyncpg.InternalClientError
"""What asyncpg raises where the server ended the connection between two of its calls."""

UNIQUE_SENTENCES: dict[str, tuple[str, TakenCode, str]] = {}
"""Constraint name to (field, code, sentence); filled by the models whose constraints a caller can break."""
IN_USE_SENTENCES: dict[str, str] = {}
"""Name of a foreign key to what a caller is told who deletes what it refers to."""


def explain(error: BaseException) -> HubError | None:
    """What a database failure means to the caller, by SQLSTATE; None where it is not a database failure.

    The sentence never shows SQL or a value. Source: PostgreSQL, Appendix A, Error Codes.
    """
    if isinstance(error, PoolTimeoutError | asyncpg.exceptions.TooManyConnectionsError):
        return Unavailable(code="database_busy")
    if isinstance(error, StaleDataError):
        return PreconditionFailed()
    cause = error.orig if isinstance(error, DBAPIError) else error
    state = getattr(cause, "sqlstate", None) or getattr(getattr(cause, "__cause__", None), "sqlstate", None)
    if isinstance(state, str):
        return _by_sqlstate(state, cause)
    if _is_connection_loss(error):
        return Unavailable(code="database_unavailable")
    return InternalError() if isinstance(error, SQLAlchemyError) else None


def _is_connection_loss(error: BaseException) -> bool:
    lost = (OSError, asyncio.TimeoutError, asyncpg.InterfaceError, asyncpg.ConnectionDoesNotExistError, INTERRUPTED)
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or isinstance(error, InterfaceError) or isinstance(error.orig, lost)
    return isinstance(error, lost)


def _by_sqlstate(state: str, cause: BaseException | None) -> HubError:
    match state:
        case "23505":
            known = UNIQUE_SENTENCES.get(_constraint(cause))
            if known is None:
                return Conflict(code="already_exists")
            field, code, sentence = known
            return Conflict(sentence, code=code, errors=[Fault(field, code, "is taken")])
        case "23503":
            return Conflict(IN_USE_SENTENCES.get(_constraint(cause)), code="still_in_use")
        case "0A000" if _is_outdated(cause):
            return Unavailable(code="database_migrated")
        case "40001" | "40P01" | "55P03":
            return Conflict(code="concurrent_change")
        case "57014" | "25P03":
            return Unavailable(code="database_timeout")
        case "53100" | "53200" | "53400":
            return Unavailable(code="database_full", retry_after_s=30)
        case "53300":
            return Unavailable(code="database_busy")
        case "54000" | "54001":
            return BadRequest(code="too_complex")
        case "42P01" | "42703" | "42883":
            return Unavailable(code="schema_outdated")  # what every statement of ours names is in the newest schema
        case "42501":
            return InternalError()
    return _by_class(state[:2])


def _by_class(state_class: str) -> HubError:
    match state_class:
        case "22":
            return BadRequest(code="value_not_storable")
        case "23":
            return BadRequest(code="constraint_violation")
        case "08" | "57" | "58":
            return Unavailable(code="database_unavailable")
        case "25":
            return Unavailable(code="database_read_only")
    return InternalError()


def _is_outdated(cause: BaseException | None) -> bool:
    """A table changed under a prepared statement; inside of a transaction nothing can be repeated."""
    found = (cause, getattr(cause, "__cause__", None))
    return any(isinstance(link, asyncpg.InvalidCachedStatementError) for link in found)


def _constraint(cause: BaseException | None) -> str:
    for link in (cause, getattr(cause, "__cause__", None)):
        if name := getattr(link, "constraint_name", None):
            return str(name)
    return ""
