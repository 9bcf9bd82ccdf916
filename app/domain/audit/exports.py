"""The audit log in forms that come whole: one row in each line, exact in NDJSON, fit for spreadsheets in CSV."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from time import monotonic
from typing import Final

import msgspec

from app.core.exports import Chunks
from app.core.lists.listing import ListQuery, Page
from app.core.security import missing
from app.core.slices import give_way, in_slices
from app.core.spreadsheets import csv_line, disarmed
from app.domain.audit.repositories import AUDIT_EVENTS
from app.domain.audit.schemas import AuditEventOut
from app.domain.requests import HubRequest

NDJSON: Final = "application/x-ndjson"
CSV: Final = "text/csv"
READ: Final = "audit-events:read"
LOOK_EVERY_S: Final = 0.5
"""At whether the caller may still read."""
Pages = AsyncGenerator[Page[AuditEventOut], None]

_encoder = msgspec.json.Encoder()


def pages_of(request: HubRequest, query: ListQuery) -> Pages:
    tenant_id = request.principal.tenant_id
    return request.parts.reads.pages(AUDIT_EVENTS, query, AuditEventOut, tenant_id=tenant_id)


async def with_first(first: Page[AuditEventOut], pages: Pages, request: HubRequest) -> Pages:
    """The page that was looked at before the answer began, and the others for as long as the caller may read them.

    Raises Unauthenticated or Forbidden once they may not. That their access token runs out is no reason: it was good
    when they asked.
    """
    async with aclosing(pages):
        yield first
        looked_at = monotonic()
        async for page in pages:
            if monotonic() - looked_at >= LOOK_EVERY_S:
                await _require_right_to_read(request)
                looked_at = monotonic()
            yield page


async def _require_right_to_read(request: HubRequest) -> None:
    signed = await request.parts.principals.of(request.exchange.credential)
    if not signed.principal.may(READ):
        raise missing(signed.principal, READ)


async def as_lines(pages: Pages) -> Chunks:
    async with aclosing(pages):
        async for page in pages:
            if page.items:
                yield _encoder.encode_lines(page.items)
            await give_way()


async def as_csv(pages: Pages) -> Chunks:
    """RFC 4180 with a header line, as previews are: null is nothing, an empty text `""`, and what a spreadsheet would
    run as a formula has an apostrophe before it. Other people choose these texts: their names, their addresses, the ids
    of their requests."""
    yield csv_line(AuditEventOut.__struct_fields__).encode()
    async with aclosing(pages):
        async for page in pages:
            lines = [_csv_line(event) async for event in in_slices(page.items)]
            if lines:
                yield "".join(lines).encode()


def _csv_line(event: AuditEventOut) -> str:
    texts: dict[str, str | None] = msgspec.to_builtins(event, enc_hook=_as_text)
    return csv_line(map(disarmed, texts.values()))


def _as_text(document: object) -> str:
    """A stored document comes as the JSON that it is (`Reads`)."""
    assert isinstance(document, msgspec.Raw)
    return bytes(document).decode()
