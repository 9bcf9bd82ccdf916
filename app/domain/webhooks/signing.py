"""Messages as Standard Webhooks has them (standard-webhooks/spec): a secret `whsec_…`, three headers, and a signature
for each secret that is live. What is sent is the event as CloudEvents 1.0 in structured JSON."""

import base64
import hmac
import secrets
from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from typing import Final

import msgspec

from app.domain.events.envelope import CONTENT_TYPE as MEDIA_TYPE
from app.domain.events.envelope import CloudEvent

BEGINNING: Final = "whsec_"
SECRET_BYTES: Final = 32
CONTENT_TYPE: Final = f"{MEDIA_TYPE}; charset=utf-8"


def new_secret() -> str:
    return BEGINNING + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def body_of(event: CloudEvent) -> bytes:
    return msgspec.json.encode(event)


def headers_of(event: CloudEvent, body: bytes, live_secrets: Sequence[str], now: datetime) -> dict[str, str]:
    """The id is the event's however often it is sent; the time is that of this attempt."""
    timestamp = str(int(now.timestamp()))
    signed = b".".join((str(event.id).encode(), timestamp.encode(), body))
    return {
        "content-type": CONTENT_TYPE,
        "webhook-id": str(event.id),
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(_signature(secret, signed) for secret in live_secrets),
    }


def _signature(secret: str, signed: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(BEGINNING))
    return "v1," + base64.b64encode(hmac.new(key, signed, sha256).digest()).decode()
