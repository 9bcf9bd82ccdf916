"""`Idempotency-Key`: the same key, principal, route and body replays the first answer
(draft-ietf-httpapi-idempotency-key-header).

The record is written in the transaction of the change. A second request with the key that comes in meanwhile waits on
the record's row until the first has committed.
"""

import hmac
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
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
KEPT_FOR = timedelta(hours=24)
FIELD = "idempotency_keys.answer"


def idempotent(handler: Handler) -> Handler:
    """Wrap a handler that takes `request` and `work`; it runs inside of the transaction, around the handler.

    Keys are a space of each caller's own. Of somebody whom nobody knows there is no telling who else they are, so that
    a key of theirs says nothing.
    """

    @wraps(handler)
    async def replaying(*args: Any, request: HubRequest, work: UnitOfWork, **kwargs: Any) -> Answer[Any]:
        key = request.exchange.header(b"idempotency-key")
        if key is not None and work.rehearsal is not None:
            _require_form(key)
        if key is None or work.principal is None or work.rehearsal is not None:
            answer: Answer[Any] = await handler(*args, request=request, work=work, **kwargs)
            return answer
        record_id, body = _identify(request, work, key), await request.body()
        if (replayed := await _first_answer(work, record_id, body)) is not None:
            return replayed
        answer = await handler(*args, request=request, work=work, **kwargs)
        await _keep(work, record_id, answer)
        return answer

    replaying.is_idempotent = True  # type: ignore[attr-defined]  # read by the OpenAPI document
    return replaying  # type: ignore[return-value]


def _require_form(key: str) -> None:
    """Raises BadRequest for a key that is empty, too long or not printable ASCII."""
    if not KEY_FORM.fullmatch(key):
        raise BadRequest(code="invalid_idempotency_key")


def _identify(request: HubRequest, work: UnitOfWork, key: str) -> UUID:
    """Raises BadRequest. The path names a thing in one way only: the gate lets no other spelling of an id through, and
    the router has taken superfluous slashes away. API keys that are narrowed alike share a space: to one that may do
    less, its owner's first answer may hold a key that may do more."""
    _require_form(key)
    return uuid5(NAMESPACE_URL, f"{work.tenant_id} {work.actor_id}{_narrowing(work)} {request.scope['path']} {key}")


def _narrowing(work: UnitOfWork) -> str:
    limits = work.actor.key
    return "" if limits is None or limits.named is None else f" {sorted(limits.named)}"


def _fingerprint(work: UnitOfWork, body: bytes, key_id: str | None = None) -> bytes:
    return hmac.new(work.parts.key_ring.derive("idempotency fingerprints", key_id), body, sha256).digest()


def _is_same_body(work: UnitOfWork, body: bytes, fingerprint: bytes) -> bool:
    """Under any key of the ring: the first request may have come before a new key did."""
    candidates = (_fingerprint(work, body, key_id) for key_id in work.parts.key_ring.ids)
    return any(hmac.compare_digest(candidate, fingerprint) for candidate in candidates)


async def _first_answer(work: UnitOfWork, record_id: UUID, body: bytes) -> Answer[Any] | None:
    """None where this is the first request with the key in a day; its record is then part of the transaction."""
    values = {"fingerprint": _fingerprint(work, body), "created_at": work.now}
    statement = insert(IdempotencyKey).values(values | {"id": record_id, "tenant_id": work.tenant_id})
    is_old = IdempotencyKey.created_at < work.now - KEPT_FOR
    begun_anew = statement.on_conflict_do_update(index_elements=[IdempotencyKey.id], set_=values, where=is_old)
    if await work.session.scalar(begun_anew.returning(IdempotencyKey.id)) is not None:
        return None
    found = (
        await work.session.execute(
            select(IdempotencyKey.fingerprint, IdempotencyKey.answer).where(IdempotencyKey.id == record_id)
        )
    ).one()
    if not _is_same_body(work, body, found.fingerprint):
        raise IdempotencyMismatch
    opened = work.parts.key_ring.open(found.answer, tenant_id=work.tenant_id, row_id=record_id, field=FIELD)
    status, headers, body = msgspec.msgpack.decode(opened, type=tuple[int, list[tuple[bytes, bytes]], bytes])
    return Answer(status, [*headers, (b"idempotency-replayed", b"true")], body)


async def _keep(work: UnitOfWork, record_id: UUID, answer: Answer[object]) -> None:
    packed = msgspec.msgpack.encode((answer.status_code, answer.wire_headers, answer.body))
    sealed = work.parts.key_ring.seal(packed, tenant_id=work.tenant_id, row_id=record_id, field=FIELD)
    await work.session.execute(update(IdempotencyKey).where(IdempotencyKey.id == record_id).values(answer=sealed))
