"""What schemathesis is told about the hub: how to sign in, how MessagePack is written, which rules no schema carries.

Loaded by schemathesis itself (SCHEMATHESIS_HOOKS), in the process that `test_schemathesis.py` starts.
"""

import os
import re
import sys
import time
import zlib
from typing import Any
from uuid import UUID

import httpx
import msgspec
import schemathesis
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation.meta import TestPhase
from schemathesis.generation.modes import GenerationMode
from schemathesis.specs.openapi import checks

URL = os.environ["CONTRACT_URL"]
IS_SAMPLED = os.environ["CONTRACT_SAMPLED"] == "1"
ONE_OF = {"/api/v1/data-sources": 3, "/api/v1/data-sources/bulk": 10, "/api/v1/data-sources/test": 40}
"""Of how many POST cases of the coverage phase one is sent in a sampled run: each of these calls has the same 14,000, the
configs of all types, value by value, in JSON and in MessagePack."""
CREDENTIALS = {"email": os.environ["CONTRACT_EMAIL"], "password": os.environ["CONTRACT_PASSWORD"]}

BEYOND_SCHEMA = {
    "invalid_cursor": "a cursor is the hub's own, made for one list and one sort",
    "weak_password": "length, commonness and likeness to one's own name are judged by what a guesser would try",
    "unknown_client": "which clients there are is a matter of history",
    "unregistered_redirect": "which redirect URIs a client has is a matter of history",
    "invalid_redirect_uri": "where a browser may be sent is more than a pattern can say",
    "invalid_key": "whether numbers make a public key is for mathematics to say",
    "wrong_password": "the current password is what it is",
    "wrong_factor": "which codes and keys are right is for the clock and the key's owner to say",
    "link_not_valid": "which links are in letters, and were not followed yet, is a matter of history",
    "invalid_email": "RFC 5321 and IDNA say more than `format: email`",
    "idempotency_key_reused": "whether a key was used before is a matter of history",
    "stale_version": "which version is current is a matter of history",
    "forbidden_character": "texts of free form, down to the names in an object, hold no control characters",
    "blank": "a name of white space only",
    "name_taken": "which names are taken is a matter of history",
    "mixed_scripts": "which letters look alike is Unicode's to say (UTS 39)",
    "ambiguous_name": "which objects there are is for the source to say",
    "type_differs": "of which type a stored source is, is a matter of history",
    "unknown_permission": "the list of permissions is data: GET /permissions",
    "unknown_column": "which columns an object has is for its source to say",
    "unknown_assignment": "whether an assignment of one's own exists is a matter of history",
    "unknown_user": "whether a user exists is a matter of history",
    "unknown_service_account": "whether a service account exists is a matter of history",
    "unknown_group": "whether a group exists is a matter of history",
    "unknown_source": "whether a data source exists is a matter of history",
    "unknown_event_type": "the list of types of events grows with the hub",
    "unknown_domain": "whether a data domain exists is a matter of history",
    "unknown_role": "whether a role exists is a matter of history",
    "masked_secret": "a text that is shown in place of secrets",
    "reference_not_allowed": "which variables and files may be referred to is the operator's choice",
    "invalid_schedule": "whether five fields of cron ever come to pass is the calendar's to say",
    "unknown_time_zone": "the list of time zones is IANA's, and grows",
    "domain_not_allowed": "of which domains members are is a matter of history",
    "sign_in_invalid": "a sign-in is sealed by the hub, for one browser, or ends at a page of the operator's list",
    "secret_reentry_required": "whether stored secrets would go elsewhere is a matter of history",
}
"""Codes with which a request that fits the document may be refused, and why the document cannot say so."""


@schemathesis.check
def acceptance_of_what_the_schema_can_say(ctx: Any, response: Any, case: Any) -> bool | None:
    """`positive_data_acceptance`, which it stands in for, but for faults that a JSON Schema cannot express."""
    if response.status_code in (400, 412, 422) and _is_beyond_schema(response, case):
        return None
    return _ORIGINAL(ctx, response, case)


TOLD_OTHERWISE = ("/api/v1/auth/authorize", "/api/v1/auth/revoke")
"""Where standards have it that a fault is told by a redirect, and that what is no token is revoked."""
_ORIGINAL = checks.positive_data_acceptance
_ORIGINAL_OF_REFUSALS = checks.negative_data_rejection


@schemathesis.check
def refusal_of_what_the_schema_forbids(ctx: Any, response: Any, case: Any) -> bool | None:
    """`negative_data_rejection`, which it stands in for: a body that is too large besides is refused by its size."""
    if response.status_code == 413 or case.path in TOLD_OTHERWISE:
        return None
    return _ORIGINAL_OF_REFUSALS(ctx, response, case)


def _is_beyond_schema(response: Any, case: Any) -> bool:
    body = response.json()
    if "code" not in body:
        return "error" in body  # of OAuth: whether a code or a token is good is for whoever made it to say
    faults = body.get("errors") or [{"path": "", "code": body["code"]}]
    return all(
        fault["code"] in BEYOND_SCHEMA
        or _is_of_the_clock(fault)
        or _is_of_a_permission(fault)
        or _is_pointed(fault)
        or _is_of_a_pair(fault)
        or _is_of_a_connector(fault, case)
        or _is_of_a_url(fault)
        or _is_of_a_provider(fault, case)
        for fault in faults
    )


