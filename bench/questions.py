"""What every list is asked, over the rows of `bench.crowd`: values that many, few and no rows have, and filters that
clients set together. The bench measures the answers, a test looks at their plans."""

from typing import Any
from uuid import UUID

from bench.crowd import (
    CROWDED_DOMAIN,
    CROWDED_GROUP,
    CROWDED_ROLE,
    CROWDED_SOURCE,
    EMPTY_DOMAIN,
    EMPTY_GROUP,
    EMPTY_ROLE,
    PUBLIC_ROLE,
    SMALL_DOMAIN,
    SMALL_GROUP,
    SMALL_ROLE,
    TENANT,
    row_id,
)

NOBODY = UUID("0190ffff-0000-7000-8000-00000000dead")
SHOWN = 51
"""A page of fifty, and the row that tells whether there is another."""


def places(user_id: UUID) -> dict[str, Any]:
    """What a list is about, for those that are about one thing."""
    return {
        "tenant_id": TENANT,
        "user_id": user_id,
        "member_role_id": CROWDED_ROLE,
        "member_group_id": CROWDED_GROUP,
        "data_source_id": CROWDED_SOURCE,
        "current_session_id": NOBODY,
        "own_id": user_id,
        "actor_id": row_id("users", 5),
        "review_id": row_id("reviews", 1),
        "request_id": row_id("role requests", 1),
        "webhook_id": row_id("webhooks", 1),
    }


OTHER_PLACES = {
    "groups.MEMBERS_OF_GROUP": [{"member_group_id": SMALL_GROUP}, {"member_group_id": EMPTY_GROUP}],
    "users.MEMBERS": [{"member_role_id": SMALL_ROLE}, {"member_role_id": EMPTY_ROLE}],
    "users.ROLES_OF_USER": [{"user_id": row_id("users", 5)}, {"user_id": NOBODY}],
    "auth.SESSIONS": [{"user_id": NOBODY}],
    "api_keys.OWN_API_KEYS": [{"own_id": row_id("accounts", 5)}, {"own_id": NOBODY}],
    "access_reviews.REVIEW_ITEMS": [{"review_id": NOBODY}],
    "delegations.DELEGATIONS": [{"actor_id": user} for user in (row_id("roles", 5), NOBODY)],
    "role_requests.ROLE_REQUESTS": [{"actor_id": NOBODY}],
    "role_requests.TIMELINE": [{"request_id": NOBODY}],
    "source_work.TESTS": [{"data_source_id": NOBODY}],
    "webhooks.DELIVERIES": [{"webhook_id": NOBODY}],
    "source_work.OBJECTS": [{"data_source_id": NOBODY}],
}
"""A list that is about one thing is asked about small and empty ones, too."""


