"""P1: what one would build instead: FastAPI, SQLModel over SQLAlchemy's async engine, pydantic answers, uvicorn.

As its tutorials show it: one session per request, a bearer JWT checked and its user loaded on every call. Against the
same rows as the hub, without audit rows and events, and without tenants but where a list needs one to walk the hub's
index.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar
from uuid import UUID

import jwt
import uuid_utils.compat
from fastapi import Depends, FastAPI, HTTPException, Query, status
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import ARRAY, Column, DateTime, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlmodel import Field, Relationship, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

_POOL_SIZE = int(os.environ["BENCH_POOL_SIZE"])
_TENANT = UUID(os.environ["BENCH_TENANT_ID"])
_SECRET = os.environ["BENCH_JWT_SECRET"]

engine = create_async_engine(
    os.environ["BENCH_DATABASE_URL"].replace("postgresql://", "postgresql+asyncpg://"),
    pool_size=_POOL_SIZE,
    max_overflow=0,
)
sessions = async_sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)


def _now() -> datetime:
    return datetime.now(UTC)


class User(SQLModel, table=True):
    __tablename__ = "users"
    id: UUID = Field(primary_key=True)
    email: str
    is_active: bool


class RoleIn(SQLModel):
    name: str
    description: str | None = None
    permissions: list[str] = Field(default_factory=list, sa_column=Column(ARRAY(Text), nullable=False))


class Role(RoleIn, table=True):
    __tablename__ = "roles"
    id: UUID = Field(primary_key=True, default_factory=uuid_utils.compat.uuid7)
    tenant_id: UUID
    name_key: str
    owner_role_id: UUID | None = None
    is_system: bool = False
    is_requestable: bool = False
    requires_mfa: bool = False
    created_at: datetime = Field(sa_column=Column(DateTime(timezone=True)), default_factory=_now)
    updated_at: datetime = Field(sa_column=Column(DateTime(timezone=True)), default_factory=_now)
    created_by: UUID | None = None
    updated_by: UUID | None = None
    version: int = 1


class RoleOut(SQLModel):
    id: UUID
    name: str
    description: str | None
    permissions: list[str]
    owner_role_id: UUID | None
    is_system: bool
    is_requestable: bool
    requires_mfa: bool
    created_at: datetime
    updated_at: datetime
    created_by: UUID | None
    updated_by: UUID | None
    version: int


class DataSourceSecret(SQLModel, table=True):
    __tablename__ = "data_source_secrets"
    data_source_id: UUID = Field(primary_key=True, foreign_key="data_sources.id")
    name: str = Field(primary_key=True)
    reference: str | None = None
    version: int
    updated_at: datetime = Field(sa_column=Column(DateTime(timezone=True)))
    updated_by: UUID | None = None


class DataSource(SQLModel, table=True):
    __tablename__ = "data_sources"
    id: UUID = Field(primary_key=True)
    tenant_id: UUID
    name_key: str
    name: str
    description: str | None = None
    type: str
    category: str
    config: dict[str, Any] = Field(sa_column=Column(JSONB))
    tags: list[str] = Field(sa_column=Column(ARRAY(Text)))
    owner_role_id: UUID | None = None
    data_domain_id: UUID | None = None
    is_paused: bool = False
    test_interval_s: int | None = None
    discover_schedule: str | None = None
    discover_time_zone: str = "UTC"
    next_discovery_at: datetime | None = Field(sa_column=Column(DateTime(timezone=True)))
    status: str
    status_since: datetime | None = Field(sa_column=Column(DateTime(timezone=True)))
    last_tested_at: datetime | None = Field(sa_column=Column(DateTime(timezone=True)))
    created_at: datetime = Field(sa_column=Column(DateTime(timezone=True)))
    updated_at: datetime = Field(sa_column=Column(DateTime(timezone=True)))
    created_by: UUID | None = None
    updated_by: UUID | None = None
    version: int = 1
    sealed: list[DataSourceSecret] = Relationship(sa_relationship_kwargs={"lazy": "joined"})

    @property
    def secrets(self) -> dict[str, "SecretOut"]:
        return {each.name: _secret(each) for each in self.sealed}


def _secret(kept: DataSourceSecret) -> "SecretOut":
    source = "stored" if kept.reference is None else "reference"
    return SecretOut(
        version=kept.version, updated_at=kept.updated_at, updated_by=kept.updated_by, source=source, ref=kept.reference
    )


class SecretOut(SQLModel):
    set: bool = True
    version: int
    updated_at: datetime
    updated_by: UUID | None
    source: str
    ref: str | None


class DataSourceOut(SQLModel):
    id: UUID
    name: str
    description: str | None
    type: str
    category: str
    config: dict[str, Any]
    secrets: dict[str, SecretOut]
    tags: list[str]
    owner_role_id: UUID | None
    data_domain_id: UUID | None
    is_paused: bool
    test_interval_s: int | None
    discover_schedule: str | None
    discover_time_zone: str
    next_discovery_at: datetime | None
    status: str
    status_since: datetime | None
    last_tested_at: datetime | None
    created_at: datetime
    updated_at: datetime
    created_by: UUID | None
    updated_by: UUID | None
    version: int


class Roles(SQLModel):
    items: list[RoleOut]
    next_cursor: str | None = None
    total: int | None = None


class DataSources(SQLModel):
    items: list[DataSourceOut]
    next_cursor: str | None = None
    total: int | None = None


Listed = TypeVar("Listed", Role, DataSource)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


async def session() -> AsyncIterator[AsyncSession]:
    async with sessions() as opened:
        yield opened


Session = Annotated[AsyncSession, Depends(session)]
Bearer = Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]


async def current_user(bearer: Bearer, db: Session) -> User:
    try:
        claims = jwt.decode(bearer.credentials, _SECRET, algorithms=["HS256"])
    except jwt.InvalidTokenError:
        raise HTTPException(status.HTTP_401_UNAUTHORIZED) from None
    user = await db.get(User, UUID(claims["sub"]))
    if user is None or not user.is_active:
        raise HTTPException(status.HTTP_401_UNAUTHORIZED)
    return user


def _of_tenant(model: type[Listed]) -> SelectOfScalar[Listed]:
    """In the order of the hub's index, which begins with the tenant."""
    return select(model).where(col(model.tenant_id) == _TENANT).order_by(col(model.created_at), col(model.id))


