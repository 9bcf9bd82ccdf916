"""What schemathesis is told about the hub: how to sign in, how MessagePack is written, which rules no schema carries.

Loaded by schemathesis itself (SCHEMATHESIS_HOOKS), in the process that `test_schemathesis.py` starts.
"""

import os
import re
from typing import Any

import httpx
import msgspec
import schemathesis
from schemathesis.specs.openapi import checks

URL = os.environ["CONTRACT_URL"]
CREDENTIALS = {"email": os.environ["CONTRACT_EMAIL"], "password": os.environ["CONTRACT_PASSWORD"]}

BEYOND_SCHEMA = {
    "invalid_cursor": "a cursor is the hub's own, made for one list and one sort",
    "weak_password": "length, commonness and likeness to one's own name are judged by what a guesser would try",
    "wrong_password": "the current password is what it is",
    "invalid_email": "RFC 5321 and IDNA say more than `format: email`",
    "idempotency_key_reused": "whether a key was used before is a matter of history",
    "stale_version": "which version is current is a matter of history",
    "forbidden_character": "texts of free form, down to the names in an object, hold no control characters",
    "blank": "a name of white space only",
    "unknown_permission": "the list of permissions is data: GET /permissions",
    "unknown_role": "whether a role exists is a matter of history",
    "masked_secret": "a text that is shown in place of secrets",
    "reference_not_allowed": "which variables and files may be referred to is the operator's choice",
    "secret_reentry_required": "whether stored secrets would go elsewhere is a matter of history",
}
"""Codes with which a request that fits the document may be refused, and why the document cannot say so."""


@schemathesis.check
def acceptance_of_what_the_schema_can_say(ctx: Any, response: Any, case: Any) -> bool | None:
    """`positive_data_acceptance`, which it stands in for, but for faults that a JSON Schema cannot express."""
    if response.status_code in (400, 412, 422) and _is_beyond_schema(response, case):
        return None
    return _ORIGINAL(ctx, response, case)


_ORIGINAL = checks.positive_data_acceptance


def _is_beyond_schema(response: Any, case: Any) -> bool:
    body = response.json()
    faults = body.get("errors") or [{"path": "", "code": body["code"]}]
    return all(
        fault["code"] in BEYOND_SCHEMA or _is_pointed(fault) or _is_of_a_connector(fault, case) for fault in faults
    )


def _is_pointed(fault: dict[str, str]) -> bool:
    """`5.0` is an integer to JSON Schema, and a number with a point to the hub."""
    return fault["code"] == "invalid" and fault.get("message", "").endswith("got `float`")


def _is_of_a_connector(fault: dict[str, str], case: Any) -> bool:
    """A connector's own rule about its fields: a URL that names a host, a key id that comes with its key.

    In a change it is any rule: it names no type, so that the document cannot say what its config takes.
    """
    path = re.sub(r"^data_sources\[\d+\]\.", "", fault["path"])
    below = path.partition(".")[0] in ("config", "secrets")
    is_change = case.method == "PATCH" or case.path.endswith("/{source_id}/test")
    return below and (is_change or fault["code"] == "invalid")


class Session:
    """Somebody signed in; opened again when a generated request may have ended it."""

    def __init__(self, credentials: dict[str, str]) -> None:
        self._credentials = credentials
        self._token: str | None = None

    def token(self) -> str:
        if self._token is None:
            answer = CLIENT.post("/api/v1/auth/login", json=self._credentials)
            answer.raise_for_status()
            self._token = answer.json()["access_token"]
        return self._token

    def call(self, method: str, path: str, **body: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.token()}"}
        answer = CLIENT.request(method, path, headers=headers, **body)
        answer.raise_for_status()
        return answer.json()

    def forget(self) -> None:
        self._token = None


CLIENT = httpx.Client(base_url=URL, trust_env=False, timeout=30)
ADMIN = Session(CREDENTIALS)
ADMIN_ID: str = ADMIN.call("GET", "/api/v1/auth/me")["user"]["id"]
OTHER_ID = "01934f6e-7c1a-7b55-9d3e-5f0c2a9b1e01"


def _somebody() -> Session:
    """Whose password generated requests may guess at: ten wrong guesses lock an account, as they should."""
    credentials = {"email": "guessed-at@example.org", "password": CREDENTIALS["password"]}
    ADMIN.call("POST", "/api/v1/users", json=credentials)
    somebody = Session(credentials)
    somebody.token()
    return somebody


SOMEBODY = _somebody()


@schemathesis.auth(refresh_interval=None)
class SignedIn:
    def get(self, case: Any, ctx: Any) -> str:
        return (SOMEBODY if case.path.endswith("/auth/change-password") else ADMIN).token()

    def set(self, case: Any, data: str, ctx: Any) -> None:
        case.headers["Authorization"] = f"Bearer {data}"


@schemathesis.hook
def before_call(ctx: Any, case: Any, kwargs: Any) -> None:
    """Nobody saws off the branch they sit on: changes of the calling admin go to somebody who does not exist."""
    if case.method != "GET" and (case.path_parameters or {}).get("user_id") == ADMIN_ID:
        case.path_parameters["user_id"] = OTHER_ID
    body = case.body
    if isinstance(body, dict) and body.get("type") == "simulated" and isinstance(body.get("config"), dict):
        # A rehearsal does as it is told: up to ten seconds for each request, which prove nothing here.
        case.body = {**body, "config": {**body["config"], "delays_ms": {}, "misbehaviour": "none"}}


@schemathesis.hook
def after_call(ctx: Any, case: Any, response: Any) -> None:
    """What may have ended the session of the run itself: the next request signs in anew."""
    if case.method != "GET" and case.path.startswith(("/api/v1/auth/logout", "/api/v1/auth/sessions/")):
        ADMIN.forget()


@schemathesis.serializer("application/msgpack")
def write_msgpack(ctx: Any, value: Any) -> bytes:
    return msgspec.msgpack.encode(value)


@schemathesis.deserializer("application/msgpack")
def read_msgpack(ctx: Any, response: Any) -> Any:
    return msgspec.msgpack.decode(response.content)
