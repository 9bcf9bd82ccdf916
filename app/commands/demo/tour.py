"""The main job, through the API only: role, user, source, test, discover, preview, and what the user may not do."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx

from app.commands.demo.telling import DemoFailed, Teller

ROLE = "Flight readers"
USER = "demo-reader@example.org"
GUEST = "demo-guest@example.org"
SOURCE = "New York flights 2013"
PERMISSIONS = ["data-source-types:read", "data-sources:read", "data-sources:test", "data-sources:preview"]
SHOWN_COLUMNS = ["time_hour", "carrier", "flight", "tailnum", "origin", "dest", "dep_delay"]
"""As many as a terminal of 80 columns shows whole."""
DISCOVERY_TIMEOUT_S = 60
MARKS = {"passed": "✓", "failed": "✗"}


Json = dict[str, Any]
"""An object of an answer, or what is sent."""


class Caller:
    """Somebody who is signed in."""

    def __init__(self, url: str, name: str) -> None:
        self.url = url
        self.name = name
        self._client = httpx.Client(base_url=f"{url}/api/v1", timeout=40, trust_env=False)

    def sign_in(self, email: str, password: str) -> bool:
        answer = self._client.post("/auth/login", json={"email": email, "password": password})
        if answer.status_code == 200:
            self._client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        return answer.status_code == 200

    def call(self, expected: int, method: str, path: str, **options: Any) -> Any:
        """The answer's JSON. Raises DemoFailed for any other status than the expected one."""
        answer = self._client.request(method, path, **options)
        if answer.status_code != expected:
            raise DemoFailed(
                f"{method} {path} as {self.name} answered {answer.status_code}, not {expected}: {answer.text}"
            )
        return answer.json() if answer.content else None

    def replace(self, path: str, named: str, new: Json) -> Any:
        """Create it, after deleting what an earlier run made under that name."""
        for earlier in self.call(200, "GET", path, params={named: new[named]})["items"]:
            self.call(204, "DELETE", f"{path}/{earlier['id']}")
        return self.call(201, "POST", path, json=new)

    def close(self) -> None:
        self._client.close()


def set_up(admin: Caller, tell: Teller, connection: Json, user_password: str) -> tuple[Json, Json]:
    """The role, its user and the source; what earlier runs left is replaced. Answers user and source."""
    tell.heading("The admin prepares, through the API")
    # In this order, because a user who is deleted no longer holds the role.
    person = {"email": USER, "first_name": "Demo", "last_name": "Reader", "password": user_password}
    user = admin.replace("/users", "email", person)
    role = admin.replace("/roles", "name", {"name": ROLE, "permissions": PERMISSIONS})
    tell.done(f"role `{ROLE}` with {', '.join(PERMISSIONS)}")
    admin.call(200, "PUT", f"/users/{user['id']}/roles/{role['id']}")
    tell.done(f"user {USER}, who holds it")
    description = "Departures from EWR, JFK and LGA, with airlines, airports, planes and weather."
    source = admin.replace(
        "/data-sources", "name", {"name": SOURCE, "description": description, "tags": ["demo"], **connection}
    )
    if source["secrets"]["password"]["set"] is not True:
        raise DemoFailed("The password of the data source was expected to be stored.")
    tell.done(f"data source `{SOURCE}`; its password is sealed, and the API shows only that there is one")
    return user, source


def show_one_source(admin: Caller, guest: Caller, tell: Teller, source: Json, password: str) -> None:
    """Somebody who was given that source alone, for a day."""
    tell.heading("Somebody gets this one source, for a day")
    person = {"email": GUEST, "first_name": "Demo", "last_name": "Guest", "password": password}
    user = admin.replace("/users", "email", person)
    (role,) = admin.call(200, "GET", "/roles", params={"name": ROLE})["items"]
    scope = {"type": "data_source", "id": source["id"]}
    until = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    subject = {"type": "user", "id": user["id"]}
    admin.call(
        201,
        "POST",
        "/role-assignments",
        json={"subject": subject, "role_id": role["id"], "scope": scope, "expires_at": until},
    )
    if not guest.sign_in(GUEST, password):
        raise DemoFailed(f"{GUEST} cannot sign in with the password that was just set.")
    seen = [item["name"] for item in guest.call(200, "GET", "/data-sources")["items"]]
    if seen != [SOURCE]:
        raise DemoFailed(f"{GUEST} was expected to see `{SOURCE}` alone, and sees {seen}.")
    tell.done(f"{GUEST} holds `{ROLE}` on it until tomorrow, and sees {len(seen)} data source")
    check = {"action": "data-sources:preview", "resource_type": "data_source", "resource_id": source["id"]}
    (result,) = guest.call(200, "POST", "/authz/check", json={"checks": [check]})["results"]
    if not result["allowed"]:
        raise DemoFailed(f"{GUEST} was expected to be allowed to preview it: {result}")
    tell.done(
        f"asked why they may preview it, the hub says: {', '.join(via['type'] for via in result['via'])} of a role"
    )


