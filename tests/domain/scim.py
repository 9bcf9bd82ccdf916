"""What tests of SCIM do all the time: a key, a client of `/scim/v2`, and people of a directory."""

from typing import Any
from uuid import uuid4

import httpx

from app.domain.scim.definitions import CORE_GROUP, CORE_USER
from app.domain.scim.patches import PATCH_OP
from tests.conftest import Hub

KEYS = "/api/v1/scim-keys"
SCIM = "/scim/v2"
ERROR = "urn:ietf:params:scim:api:messages:2.0:Error"


class Directory:
    """As Entra ID or Okta would be: it has a key of one tenant."""

    def __init__(self, hub: Hub, key: dict[str, Any]) -> None:
        self.hub = hub
        self.key_id: str = key["id"]
        self.key: str = key["key"]
        self.client = hub.client(self.key)
        self.client.headers["content-type"] = "application/scim+json"

    async def call(self, method: str, path: str, body: Any = None, **more: Any) -> httpx.Response:
        given = {} if body is None else {"json": body}
        return await self.client.request(method, SCIM + path, **given, **more)

    async def new_user(self, **given: Any) -> dict[str, Any]:
        body = {"schemas": [CORE_USER], "userName": f"{uuid4().hex}@example.org", "active": True, **given}
        made = await self.call("POST", "/Users", body)
        assert made.status_code == 201, made.text
        return dict(made.json())

    async def new_group(self, *members: str, **given: Any) -> dict[str, Any]:
        body = {"schemas": [CORE_GROUP], "displayName": uuid4().hex, "members": [{"value": each} for each in members]}
        made = await self.call("POST", "/Groups", body | given)
        assert made.status_code == 201, made.text
        return dict(made.json())

    async def patch(self, path: str, *operations: dict[str, Any], **more: Any) -> httpx.Response:
        return await self.call("PATCH", path, {"schemas": [PATCH_OP], "Operations": list(operations)}, **more)

    async def found(self, kind: str, condition: str, **parameters: str) -> list[dict[str, Any]]:
        answer = await self.call("GET", f"/{kind}", params={"filter": condition, **parameters})
        assert answer.status_code == 200, answer.text
        return list(answer.json()["Resources"])


async def connected(hub: Hub, name: str = "Entra ID") -> Directory:
    made = await hub.admin.post(KEYS, json={"name": name})
    assert made.status_code == 201, made.text
    return Directory(hub, made.json())


def told(answer: httpx.Response) -> tuple[int, str | None]:
    """Status and `scimType` of an error, which is in SCIM's shape."""
    assert answer.headers["content-type"] == "application/scim+json", answer.text
    body = answer.json()
    assert body["schemas"] == [ERROR]
    assert body["status"] == str(answer.status_code)
    assert body["detail"]
    return answer.status_code, body.get("scimType")
