"""Users of a directory over SCIM 2.0 (RFC 7643, 7644)."""

import pytest

from tests.conftest import Hub
from tests.domain.scim import Directory, connected, told

pytestmark = pytest.mark.anyio
ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"


@pytest.fixture(scope="module")
async def directory(hub: Hub) -> Directory:
    return await connected(hub)


async def test_what_is_put_is_what_is_shown(hub: Hub, directory: Directory) -> None:
    ada = {
        "userName": "Ada.Lovelace@example.org",
        "externalId": "00u1",
        "name": {"givenName": "Ada", "familyName": "Lovelace", "formatted": "Countess Ada"},
        "displayName": "Ada L.",
        "active": True,
        "title": "Analyst",
        "emails": [{"value": "ada@work.example.org", "type": "work", "primary": True}],
        "phoneNumbers": [{"value": "+44 1", "type": "mobile"}],
        ENTERPRISE: {"department": "Engines", "manager": {"value": "26118915"}},
    }
    made = await directory.new_user(**ada)
    for name, value in ada.items():
        assert made[name] == value
    read = await directory.call("GET", f"/Users/{made['id']}")
    assert read.json() == made
    assert read.headers["etag"] == made["meta"]["version"]
    shown = (await hub.admin.get(f"/api/v1/users/{made['id']}")).json()
    assert (shown["email"], shown["first_name"], shown["last_name"]) == ("Ada.Lovelace@example.org", "Ada", "Lovelace")
    assert shown["managed_by"] == "scim"
    for condition in ('userName eq "ADA.lovelace@EXAMPLE.org"', 'externalId eq "00u1"', 'emails.value eq "ada@work.example.org"',
                      'emails[type eq "work" and value co "WORK"]', 'displayName sw "ada"', f'id eq "{made["id"]}"',
                      'name.familyName eq "lovelace" and active eq true', f'{ENTERPRISE}:department eq "engines"',
                      'title pr and not (title eq "x")', 'phoneNumbers pr', 'meta.created gt "2020-01-01T00:00:00Z" and userName sw "ada."'):
        assert [each["id"] for each in await directory.found("Users", condition)] == [made["id"]], condition
    assert told(await directory.call("POST", "/Users", {"userName": "ada.lovelace@example.org"})) == (409, "uniqueness")