def test(admin: Caller, tell: Teller, source: Json) -> None:
    tell.heading("Is it reachable?")
    result = admin.call(200, "POST", f"/data-sources/{source['id']}/test")
    show_steps(tell, result)
    if result["status"] != "passed":
        raise DemoFailed("The test of the data source was expected to pass.")


def show_steps(tell: Teller, result: Json) -> None:
    rows = [(MARKS.get(step["status"], "-"), step["name"], _ms(step), step["message"]) for step in result["steps"]]
    tell.table(["", "step", "took", "what happened"], rows)


def _ms(step: Json) -> str:
    return f"{step['duration_ms']:.1f} ms" if step["status"] in MARKS else ""


def discover(admin: Caller, tell: Teller, source: Json, expected: set[str]) -> None:
    tell.heading("What is inside?")
    job = admin.call(202, "POST", f"/data-sources/{source['id']}/discover")
    deadline = time.monotonic() + DISCOVERY_TIMEOUT_S
    with tell.progress("discovering") as advance:
        while job["status"] in ("queued", "running"):
            if time.monotonic() > deadline:
                raise DemoFailed(f"The discovery has not ended within {DISCOVERY_TIMEOUT_S} s. Does a worker run?")
            time.sleep(0.1)
            job = admin.call(200, "GET", f"/jobs/{job['id']}")
            advance(job["progress"]["done"], job["progress"]["total"])
    if job["status"] != "succeeded":
        raise DemoFailed(f"The discovery {job['status']}: {job['error']}")
    objects = admin.call(200, "GET", f"/data-sources/{source['id']}/objects", params={"count": "exact"})
    rows = [(item["qualified_name"], item["kind"], len(item["fields"]), _fields(item)) for item in objects["items"]]
    tell.table(["object", "kind", "fields", "such as"], rows)
    if missing := expected - {item["qualified_name"] for item in objects["items"]}:
        raise DemoFailed(f"The discovery did not find {', '.join(sorted(missing))}.")


def _fields(item: Json) -> str:
    return ", ".join(f"{field['name']} {field['type']}" for field in item["fields"][:4])


def preview(caller: Caller, tell: Teller, source: Json, limit: int) -> None:
    ask = {"object": "public.flights", "columns": SHOWN_COLUMNS, "limit": limit}
    result = caller.call(200, "POST", f"/data-sources/{source['id']}/preview", json=ask)
    if len(result["rows"]) != limit:
        raise DemoFailed(f"The preview showed {len(result['rows'])} rows and not {limit}.")
    tell.table([column["name"] for column in result["columns"]], result["rows"])
    tell.done(f"{caller.name} sees {limit} flights; the preview took {result['duration_ms']:.0f} ms")


def show_limits(user: Caller, tell: Teller, source: Json, connection: Json) -> None:
    """What the role does not hold is refused, in a sentence."""
    tell.heading("The user may do what the role says, and no more")
    preview(user, tell, source, 3)
    refusals: list[tuple[str, str, str, Json]] = [
        ("register a source", "POST", "/data-sources", {"json": {"name": "Mine", **connection}}),
        ("delete the source", "DELETE", f"/data-sources/{source['id']}", {}),
        ("look at users", "GET", "/users", {}),
    ]
    for what, method, path, options in refusals:
        error = user.call(403, method, path, **options)
        tell.refused(f"{what}: 403 {error['code']}. {error['detail']}")


def show_wrong_password(admin: Caller, tell: Teller, connection: Json) -> None:
    tell.heading("And with a wrong password?")
    wrong = {**connection, "secrets": {"password": "not the password"}}
    result = admin.call(200, "POST", "/data-sources/test", json=wrong)
    show_steps(tell, result)
    failed = [step for step in result["steps"] if step["status"] == "failed"]
    if [step["name"] for step in failed] != ["authenticate"]:
        raise DemoFailed(f"A wrong password was expected to fail at `authenticate` and nowhere else: {result}")
    again = "" if failed[0]["can_retry"] else "; a retry would not help"
    tell.done(f"the step says what broke ({failed[0]['code']}) and where to look ({failed[0]['fault']}){again}")


def connection_to(url: str) -> dict[str, object]:
    """What the API takes for a PostgreSQL URL."""
    parts = urlsplit(url)
    config = {"host": parts.hostname, "port": parts.port, "database": parts.path[1:], "username": parts.username}
    return {"type": "postgresql", "config": config, "secrets": {"password": parts.password}}
