"""AU1: every route that changes something leaves exactly one row for each change, and one that only reads leaves none.

Routes are found, not named: a new one is held to this from its first commit. What is refused has its row in
`test_policy_table.py`, likewise for every operation.
"""

from collections.abc import Mapping

import pytest

from tests.contract.test_declared_answers import ROUTES, World, is_good
from tests.contract.test_declared_answers import world as world
from tests.domain.conftest import Records
from tests.domain.conftest import records as records

pytestmark = pytest.mark.anyio

READING = ("GET", "HEAD")
ONLY_ASKS = {
    "POST /api/v1/auth/introspect": "what a token is worth",
    "POST /api/v1/authz/check": "what somebody may do",
    "POST /api/v1/auth/passkey/options": "what a browser needs to ask for a passkey",
    "POST /api/v1/auth/step-up/options": "likewise",
    "POST /api/v1/auth/identities": "where a link begins",
    "POST /api/v1/auth/saml/{provider_name}/acs": "what is on record once the browser is known again",
    "POST /sign-in/organisation": "whose providers are to be shown",
}
"""By its method a write, by what it does a read."""
CHANGES_BY_GET: Mapping[str, tuple[str, ...]] = {
    "GET /api/v1/auth/oidc/{name}/callback": ("auth.sign_in",),
    "GET /api/v1/auth/saml/{provider_name}/finish": ("auth.sign_in",),
}
"""A browser comes back from elsewhere; nobody else can have it come."""
CHANGES_NOTHING = {
    "POST /api/v1/tenants/{tenant_id}/resume": "it was not suspended",
    "POST /api/v1/users/{user_id}/unlock": "they were not locked out",
    "PUT /api/v1/roles/{role_id}/approver-roles": "it had none, and is told to have none",
}
"""As it is called in this walk."""
OF_NOBODY = {
    "POST /api/v1/auth/forgot-password": "who has that address is found out later, where its time tells nobody",
    "POST /sign-in/forgotten": "likewise",
}
SEVERAL: Mapping[str, tuple[str, ...]] = {
    "POST /api/v1/auth/accept-invitation": ("invitation.accept", "user.create"),
    "POST /sign-in/invitation": ("invitation.accept", "user.create"),
    "POST /api/v1/access-reviews/{review_id}/close": ("access_review.close", "access_review.finish"),
    "POST /api/v1/access-reviews/{review_id}/items/{item_id}/end": ("access_review.end", "role_assignment.end"),
    "POST /api/v1/role-requests/{request_id}/approve": ("role_assignment.create", "role_request.approve"),
    "POST /api/v1/role-requests/{request_id}/revoke": ("role_assignment.end", "role_request.revoke"),
}
"""Where one request changes several things: the rows, sorted."""


@pytest.mark.parametrize("name", sorted(ROUTES))
async def test_a_route_leaves_a_row_for_each_change_and_none_for_a_look(
    world: World, records: Records, name: str
) -> None:
    answer = await world.call(ROUTES[name], "application/json")
    assert is_good(answer), f"{answer.status_code} {answer.text[:300]}"
    rows = await records.audit(answer)
    actions = tuple(sorted(row["action"] for row in rows))
    if name in CHANGES_BY_GET:
        assert actions == CHANGES_BY_GET[name]
    elif name.split()[0] in READING or name in ONLY_ASKS or name in CHANGES_NOTHING:
        assert actions == ()
    elif name in SEVERAL:
        assert actions == SEVERAL[name]
    else:
        assert len(actions) == 1, actions
    assert {row["outcome"] for row in rows} <= {"success", "failure"}
    assert all(row["tenant_id"] is not None for row in rows)
    assert all((row["actor_id"] is not None) == (name not in OF_NOBODY) for row in rows)


def test_the_exceptions_are_routes() -> None:
    assert set(CHANGES_BY_GET) | set(ONLY_ASKS) | set(CHANGES_NOTHING) | set(OF_NOBODY) | set(SEVERAL) <= set(ROUTES)
