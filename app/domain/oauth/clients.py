"""Clients: those that are built in, and those that a tenant has registered."""

from collections.abc import Callable
from uuid import UUID

from msgspec import Struct
from sqlalchemy import bindparam, select

from app.core.opaque_tokens import GivenToken, NewToken, name_of_place, new_token, read_name, read_token
from app.domain.oauth.endpoints import url_of
from app.domain.oauth.models import OAuthClient
from app.domain.oauth.redirects import is_loopback, is_registered
from app.domain.parts import Parts
from app.domain.tenants.models import Tenant
from app.domain.work import UnitOfWork

KIND = "dfo"
"""Of client ids: `dfo_<tenant and row>`."""
KIND_OF_SECRET = "dfs"  # noqa: S105
CLI = "hub-cli"
DOCS = "hub-docs"
DOCS_PAGE = "/docs/signed-in"


class Client(Struct, frozen=True, kw_only=True):
    """A program to which people sign in."""

    id: str | None
    """None: the hub's own API, for who has no client."""
    allows: Callable[[str], bool]
    """Whether a browser may be sent to a redirect URI."""
    tenant_id: UUID | None = None
    """Whose members alone sign in to it; None: everybody's."""
    tenant: str | None = None
    """That tenant's slug."""
    row_id: UUID | None = None
    secret_digest: bytes | None = None
    """None for a public client."""


HUBS_OWN = Client(id=None, allows=lambda _: False)
CLI_CLIENT = Client(id=CLI, allows=is_loopback)


async def find_client(parts: Parts, client_id: str) -> Client | None:
    """None for one that is not registered, or whose tenant is suspended."""
    if client_id == CLI:
        return CLI_CLIENT
    if client_id == DOCS:
        page = url_of(parts.settings, DOCS_PAGE)
        return Client(id=DOCS, allows=lambda uri: uri == page)
    place = read_name(KIND, client_id)
    if place is None:
        return None
    tenant_id, row_id = place
    rows = await parts.reads.rows(_CLIENT, {"row_id": row_id, "tenant_id": tenant_id})
    return _registered(client_id, tenant_id, row_id, *rows[0]) if rows else None


def _registered(
    client_id: str, tenant_id: UUID, row_id: UUID, uris: list[str], digest: bytes | None, slug: str
) -> Client:
    return Client(
        id=client_id,
        allows=lambda uri: is_registered(uri, uris),
        tenant_id=tenant_id,
        tenant=slug,
        row_id=row_id,
        secret_digest=digest,
    )


async def hold_client(work: UnitOfWork, client: Client) -> bool:
    """Until the transaction ends: whoever deletes it meanwhile waits, and ends what was opened for it. False for one
    that is gone. `work` is in its tenant."""
    if client.row_id is None:
        return True
    found = select(OAuthClient.id).where(OAuthClient.id == client.row_id)
    return await work.session.scalar(found.with_for_update(read=True, key_share=True)) is not None


_CLIENT = (
    select(OAuthClient.redirect_uris, OAuthClient.secret_digest, Tenant.slug)
    .join(Tenant, Tenant.id == OAuthClient.tenant_id)
    .where(
        OAuthClient.id == bindparam("row_id", type_=OAuthClient.id.type),
        OAuthClient.tenant_id == bindparam("tenant_id", type_=OAuthClient.tenant_id.type),
        Tenant.is_active,
    )
)


def client_id_of(tenant_id: UUID, row_id: UUID) -> str:
    return name_of_place(KIND, tenant_id, row_id)


def new_secret(tenant_id: UUID, row_id: UUID) -> NewToken:
    return new_token(KIND_OF_SECRET, tenant_id, row_id)


def is_secret_of(client: Client, given: str) -> bool:
    read: GivenToken | None = read_token(KIND_OF_SECRET, given)
    return read is not None and client.secret_digest is not None and read.fits(client.secret_digest)