def _is_of_the_clock(fault: dict[str, str]) -> bool:
    """Whether a moment has passed, or is too far away."""
    moments = ("due_at", "ends_at", "expires_at", "starts_at", ".at")
    is_moment = fault["path"].endswith(moments) and fault["code"] in (
        "too_small",
        "too_large",
    )
    return is_moment or (fault["path"] == "at" and fault.get("message", "").endswith("in the future"))


def _is_of_a_permission(fault: dict[str, str]) -> bool:
    """What the name of another service's permission is like stands in words: a path's parameters have no pattern."""
    return fault["path"] == "name" and fault["code"] == "wrong_form"


def _is_pointed(fault: dict[str, str]) -> bool:
    """`5.0` is an integer to JSON Schema, and a number with a point to the hub."""
    return fault["code"] == "invalid" and fault.get("message", "").endswith("got `float`")


def _is_of_a_pair(fault: dict[str, str]) -> bool:
    """A field that has to come where another one does, or must not."""
    message = fault.get("message", "")
    is_needed = fault["code"] == "required" and message.startswith(("is needed with", "is required, or a"))
    return is_needed or (fault["code"] == "not_allowed" and message.startswith("is not given with"))


def _is_of_a_connector(fault: dict[str, str], case: Any) -> bool:
    """A connector's own rule about its fields: a URL that names a host, a key id that comes with its key.

    In a change it is any rule: it names no type, so that the document cannot say what its config takes.
    """
    path = re.sub(r"^data_sources\[\d+\]\.", "", fault["path"])
    below = path.partition(".")[0] in ("config", "secrets")
    is_change = case.method == "PATCH" or case.path.endswith("/{source_id}/test")
    return below and (is_change or fault["code"] == "invalid")


def _is_of_a_url(fault: dict[str, str]) -> bool:
    """Of a webhook: that it names a host, and one to which the hub may go."""
    return fault["path"] == "url" and fault["code"] in ("invalid", "not_allowed")


def _is_of_a_provider(fault: dict[str, str], case: Any) -> bool:
    """What the kind of an identity provider needs and does not know, and where its addresses lead; of how long a
    password is, that the deployment has a say."""
    if case.path.startswith("/api/v1/tenant-settings"):
        return (fault["path"], fault["code"]) == ("password_min_length", "too_small")
    return "/identity-providers" in case.path and fault["code"] in ("invalid", "not_allowed", "required")


class Session:
    """Somebody signed in; opened again when a generated request may have ended it."""

    def __init__(self, credentials: dict[str, str]) -> None:
        self._credentials = credentials
        self._token: str | None = None
        self._good_until = 0.0

    def token(self) -> str:
        """A run may take longer than a token is good."""
        if self._token is None or time.monotonic() > self._good_until:
            answer = CLIENT.post("/api/v1/auth/login", json=self._credentials)
            answer.raise_for_status()
            self._token = answer.json()["access_token"]
            self._good_until = time.monotonic() + answer.json()["expires_in"] / 2
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


def _source_with_contents() -> dict[str, str]:
    """By the names of path parameters: a source that was discovered, an object in it, and the job that found it."""
    asked = {"type": "simulated", "name": "Known to the contract tests", "config": {"objects": 1}}
    source = ADMIN.call("POST", "/api/v1/data-sources", json=asked)["id"]
    job = ADMIN.call("POST", f"/api/v1/data-sources/{source}/discover")["id"]
    deadline = time.monotonic() + 60
    while ADMIN.call("GET", f"/api/v1/jobs/{job}")["status"] in ("queued", "running"):
        assert time.monotonic() < deadline, "the job does not end"
        time.sleep(0.1)
    (found,) = ADMIN.call("GET", f"/api/v1/data-sources/{source}/objects")["items"]
    return {"source_id": source, "object_id": found["id"], "job_id": job}


def _webhook() -> dict[str, str]:
    told = {"url": "https://no-such-name.invalid/", "is_active": False}
    return {"webhook_id": ADMIN.call("POST", "/api/v1/webhooks", json=told)["id"]}


KNOWN = _source_with_contents() | _webhook()


def _caller(which: str) -> Session:
    """Who makes the calls: the admin, or somebody who holds `public` alone, or every permission on the known source."""
    if which == "admin":
        return ADMIN
    credentials = {"email": f"{which}@example.org", "password": CREDENTIALS["password"]}
    user = ADMIN.call("POST", "/api/v1/users", json=credentials)
    if which == "scoped":
        names = [each["name"] for each in ADMIN.call("GET", "/api/v1/permissions?limit=200")["items"]]
        role = ADMIN.call("POST", "/api/v1/roles", json={"name": "Everything there", "permissions": names})
        subject, scope = {"type": "user", "id": user["id"]}, {"type": "data_source", "id": KNOWN["source_id"]}
        given = {"subject": subject, "role_id": role["id"], "scope": scope}
        ADMIN.call("POST", "/api/v1/role-assignments", json=given)
    return Session(credentials)


