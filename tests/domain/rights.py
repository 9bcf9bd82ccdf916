"""Rights for tests: data domains, and people who hold something for a part of the tenant."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4

import httpx

from tests.conftest import Hub
from tests.domain.conftest import Records, open_session
from tests.domain.sources import NOWHERE

DOMAINS = "/api/v1/data-domains"
TENANT = "00000000-0000-7000-8000-000000000001"


async def new_domain(hub: Hub, **fields: Any) -> dict[str, Any]:
    made = await hub.admin.post(DOMAINS, json={"name": f"domain {uuid4().hex}", **fields})
    assert made.status_code == 201, made.text
    return dict(made.json())


def giving(domain: Mapping[str, Any] | None, *permissions: str) -> dict[str, Any]:
    """What `somebody` holds: these permissions, in a domain or for the whole tenant."""
    return {"scope_id": domain and domain["id"], "permissions": list(permissions)}


def in_domain(domain_id: str | None) -> dict[str, Any]:
    """An item of a bulk."""
    return {"name": uuid4().hex, "type": "postgresql", "config": NOWHERE, "data_domain_id": domain_id}


async def somebody(hub: Hub, records: Records, *given: Mapping[str, Any]) -> httpx.AsyncClient:
    """The client of somebody new, to whom this is given before they are first asked who they are."""
    user = await hub.new_user()
    for each in given:
        role = each.get("role") or await hub.new_role(permissions=each["permissions"])
        await give(records, user["id"], role["id"], scope_id=each.get("scope_id"))
    return await open_session(hub, records, user["email"])


async def give(
    records: Records,
    subject_id: str,
    role_id: str,
    *,
    subject_type: str = "user",
    scope_type: str = "data_domain",
    scope_id: str | None = None,
    **columns: Any,
) -> UUID:
    """An assignment, by hand: what was remembered of the subject stays untold of it."""
    values = {
        "id": uuid4(), "tenant_id": TENANT, "subject_type": subject_type, "subject_id": subject_id, "role_id": role_id,
        "scope_type": scope_type if scope_id else "tenant", "scope_id": scope_id, **columns,
    }  # fmt: skip
    names, places = ", ".join(values), ", ".join(f"${number}" for number in range(1, len(values) + 1))
    await records.run(
        f"INSERT INTO role_assignments ({names}, starts_at, created_at, updated_at)"
        f" VALUES ({places}, now(), now(), now())",
        *values.values(),
    )
    return UUID(str(values["id"]))