def values(user_id: UUID) -> dict[str, list[str]]:
    """By list and filter."""
    return {
        # What most rows have, what few have, what none has.
        "users.email": ["person.5e5ed2d7a6e1@example.org", "nobody@example.org"],
        "users.is_active": ["true", "false"],
        "users.role_id": [str(role) for role in (PUBLIC_ROLE, CROWDED_ROLE, SMALL_ROLE, EMPTY_ROLE)],
        "users.q": ["example.org", "barbara of", "p", "zz", "no such text", "%", "~", "李明"],
        "roles.name": ["crowded", "no such name"],
        "roles.is_system": ["true", "false"],
        "roles.owner_role_id": [str(role) for role in (CROWDED_ROLE, SMALL_ROLE, EMPTY_ROLE)],
        "roles.is_requestable": ["true", "false"],
        "requestable roles.name": ["crowded", "no such name"],
        "requestable roles.is_requestable": ["true", "false"],
        "requestable roles.q": ["people", "parcels", "p", "no such text", "~"],
        "roles.q": ["people", "parcels", "p", "zz", "no such text", "_", "~"],
        "oauth clients.name": ["parcels for 6512bd43d9ca", "no such name"],
        "service accounts.name": ["parcels of 6512bd43d9ca", "no such name"],
        "service accounts.is_active": ["true", "false"],
        "service accounts.q": ["looks", "parcels", "p", "zz", "no such text", "_", "~"],
        "tenants.is_active": ["true", "false"],
        "role assignments.subject_type": ["user", "group", "service_account"],
        "role assignments.subject_id": [str(row_id("users", 5)), str(NOBODY)],
        "role assignments.role_id": [str(role) for role in (PUBLIC_ROLE, CROWDED_ROLE, SMALL_ROLE, EMPTY_ROLE)],
        "role assignments.scope_type": ["tenant", "data_domain", "data_source"],
        "role assignments.scope_id": [str(CROWDED_SOURCE), str(SMALL_ROLE), str(NOBODY)],
        "role assignments.in_force": ["true", "false"],
        "role assignments.at": ["2025-01-01T00:10:00Z", "2020-01-01T00:00:00Z", "2030-01-01T00:00:00Z"],
        "groups.name": ["crowded", "no such name"],
        "groups.q": ["people", "parcels", "p", "zz", "no such text", "_", "~"],
        "data domains.parent_id": [str(domain) for domain in (CROWDED_DOMAIN, SMALL_DOMAIN, EMPTY_DOMAIN)],
        "data domains.owner_role_id": [str(role) for role in (CROWDED_ROLE, SMALL_ROLE, EMPTY_ROLE)],
        "data domains.q": ["sources", "parcels", "s", "zz", "no such text", "%", "~"],
        **{
            f"{name}.{narrowing}": asked
            for name in ("api keys", "own api keys")
            for narrowing, asked in {
                "owner_id": [str(user_id), str(row_id("accounts", 5)), str(NOBODY)],
                "prefix": ["dfh_a", "no such prefix"],
            }.items()
        },
        "lines of a review.state": ["kept", "ended", "open", "gone"],
        "delegations.received": ["true", "false"],
        "role requests.status": ["pending", "approved", "denied", "expired", "cancelled", "revoked"],
        "role requests.user_id": [str(user_id), str(row_id("users", 5)), str(NOBODY)],
        "role requests.role_id": [str(role) for role in (CROWDED_ROLE, SMALL_ROLE, EMPTY_ROLE)],
        "role requests.mine": ["true", "false"],
        "role requests.to_decide": ["true", "false"],
        "data sources.name": ["crowded", "no such name"],
        "data sources.type": ["postgresql", "mysql", "redis", "kafka"],
        "data sources.category": ["database", "cache", "file"],
        "data sources.status": ["untested", "passed", "failed", "unsupported"],
        "data sources.tag": ["shop", "old", "no such tag"],
        "data sources.owner_role_id": [str(role) for role in (CROWDED_ROLE, SMALL_ROLE, EMPTY_ROLE)],
        "data sources.data_domain_id": [str(domain) for domain in (CROWDED_DOMAIN, SMALL_DOMAIN, EMPTY_DOMAIN)],
        "data sources.is_paused": ["false", "true"],
        "data sources.q": ["rows of", "parcels", "archived", "mothballed", "r", "zz", "no such text", "-", "~"],
        "deliveries.status": ["delivered", "failed", "pending"],
        "tests.status": ["passed", "failed", "unsupported"],
        "objects.kind": ["table", "view", "topic"],
        "objects.is_active": ["true", "false"],
        "objects.q": ["shop", "parcels", "s", "zz", "no such text", ".", "~"],
        "jobs.status": ["succeeded", "failed", "queued"],
        "jobs.kind": ["discover", "tidy", "nothing"],
        "jobs.subject_id": [str(CROWDED_SOURCE), str(SMALL_ROLE), str(NOBODY)],
        "audit events.actor_id": [str(user_id), str(SMALL_ROLE), str(NOBODY)],
        "audit events.api_key_id": [str(CROWDED_SOURCE), str(SMALL_ROLE), str(NOBODY)],
        "audit events.action": ["data_source.test", "tenant.create", "nothing.at_all"],
        "audit events.resource_type": ["data_source", "tenant", "nothing"],
        "audit events.resource_id": [str(CROWDED_SOURCE), str(SMALL_ROLE), str(NOBODY)],
        "audit events.outcome": ["success", "refused", "failure"],
        "audit events.request_id": ["one-request", "710addad9a95", "no-such-request"],
        "audit events.address": ["192.0.2.1", "2001:db8::7", "198.51.100.9"],
        "audit events.from": ["2025-01-01T00:30:00Z", "2030-01-01T00:00:00Z"],
        "audit events.to": ["2025-01-01T00:30:00Z", "2020-01-01T00:00:00Z"],
        "events.type": [
            f"org.datafusionhub.{name}" for name in ("data_source.updated", "tenant.created", "user.deleted")
        ],
        "events.subject": [f"data-sources/{CROWDED_SOURCE}", f"tenants/{SMALL_ROLE}", f"roles/{NOBODY}"],
        "events.from": ["2025-01-01T05:00:00Z", "2030-01-01T00:00:00Z"],
        "events.to": ["2025-01-01T05:00:00Z", "2020-01-01T00:00:00Z"],
    }