CALLER = _caller(os.environ["CONTRACT_CALLER"])
CALLER_ID: str = CALLER.call("GET", "/api/v1/auth/me")["user"]["id"]
ASKING_FOR_PASSWORD = ("/auth/change-password", "/auth/change-email", "/auth/step-up")
ASK_ONLY = ("/test", "/discover", "/preview", "/cancel")


@schemathesis.hook
def before_load_schema(ctx: Any, raw_schema: dict[str, Any]) -> None:
    """Bodies are sent as MessagePack, too: the document names it beside the forms, where no generated client trips."""
    for methods in raw_schema["paths"].values():
        for operation in methods.values():
            body = operation.get("requestBody", {})
            for media_type in body.get("x-also-as", ()):
                body["content"][media_type] = {"schema": body["content"]["application/json"]["schema"]}


NO_BODY_IS_NULL = frozenset(
    (
        "/api/v1/access-reviews/{review_id}/items/{item_id}/end",
        "/api/v1/access-reviews/{review_id}/items/{item_id}/keep",
        "/api/v1/auth/logout",
        "/api/v1/data-sources/{source_id}/test",
        "/api/v1/role-requests/{request_id}/approve",
        "/api/v1/role-requests/{request_id}/deny",
        "/api/v1/role-requests/{request_id}/revoke",
    )
)
"""A body that may be left out may be null: the document says so in words, since generators trip over it in a schema."""


@schemathesis.hook
def filter_case(ctx: Any, case: Any) -> bool:
    if case.body is None and case.path in NO_BODY_IS_NULL:
        return False
    one_of = ONE_OF.get(case.path, 1) if IS_SAMPLED and case.method == "POST" else 1
    if case.meta.phase.name is not TestPhase.COVERAGE:
        return True
    return zlib.crc32(repr((case.media_type, case.body)).encode("utf-8", "replace")) % one_of == 0


@schemathesis.auth(refresh_interval=None)
class SignedIn:
    def get(self, case: Any, ctx: Any) -> str:
        return (SOMEBODY if case.path.endswith(ASKING_FOR_PASSWORD) else CALLER).token()

    def set(self, case: Any, data: str, ctx: Any) -> None:
        if case.path not in ("/api/v1/auth/token", "/api/v1/auth/revoke"):  # there the header is for clients
            case.headers["Authorization"] = f"Bearer {data}"


@schemathesis.hook
def before_call(ctx: Any, case: Any, kwargs: Any) -> None:
    """Nobody saws off the branch they sit on: changes of the calling admin go to somebody who does not exist."""
    _name_what_exists(case)
    if case.method != "GET" and (case.path_parameters or {}).get("user_id") in (ADMIN_ID, CALLER_ID):
        case.path_parameters["user_id"] = OTHER_ID
    body = case.body
    if isinstance(body, dict) and body.get("type") == "simulated" and isinstance(body.get("config"), dict):
        # A rehearsal does as it is told: up to ten seconds for each request, which prove nothing here.
        case.body = {**body, "config": {**body["config"], "delays_ms": {}, "misbehaviour": "none"}}


def _name_what_exists(case: Any) -> None:
    """Made-up ids of sources, objects and jobs would all be 404: calls that change nothing get those of real ones.

    The stateful phase keeps its own; it got them from earlier answers.
    """
    given = case.path_parameters or {}
    if case.meta is None or case.meta.phase.name is TestPhase.STATEFUL:
        return
    if case.method != "GET" and not case.path.endswith(ASK_ONLY):
        return
    for name in given.keys() & KNOWN.keys():
        if _is_uuid(given[name]):
            given[name] = KNOWN[name]
    body = case.meta.components.get(ParameterLocation.BODY)
    if case.path.endswith("/preview") and body is not None and body.mode is GenerationMode.POSITIVE:
        case.body = {**case.body, "object": KNOWN["object_id"]}


def _is_uuid(value: Any) -> bool:
    try:
        UUID(value)
    except (ValueError, AttributeError, TypeError):
        return False
    return True


@schemathesis.hook
def after_call(ctx: Any, case: Any, response: Any) -> None:
    """What may have ended the session of the run itself: the next request signs in anew."""
    if case.method != "GET" and case.path.startswith(("/api/v1/auth/logout", "/api/v1/auth/sessions/")):
        CALLER.forget()


@schemathesis.serializer("application/msgpack")
def write_msgpack(ctx: Any, value: Any) -> bytes:
    return msgspec.msgpack.encode(_within_64_bits(value))


def _within_64_bits(value: Any) -> Any:
    """Greater integers cannot be written in MessagePack: the nearest number is."""
    if isinstance(value, dict):
        return {_within_64_bits(name): _within_64_bits(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_within_64_bits(part) for part in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return float(max(min(value, int(sys.float_info.max)), -int(sys.float_info.max)))
    return value


@schemathesis.deserializer("application/msgpack")
def read_msgpack(ctx: Any, response: Any) -> Any:
    return msgspec.msgpack.decode(response.content)