CurrentUser = Annotated[User, Depends(current_user)]
Limit = Annotated[int, Query(ge=1, le=200)]


@app.get("/roles/{role_id}", response_model=RoleOut)
async def get_role(role_id: UUID, db: Session, _: CurrentUser) -> Role:
    role = await db.get(Role, role_id)
    if role is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND)
    return role


@app.get("/roles", response_model=Roles)
async def list_roles(db: Session, _: CurrentUser, limit: Limit = 50) -> dict[str, Any]:
    return {"items": (await db.exec(_of_tenant(Role).limit(limit))).all()}


@app.get("/data-sources/{source_id}", response_model=DataSourceOut)
async def get_source(source_id: UUID, db: Session, _: CurrentUser) -> DataSource:
    source = await db.get(DataSource, source_id)
    if source is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND)
    return source


@app.get("/data-sources", response_model=DataSources)
async def list_sources(db: Session, _: CurrentUser, limit: Limit = 50) -> dict[str, Any]:
    ordered = _of_tenant(DataSource).limit(limit)
    return {"items": (await db.exec(ordered)).unique().all()}


@app.post("/roles", response_model=RoleOut, status_code=status.HTTP_201_CREATED)
async def create_role(data: RoleIn, db: Session, user: CurrentUser) -> Role:
    made = {"tenant_id": _TENANT, "name_key": data.name.casefold(), "created_by": user.id, "updated_by": user.id}
    role = Role.model_validate(data, update=made)
    db.add(role)
    await db.commit()
    await db.refresh(role)
    return role
