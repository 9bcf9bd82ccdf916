"""What goes wrong, in SCIM's own shape (RFC 7644 section 3.12): of all that is below `/scim/v2`, from every layer."""

from typing import Any, Final, Literal

import msgspec

from app.core.answers import SHAPES, Answer, headers_of
from app.core.errors import BadRequest, HubError
from app.core.exchange import Exchange

PATH: Final = "/scim/v2"
MEDIA_TYPE: Final = "application/scim+json"
ERROR: Final = "urn:ietf:params:scim:api:messages:2.0:Error"
ScimType = Literal["invalidFilter", "invalidPath", "invalidSyntax", "invalidValue", "mutability", "noTarget"]
_UNIQUE: Final = frozenset(("already_exists", "email_taken", "name_taken"))
_SYNTAX: Final = frozenset(("duplicate_field", "malformed_body", "missing_body", "too_many_values"))


class ScimFault(BadRequest):
    """A 400 that says in SCIM's words what is wrong (RFC 7644 table 9)."""

    def __init__(self, scim_type: ScimType, detail: str) -> None:
        super().__init__(detail)
        self.scim_type = scim_type


def told(exchange: Exchange, error: HubError) -> Answer[Any]:
    body: dict[str, object] = {"schemas": [ERROR], "status": str(error.status)}
    if scim_type := _scim_type(error):
        body["scimType"] = scim_type
    written = msgspec.json.encode(body | {"detail": _sentence(error)})
    return Answer(error.status, [(b"content-type", MEDIA_TYPE.encode()), *headers_of(error)], written)


def _scim_type(error: HubError) -> str | None:
    if isinstance(error, ScimFault):
        return error.scim_type
    if error.code in _UNIQUE:
        return "uniqueness"
    if error.code in _SYNTAX:
        return "invalidSyntax"
    return "invalidValue" if isinstance(error, BadRequest) else None


def _sentence(error: HubError) -> str:
    faults = "; ".join(f"{fault.path or 'the body'} {fault.message}" for fault in error.errors)
    return f"{error.detail} {faults}." if faults else error.detail


SHAPES[PATH] = told
