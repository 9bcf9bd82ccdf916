"""AWS Signature Version 4 of requests that only read, as Amazon S3 has it: the path is encoded once and never tidied.

See "Authenticating Requests: Using the Authorization Header" of the Amazon S3 API Reference.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

import msgspec

_NO_BODY: Final = hashlib.sha256(b"").hexdigest()


class AccessKey(msgspec.Struct, frozen=True):
    id: str
    secret: str
    session_token: str | None = None

    def __repr__(self) -> str:
        return "AccessKey(<hidden>)"


def _canonical(query: Mapping[str, str]) -> str:
    pairs = ((quote(name, safe=""), quote(value, safe="")) for name, value in query.items())
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def signed(
    key: AccessKey, region: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], now: dt.datetime
) -> dict[str, str]:
    """The headers of a GET with what signs them. `path` is encoded already; `headers` have names in lower case, `host`
    among them, and are sent as they are."""
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    named = {**headers, "x-amz-content-sha256": _NO_BODY, "x-amz-date": stamp}
    if key.session_token is not None:
        named["x-amz-security-token"] = key.session_token
    names = ";".join(sorted(named))
    lines = "".join(f"{name}:{value}\n" for name, value in sorted(named.items()))
    request = "\n".join(("GET", path, _canonical(query), lines, names, _NO_BODY))
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    to_sign = "\n".join(("AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(request.encode()).hexdigest()))
    signature = _hmac(_signing_key(key.secret, scope), to_sign).hex()
    told = f"Credential={key.id}/{scope},SignedHeaders={names},Signature={signature}"
    return {**named, "authorization": f"AWS4-HMAC-SHA256 {told}"}


def _signing_key(secret: str, scope: str) -> bytes:
    found = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        found = _hmac(found, part)
    return found


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")
