"""Checks: whether somebody may do something, and what that comes from."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from msgspec import Raw

from app.core.errors import BadRequest, Fault
from app.core.extent import Place
from app.core.security import Principal, missing
from app.domain.auth.principals import Signed
from app.domain.authz.grounds import REFUSED, Grounds, load_grounds, via_of
from app.domain.authz.moments import is_to_come
from app.domain.authz.repositories import CHECKED
from app.domain.authz.schemas import Check, CheckResult, CheckResults
from app.domain.requests import HubRequest
from app.domain.roles.ownership import OWNER_BRINGS

CHECK_OTHERS = "authz:check"
BROUGHT_BY_OWNERS = sorted(OWNER_BRINGS)
SHOWN_BY: Mapping[str, tuple[str, ...]] = {
    "data_source": ("data-sources:read",),
    "data_domain": ("data-domains:read", "data-sources:read"),
}

Answer = CheckResult | Raw
"""A result, or one as JSON: written before."""


async def check(request: HubRequest, checks: Sequence[Check]) -> CheckResults:
    """What is asked of oneself and of now comes from memory, as far as that knows it; all the rest from the database by
    one statement. Raises BadRequest, or Forbidden where others are asked about without the permission for it."""
    principal = request.principal
    known = request.parts.known_permissions.in_memory(principal.tenant_id)
    if known is None:
        known = await request.parts.known_permissions.of_tenant(principal.tenant_id)
    _refuse_faulty(checks, known)
    if not principal.may(CHECK_OTHERS) and any(not _is_of_oneself(each, principal) for each in checks):
        raise missing(principal, CHECK_OTHERS, f"To ask about others needs the permission `{CHECK_OTHERS}`.")
    grounds = await _grounds(request)
    results = [_from_memory(each, principal, grounds) for each in checks]
    open_places = [place for place, result in enumerate(results) if result is None]
    if open_places:
        found = await _from_database(request, [checks[place] for place in open_places])
        for place, result in zip(open_places, found, strict=True):
            results[place] = result
    return CheckResults(cast(list[CheckResult], results))


async def _grounds(request: HubRequest) -> Grounds:
    signed: Signed = request.exchange.signed
    grounds: Grounds | None = signed.grounds
    return await load_grounds(request.parts.reads, signed) if grounds is None else grounds


def _is_of_oneself(check: Check, principal: Principal) -> bool:
    return check.user_id is None or check.user_id == principal.id


def _from_memory(check: Check, principal: Principal, grounds: Grounds) -> Answer | None:
    if check.at is not None or not _is_of_oneself(check, principal):
        return None
    if check.resource_id is None:
        return grounds.of_tenant(check.action)
    return grounds.of_thing(check.action, check.resource_id)


async def _from_database(request: HubRequest, checks: Sequence[Check]) -> list[CheckResult]:
    principal = request.principal
    values = {
        "tenant_id": principal.tenant_id,
        "owner_brings": BROUGHT_BY_OWNERS,
        "user_ids": [each.user_id or principal.id for each in checks],
        "actions": [each.action for each in checks],
        "resource_types": [each.resource_type for each in checks],
        "resource_ids": [each.resource_id for each in checks],
        "moments": [each.at and each.at.isoformat() for each in checks],
    }
    rows = await request.parts.reads.rows(CHECKED, values)
    return [_result(check, principal, *row) for check, row in zip(checks, rows, strict=True)]


def _result(check: Check, principal: Principal, *row: Any) -> CheckResult:
    *standing, found = row
    place = Place(*standing)
    via = [via_of(principal.tenant_id, *ground) for ground in found or ()]
    is_own = _is_of_oneself(check, principal)
    if is_own and not _is_left(check, principal, place):
        return REFUSED
    if is_own and check.at is None:
        via = [each for each in via if each.role_id not in principal.factor_role_ids]
    if check.resource_type is not None and not _sees(principal, check.resource_type, place):
        is_named = is_own and any(each.scope.id is not None for each in via)
        return CheckResult(True, via) if is_named else REFUSED
    return CheckResult(bool(via), via)


def _is_left(check: Check, principal: Principal, place: Place) -> bool:
    """By the API key that the caller came with, and by what was loaded with it."""
    if check.at is None:
        return principal.may_at(check.action, place)
    key = principal.key
    return key is None or key.named is None or check.action in key.named


def _sees(principal: Principal, resource_type: str, place: Place) -> bool:
    """Whoever has any right there sees that it is there."""
    return any(principal.may(name) for name in SHOWN_BY[resource_type]) or any(
        extent.covers(place) for extent in principal.extents.values()
    )


def _refuse_faulty(checks: Sequence[Check], known: Mapping[str, object]) -> None:
    """Raises BadRequest."""
    faults = [
        fault
        for place, each in enumerate(checks)
        if each.action not in known or each.resource_id or each.resource_type or each.at
        for fault in _faults(each, f"checks[{place}]", known)
    ]
    if faults:
        raise BadRequest(errors=faults)


def _faults(check: Check, path: str, known: Mapping[str, object]) -> list[Fault]:
    found = []
    if check.action not in known:
        found.append(Fault(f"{path}.action", "unknown_permission", "is not a permission"))
    if check.resource_id is not None and check.resource_type is None:
        found.append(Fault(f"{path}.resource_type", "required", "is needed with a resource_id"))
    if check.resource_type is not None and check.resource_id is None:
        found.append(Fault(f"{path}.resource_id", "required", "is needed with a resource_type"))
    if check.at is not None and is_to_come(check.at):
        found.append(Fault(f"{path}.at", "too_large", "must not lie in the future"))
    return found
