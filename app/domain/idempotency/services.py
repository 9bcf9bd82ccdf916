"""`Idempotency-Key`: the same key, principal, route and body replays the first answer (draft-ietf-httpapi-idempotency-key-header).

The record is written in the transaction of the change. A second request with the key that comes in meanwhile waits on the
record's row until the first has committed.
"""

import hmac
import re
from collections.abc import Awaitable, Callable
from functools import wraps
from hashlib import sha256
from typing import Any, TypeVar
from uuid import NAMESPACE_URL, UUID, uuid5

import msgspec
from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert

from app.core.answers import Answer
from app.core.errors import BadRequest, IdempotencyMismatch
from app.domain.idempotency.models import IdempotencyKey
from app.domain.requests import HubRequest
from app.domain.work import UnitOfWork

Handler = TypeVar("Handler", bound=Callable[..., Awaitable[Any]])
KEY_FORM = re.compile(r"[\x21-\x7e]{1,255}")
FIELD = "idempotency_keys.answer"


def idempotent(handler: Handler) -> Handler:
    """Wrap a handler that takes `request` and `work`; it runs inside of the transaction, around the handler."""

    @wraps(handler)
    async def replaying(*args: Any, request: HubRequest, work: UnitOfWork, **kwargs: Any) -> Answer[Any]:
        key = request.exchange.header(b"idempotency-key")
        if key is None:
            answer: Answer[Any] = await handler(*args, request=request, work=work, **kwargs)
            return answer
        record_id, fingerprint = _identify(request, work, key), await _fingerprint(request, work)
        if (replayed := await _first_answer(work, record_id, fingerprint)) is not None:
            return replayed
        answer = await handler(*args, request=request, work=work, **kwargs)
        await _keep(work, record_id, answer)
        return answer

    replaying.is_idempotent = True  # type: ignore[attr-defined]  # read by the OpenAPI document
    return replaying  # type: ignore[return-value]


def _identify(request: HubRequest, work: UnitOfWork, key: str) -> UUID:
    """Raises BadRequest for a key that is empty, too long or not printable ASCII."""
    if not KEY_FORM.fullmatch(key):
        raise BadRequest("The Idempotency-Key must be 1 to 255 printable ASCII characters.", code="invalid_idempotency_key")
    return uuid5(NAMESPACE_URL, f"{work.tenant_id} {work.actor_id} {request.scope['path']} {key}")


async def _fingerprint(request: HubRequest, work: UnitOfWork) -> bytes:
    secret = work.parts.key_ring.derive("idempotency fingerprints")
    return hmac.new(secret, await request.body(), sha256).digest()


async def _first_answer(work: UnitOfWork, record_id: UUID, fingerprint: bytes) -> Answer[Any] | None:
    """None where this is the first request with the key; its record is then part of the transaction."""
    values = {"id": record_id, "tenant_id": work.tenant_id, "fingerprint": fingerprint, "created_at": work.now}
    statement = insert(IdempotencyKey).values(values).on_conflict_do_nothing().returning(IdempotencyKey.id)
    if await work.session.scalar(statement) is not None:
        return None
    found = (
        await work.session.execute(select(IdempotencyKey.fingerprint, IdempotencyKey.answer).where(IdempotencyKey.id == record_id))
    ).one()
    if not hmac.compare_digest(found.fingerprint, fingerprint):
        raise IdempotencyMismatch
    opened = work.parts.key_ring.open(found.answer, tenant_id=work.tenant_id, row_id=record_id, field=FIELD)
    status, headers, body = msgspec.msgpack.decode(opened, type=tuple[int, list[tuple[bytes, bytes]], bytes])
    return Answer(status, [*headers, (b"idempotency-replayed", b"true")], body)


async def _keep(work: UnitOfWork, record_id: UUID, answer: Answer[Any]) -> None:
    packed = msgspec.msgpack.encode((answer.status_code, answer.wire_headers, answer.body))
    sealed = work.parts.key_ring.seal(packed, tenant_id=work.tenant_id, row_id=record_id, field=FIELD)
    await work.session.execute(update(IdempotencyKey).where(IdempotencyKey.id == record_id).values(answer=sealed))