def together(user_id: UUID) -> dict[str, list[dict[str, str]]]:
    """By list, as clients ask."""
    return {
        # As clients ask: a table with two columns narrowed, a search within what is narrowed, a piece of the past.
        "users": [
            {"is_active": "false", "role_id": str(CROWDED_ROLE)},
            {"q": "no such text", "is_active": "true"},
            {"q": "barbara", "role_id": str(SMALL_ROLE)},
        ],
        "roles": [{"is_system": "false", "q": "no such text"}, {"is_requestable": "true", "q": "people"}],
        "requestable roles": [{"is_requestable": "true", "q": "people"}],
        "service accounts": [{"is_active": "true", "q": "no such text"}],
        "role requests": [
            {"mine": "true", "status": "pending"},
            {"to_decide": "true", "role_id": str(SMALL_ROLE)},
            {"status": "denied", "role_id": str(SMALL_ROLE)},
        ],
        "role assignments": [
            {"role_id": str(CROWDED_ROLE), "in_force": "true"},
            {"subject_id": str(row_id("users", 5)), "at": "2030-01-01T00:00:00Z"},
            {"scope_id": str(CROWDED_SOURCE), "in_force": "false"},
            {"scope_type": "data_domain", "scope_id": str(SMALL_ROLE), "in_force": "true"},
        ],
        "groups": [{"name": "crowded", "q": "no such text"}],
        "data domains": [{"parent_id": str(SMALL_DOMAIN), "q": "no such text"}],
        "data sources": [
            {"data_domain_id": str(CROWDED_DOMAIN), "status": "failed"},
            {"type": "redis", "status": "failed"},
            {"type": "kafka", "is_paused": "true"},
            {"category": "cache", "q": "no such text"},
            {"status": "failed", "tag": "shop"},
        ],
        "objects": [{"kind": "view", "is_active": "false"}, {"q": "no such text", "is_active": "true"}],
        "jobs": [{"kind": "tidy", "status": "failed"}, {"subject_id": str(SMALL_ROLE), "status": "failed"}],
        "events": [
            {"type": "org.datafusionhub.tenant.created", "from": "2025-01-01T05:00:00Z"},
            {"from": "2025-01-01T05:00:00Z", "to": "2025-01-01T06:00:00Z"},
            {"type": "org.datafusionhub.data_source.updated", "subject": f"data-sources/{CROWDED_SOURCE}"},
        ],
        "audit events": [
            {"resource_type": "tenant", "resource_id": str(SMALL_ROLE)},
            {"actor_id": str(user_id), "from": "2025-01-01T00:30:00Z", "to": "2025-01-01T00:40:00Z"},
            {"outcome": "refused", "from": "2025-01-01T00:00:00Z"},
            {"address": "2001:db8::7", "action": "tenant.create"},
            {"address": "192.0.2.1", "request_id": "710addad9a95"},
        ],
    }
