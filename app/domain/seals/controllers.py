"""Seals over the audit log: read only, for everyone who may read the log."""

from uuid import UUID

from litestar import get
from litestar.params import FromPath

from app.core.answers import Answer, answer
from app.core.lists.listing import Page
from app.core.outcomes import outcomes
from app.core.security import requires
from app.domain.requests import HubRequest
from app.domain.seals.repositories import AUDIT_SEALS
from app.domain.seals.schemas import AuditSealOut, InclusionProof
from app.domain.seals.services import prove, seal_of


@get(
    "/audit-seals",
    opt=requires("audit-events:read", listing=AUDIT_SEALS),
    tags=["audit"],
    summary="List seals",
)
async def list_audit_seals(request: HubRequest) -> Answer[Page[AuditSealOut]]:
    """The newest first. Each covers the rows between two positions of the tenant's audit log, and holds the hash of the
    seal before."""
    query, tenant_id = AUDIT_SEALS.parse(request.query_string), request.principal.tenant_id
    page = await request.parts.reads.page(AUDIT_SEALS, query, AuditSealOut, tenant_id=tenant_id)
    return answer(request.exchange, page)


@get("/audit-seals/{number:int}", opt=requires("audit-events:read"), tags=["audit"], summary="Get a seal")
async def get_audit_seal(request: HubRequest, number: FromPath[int]) -> Answer[AuditSealOut]:
    seal = await seal_of(request.parts.reads, request.principal.tenant_id, number)
    return answer(request.exchange, seal)


@get(
    "/audit-events/{event_id:uuid}/proof",
    opt=requires("audit-events:read") | outcomes("not_sealed_yet"),
    tags=["audit"],
    summary="Prove that an audit event is sealed",
)
async def get_audit_proof(request: HubRequest, event_id: FromPath[UUID]) -> Answer[InclusionProof]:
    """The way from the row's leaf to the root that the seal signs (RFC 9162). A row is sealed about a second after it
    was written; one that was removed because of its age has no proof any more."""
    proof = await prove(request.parts.reads, request.principal.tenant_id, event_id)
    return answer(request.exchange, proof)
