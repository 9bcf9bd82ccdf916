"""What every route declares of its answers, held against what it answers: entity tags, media types, codes."""

import re
from collections.abc import AsyncIterator, Mapping
from itertools import product
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit
from uuid import UUID, uuid4

import httpx
import msgspec
import pyotp
import pytest

from app.api.route_table import Route, all_routes
from app.domain.letters.services import link_of, write_letter
from app.domain.sign_in.pending import cookie_name, new_browser
from app.domain.work import unit_of_work_of
from tests.conftest import PASSWORD, Hub
from tests.declared import application
from tests.domain.conftest import Records, new_user, open_pair
from tests.domain.conftest import records as records
from tests.domain.factors import Person
from tests.domain.oauth import Flow
from tests.domain.oidc_provider import CLIENT_ID, CLIENT_SECRET, LOGIN, Browser, Provider, exchange, serving_provider
from tests.domain.seals import seal_all
from tests.domain.sources import SOURCES, discovered, objects, registered
from tests.pending import sealed
from tests.saml_provider import TestProvider, as_form_value
from tests.sampling import sampled

ROUTES = {
    f"{route.method} {route.path}": route for route in all_routes(application()) if not route.access.takes_directory_key
}
"""All but those of `/scim/v2`, which have keys and shapes of their own (`tests/domain/test_scim_*`)."""
MEDIA_TYPES = {
    "application/json",
    "application/msgpack",
    "text/csv",
    "application/x-ndjson",
    "application/vnd.apache.arrow.stream",
    "text/event-stream",
}
"""Each is asked for of every route; only those that it declares may come."""
V1 = "/api/v1"
SIMULATED = {"name": "Of the walk", "type": "simulated", "config": {}}
PROVIDER = {
    "kind": "oidc",
    "name": "walked",
    "label": "Of the walk",
    "issuer": "https://idp.example.org",
    "client_id": "hub",
    "client_secret": "of the walk",
}
BODIES: Mapping[str, Mapping[str, Any]] = {
    "POST /api/v1/auth/register": {"email": "walker@example.org", "password": PASSWORD},
    "POST /api/v1/auth/login": {"email": "EMAIL", "password": PASSWORD},
    "POST /api/v1/auth/refresh": {"refresh_token": "REFRESH"},
    "POST /api/v1/auth/change-password": {
        "current_password": PASSWORD,
        "new_password": "a heron waits where two rivers meet",
    },
    "POST /api/v1/auth/step-up": {"password": PASSWORD},
    "POST /api/v1/auth/factors": {"type": "totp", "name": "Of the walk"},
    "POST /api/v1/auth/forgot-password": {"email": "EMAIL"},
    "POST /api/v1/auth/reset-password": {"token": "RESET", "new_password": "a heron waits where two rivers meet"},
    "POST /api/v1/auth/change-email": {"new_email": "new.walker@example.org", "current_password": PASSWORD},
    "POST /api/v1/auth/confirm-email": {"token": "CONFIRM"},
    "POST /api/v1/auth/accept-invitation": {"token": "INVITATION", "password": PASSWORD},
    "POST /api/v1/auth/introspect": {"token": "TOKEN"},
    "POST /api/v1/auth/token": {"grant_type": "refresh_token", "refresh_token": "REFRESH"},
    "POST /api/v1/auth/revoke": {"token": "REFRESH"},
    "POST /api/v1/oauth-clients": {"name": "Of the walk", "redirect_uris": ["https://app.example.org/"]},
    "PATCH /api/v1/oauth-clients/{oauth_client_id}": {"name": "Another of the walk"},
    "POST /api/v1/auth/identities": {"provider": "walk", "redirect_uri": "http://127.0.0.1:9/done"},
    "POST /api/v1/users": {"email": "another.walker@example.org"},
    "PATCH /api/v1/users/{user_id}": {"first_name": "Ada"},
    "POST /api/v1/roles": {"name": "Of the walk"},
    "POST /api/v1/tenants": {
        "slug": "walked",
        "name": "Of the walk",
        "admin": {"email": "walker@example.org", "password": PASSWORD},
    },
    "PATCH /api/v1/tenants/{tenant_id}": {"name": "Another."},
    "PATCH /api/v1/tenant-settings": {"max_key_days": 30},
    "PATCH /api/v1/roles/{role_id}": {"description": "Another."},
    "PUT /api/v1/roles/{role_id}/approver-roles": {"items": []},
    "POST /api/v1/service-accounts": {"name": "Of the walk"},
    "POST /api/v1/role-requests/{request_id}/comments": {"text": "Of the walk."},
    "PATCH /api/v1/role-assignments/{assignment_id}": {"expires_at": "2100-01-01T00:00:00Z"},
    "PATCH /api/v1/service-accounts/{account_id}": {"description": "Another."},
    "PUT /api/v1/permissions/{permission_name}": {"description": "See dashboards."},
    "POST /api/v1/events/redeliver": {"from": "2030-01-01T00:00:00Z", "to": "2030-01-02T00:00:00Z"},
    "POST /api/v1/authz/check": {"checks": [{"action": "roles:read"}]},
    "POST /api/v1/identity-providers": PROVIDER,
    "PATCH /api/v1/identity-providers/{provider_id}": {"label": "Another."},
    "POST /api/v1/groups": {"name": "Of the walk"},
    "PATCH /api/v1/groups/{group_id}": {"description": "Another."},
    "POST /api/v1/data-domains": {"name": "Of the walk"},
    "PATCH /api/v1/data-domains/{domain_id}": {"description": "Another."},
    "POST /api/v1/api-keys": {"name": "Of the walk"},
    "POST /api/v1/scim-keys": {"name": "Of the walk"},
    "POST /api/v1/webhooks": {"url": "https://no-such-name.invalid/"},
    "PATCH /api/v1/webhooks/{webhook_id}": {"description": "Another."},
    "POST /api/v1/data-sources": SIMULATED,
    "POST /api/v1/data-sources/bulk": {"data_sources": [SIMULATED | {"name": "Of the walk, too"}]},
    "PATCH /api/v1/data-sources/{source_id}": {"description": "Another."},
    "POST /api/v1/data-sources/test": {"type": "simulated", "config": {}},
}
"""What each route takes; of EMAIL and its like the caller's own."""


ASKED = LOGIN | {"redirect_uri": "http://127.0.0.1:9/done"}
"""Of the hub, by whom an identity provider is to sign in."""

DELIVERY = """
    INSERT INTO webhook_deliveries (id, tenant_id, webhook_id, event_id, event_type, subject, status, created_at, expires_at)
    SELECT gen_random_uuid(), tenant_id, $1, id, 'role.created', subject, 'failed', now(), now()
    FROM outbox_events LIMIT 1 RETURNING id"""


LINKS = {"reset": "RESET", "email": "CONFIRM", "invitation": "INVITATION"}
"""By page, the token of `World.links_of` that its form takes."""


class World:
    """One of everything, so that every route has something to answer with."""

    def __init__(self, hub: Hub, records: Records, provider: Provider, saml: TestProvider) -> None:
        self.hub = hub
        self.saml = saml
        self.provider = provider
        self.records = records
        self.known: dict[str, str] = {"type_name": "simulated", "name": "swagger.css"}

    async def prepare(self) -> None:
        new = {"kind": "oidc", "name": "walk", "label": "Of the walk", "issuer": self.provider.issuer}
        await self.send(
            "POST", f"{V1}/identity-providers", new | {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}
        )
        await self.by_provider("callback", "application/json")  # whoever comes again is somebody who is known
        metadata = {"metadata_xml": self.saml.metadata().decode()}
        await self.send(
            "POST",
            f"{V1}/identity-providers",
            {"kind": "saml", "name": "walk-saml", "label": "Of the walk"} | metadata,
        )
        self.saml.know((await self.by_saml("metadata", "application/xml")).content)
        await self.by_saml("finish", "application/json")
        source = await registered(self.hub, type="simulated", config={"objects": 1})
        self.known["source_id"] = source["id"]
        self.known["job_id"] = (await discovered(self.hub, f"{SOURCES}/{source['id']}"))["id"]
        (found,) = (await objects(self.hub, f"{SOURCES}/{source['id']}")).values()
        self.known["object_id"] = found["id"]
        await seal_all(self.hub)
        (row,) = (await self.hub.admin.get(f"{V1}/audit-events?limit=1")).json()["items"]
        self.known |= {"event_id": row["id"], "number": "1"}

    async def ids_for(self, route: Route) -> dict[str, str]:
        """Whatever is changed is new, and nothing else hangs on it."""
        made: dict[str, str] = {}
        if "user_id" in route.path_parameters:
            made["user_id"] = (await self.send("POST", f"{V1}/users", {"email": f"{new_name()}@example.org"}))["id"]
        if "role_id" in route.path_parameters:
            made["role_id"] = (await self.send("POST", f"{V1}/roles", {"name": new_name()}))["id"]
        if "provider_id" in route.path_parameters:
            provider = PROVIDER | {"name": f"w{uuid4().hex}"}
            made["provider_id"] = (await self.send("POST", f"{V1}/identity-providers", provider))["id"]
        if "key_id" in route.path_parameters:
            made["key_id"] = (await self.send("POST", f"{V1}/api-keys", {"name": new_name()}))["id"]
        if "scim_key_id" in route.path_parameters:
            made["scim_key_id"] = (await self.send("POST", f"{V1}/scim-keys", {"name": new_name()}))["id"]
        if "invitation_id" in route.path_parameters:
            body = {"email": f"{new_name()}@example.org"}
            made["invitation_id"] = (await self.send("POST", f"{V1}/users/invitations", body))["id"]
        if {"webhook_id", "delivery_id"} & {*route.path_parameters}:
            told = {"url": "https://no-such-name.invalid/"}
            made["webhook_id"] = (await self.send("POST", f"{V1}/webhooks", told))["id"]
            made["delivery_id"] = str(await self.records.one(DELIVERY, UUID(made["webhook_id"])))
        if "oauth_client_id" in route.path_parameters:
            client = {"name": new_name(), "redirect_uris": ["https://app.example.org/"]}
            made["oauth_client_id"] = (await self.send("POST", f"{V1}/oauth-clients", client))["id"]
        if "account_id" in route.path_parameters:
            made["account_id"] = (await self.send("POST", f"{V1}/service-accounts", {"name": new_name()}))["id"]
        if "assignment_id" in route.path_parameters:
            made["assignment_id"] = (await self.send("POST", f"{V1}/role-assignments", await self.assignment()))["id"]
        if "review_id" in route.path_parameters:
            made |= await self.reviewed()
        if "delegation_id" in route.path_parameters:
            made["delegation_id"] = (await self.send("POST", f"{V1}/delegations", await self.delegation()))["id"]
        if "request_id" in route.path_parameters:
            made["request_id"] = await self.asked_for(route)
        if "tenant_id" in route.path_parameters:
            admin = {"email": "walker@example.org", "password": PASSWORD}
            new = {"slug": new_name(), "name": "Of the walk", "admin": admin}
            made["tenant_id"] = (await self.send("POST", f"{V1}/tenants", new))["id"]
        for kind, name in (("groups", "group_id"), ("data-domains", "domain_id")):
            if name in route.path_parameters:
                made[name] = (await self.send("POST", f"{V1}/{kind}", {"name": new_name()}))["id"]
        if route.method in ("PATCH", "DELETE") and "source_id" in route.path_parameters:
            made["source_id"] = (await registered(self.hub))["id"]
        if "permission_name" in route.path_parameters:
            made["permission_name"] = f"walk.x{new_name()}:read"
            await self.send("PUT", f"{V1}/permissions/{made['permission_name']}", {"description": "Walk."})
        if route.path.endswith("/jobs/{job_id}/cancel"):
            made["source_id"] = (await registered(self.hub, type="simulated", config={}))["id"]
            made["job_id"] = (await self.send("POST", f"{SOURCES}/{made['source_id']}/discover"))["id"]
        if route.method == "DELETE" and {"user_id", "role_id"} == made.keys():
            await self.send("PUT", f"{V1}/users/{made['user_id']}/roles/{made['role_id']}")
        if route.method == "DELETE" and {"user_id", "group_id"} == made.keys():
            await self.send("PUT", f"{V1}/groups/{made['group_id']}/members/{made['user_id']}")
        return self.known | made

    async def asked_for(self, route: Route) -> str:
        """A request of somebody new, or of the caller where it is to be cancelled; approved where it is to be revoked."""
        role = await self.requestable()
        client = self.hub.admin if route.path.endswith("/cancel") else await self.hub.user_with()
        asked = await client.post(f"{V1}/role-requests", json={"role_id": role, "justification": "Of the walk."})
        assert asked.status_code == 201, asked.text
        request_id = str(asked.json()["id"])
        if route.path.endswith("/revoke"):
            await self.send("POST", f"{V1}/role-requests/{request_id}/approve")
        return request_id

    async def review(self) -> dict[str, Any]:
        """Of a role that somebody new holds."""
        given = await self.assignment()
        await self.send("POST", f"{V1}/role-assignments", given)
        return {
            "name": "Of the walk",
            "role_id": given["role_id"],
            "due_at": "2100-01-01T00:00:00Z",
            "on_no_answer": "keep",
        }

    async def reviewed(self) -> dict[str, str]:
        review = await self.send("POST", f"{V1}/access-reviews", await self.review())
        (line,) = (await self.send("GET", f"{V1}/access-reviews/{review['id']}/items"))["items"]
        return {"review_id": review["id"], "item_id": line["id"]}

    async def delegation(self) -> dict[str, Any]:
        user = await self.send("POST", f"{V1}/users", {"email": f"{new_name()}@example.org"})
        return {"to_user_id": user["id"], "ends_at": "2100-01-01T00:00:00Z"}

    async def requestable(self) -> str:
        """A role on which everybody decides."""
        role = await self.send("POST", f"{V1}/roles", {"name": new_name(), "is_requestable": True})
        approvers = (await self.send("GET", f"{V1}/roles?name=public"))["items"][0]["id"]
        await self.send("PUT", f"{V1}/roles/{role['id']}/approver-roles", [approvers])
        return str(role["id"])

    async def assignment(self) -> dict[str, Any]:
        """The body that gives somebody new a new role."""
        user = await self.send("POST", f"{V1}/users", {"email": f"{new_name()}@example.org"})
        role = await self.send("POST", f"{V1}/roles", {"name": new_name()})
        return {"subject": {"type": "user", "id": user["id"]}, "role_id": role["id"]}

    async def send(self, method: str, path: str, body: Any = None) -> Any:
        answer = await self.hub.admin.request(method, path, json=body)
        assert answer.is_success, answer.text
        return answer.json()

    async def call(self, route: Route, accept: str) -> httpx.Response:
        """As somebody who may do everything, or as somebody new where it is about oneself."""
        if "/auth/oidc/" in route.path:
            return await self.by_provider(route.path.rpartition("/")[2], accept)
        if "/auth/saml/" in route.path:
            return await self.by_saml(route.path.rpartition("/")[2], accept)
        client, body = self.hub.admin, BODIES.get(f"{route.method} {route.path}", {})
        path = route.path
        if path.startswith(f"{V1}/auth/"):
            client, body = await self.somebody(body)
            (session,) = (await client.get(f"{V1}/auth/sessions")).json()["items"]
            path = path.replace("{session_id}", session["id"])
            if "{identity_id}" in path:
                me = (await client.get(f"{V1}/auth/me")).json()["user"]
                path = path.replace("{identity_id}", await self.identity(me["email"]))
        if "/factors/{" in path or path.startswith((f"{V1}/auth/mfa", f"{V1}/auth/passkey")):
            path, body = await self.with_factors(client, path, body)
        if path.startswith("/sign-in"):
            client, path, body = await self.on_the_page(route)
        for name, value in (await self.ids_for(route)).items():
            path = path.replace(f"{{{name}}}", value)
        if route.method == "POST" and path.endswith("/role-assignments"):
            body = await self.assignment()
        if route.method == "POST" and path.endswith("/users/invitations"):
            body = {"email": f"{new_name()}@example.org"}
        if route.method == "POST" and path.endswith("/access-reviews"):
            body = await self.review()
        if route.method == "POST" and path.endswith("/delegations"):
            body = await self.delegation()
        if route.method == "POST" and path.endswith("/role-requests"):
            body = {"role_id": await self.requestable(), "justification": "Of the walk."}
        if path.endswith("/preview"):
            body = {"object": self.known["object_id"], "limit": 1}
        form = {"data": body} if route.access.takes_form else {"json": body or None}
        if path.endswith("/auth/authorize"):
            client = self.hub.client()
            path += f"?{urlencode(Flow(self.hub).parameters())}"
        if path in (f"{V1}/auth/token", f"{V1}/auth/revoke"):
            client = self.hub.client()
        has_end = accept != "text/event-stream" or accept not in route.outcomes.also_as
        has_end &= path != f"{V1}/jobs/events"  # which goes on until one's own jobs have ended
        return await client.request(route.method if has_end else "HEAD", path, headers={"accept": accept}, **form)

    async def on_the_page(self, route: Route) -> tuple[httpx.AsyncClient, str, dict[str, Any]]:
        """Somebody new with a passkey and recovery codes, in a browser that has begun to sign in."""
        cookie, client = new_browser(), self.hub.client()
        client.cookies.set(cookie_name(self.hub.settings), cookie)
        request = sealed(self.hub.parts.key_ring, cookie)
        if route.path.endswith("/assets/{name}"):
            return client, "/sign-in/assets/sign-in.css", {}
        person = await Person.new(self.hub, self.records)
        form = {"request": request, "email": person.email, "password": PASSWORD}
        if route.path == "/sign-in/passkey" and route.method == "POST":
            passkey = await person.set_up_passkey()
            begun = (await client.post(f"{V1}/auth/passkey/options")).json()
            credential = msgspec.json.encode(passkey.get(begun["options"])).decode()
            form = {"request": request, "token": begun["token"], "credential": credential}
        page = route.path.removeprefix("/sign-in/")
        if page in LINKS:
            form = {"token": (await self.links_of(person.email))[LINKS[page]], "password": PASSWORD + " anew"}
        if "{step}" in route.path:
            await person.set_up_passkey()
            codes = await person.recovery_codes()
            next_page = (await client.post("/sign-in", data=form)).headers["location"]
            shown = (await client.get(next_page)).text
            fields = dict(re.findall(r'name="(request|mfa_token)" value="([^"]+)"', shown))
            form, request = {**fields, "code": codes[0]}, fields["request"]
        path = route.path.replace("{step}", "factor")
        return (client, path, form) if route.method == "POST" else (client, f"{path}?request={request}", {})

    async def with_factors(
        self, client: httpx.AsyncClient, path: str, body: Mapping[str, Any]
    ) -> tuple[str, Mapping[str, Any]]:
        """The caller has begun to set up an authenticator app, or signs in with a passkey or a recovery code."""
        email = (await client.get(f"{V1}/auth/me")).json()["user"]["email"]
        person = Person(self.hub, self.records, email, client)
        if "{factor_id}" in path:
            made = (await client.post(f"{V1}/auth/factors", json={"type": "totp", "name": "Of the walk"})).json()
            code = {"code": pyotp.TOTP(made["secret"]).now()} if path.endswith("/confirm") else {}
            return path.replace("{factor_id}", made["id"]), code
        passkey = await person.set_up_passkey()
        if path.endswith("/mfa"):
            codes, mfa = await person.recovery_codes(), await person.password()
            return path, {"mfa_token": mfa["token"], "method": "recovery", "code": codes[0]}
        begun = (await self.hub.client().post(f"{V1}/auth/passkey/options")).json()
        if path.endswith("/options"):
            return path, {}
        return path, {"token": begun["token"], "credential": passkey.get(begun["options"])}

    async def links_of(self, email: str) -> dict[str, str]:
        """The tokens of letters to somebody."""
        user_id = await self.records.one("SELECT id FROM users WHERE email = $1", email)
        found: dict[str, str] = {}
        async with unit_of_work_of(self.hub.parts) as work:
            for name, kind in (("RESET", "reset_password"), ("CONFIRM", "confirm_email")):
                to = email if name == "RESET" else f"{new_name()}@example.org"
                letter = await write_letter(work, kind, to, user_id=user_id)  # type: ignore[arg-type]
                found[name] = link_of(work, letter)
        invited = await self.send("POST", f"{V1}/users/invitations", {"email": f"{new_name()}@example.org"})
        return {name: link.rpartition("token=")[2] for name, link in {**found, "INVITATION": invited["link"]}.items()}

    async def by_provider(self, step: str, accept: str) -> httpx.Response:
        """One step of a sign-in by an identity provider, after those before it."""
        browser = Browser(self.hub, self.provider, "walk")
        browser.client.headers["accept"] = accept
        answer = await browser.client.get(f"{browser.at}/login", params=ASKED)
        if step == "login":
            return answer
        answer = await browser.come_back(browser.arrive(answer))
        if step == "callback":
            return answer
        code = dict(parse_qsl(urlsplit(answer.headers["location"]).query))["code"]
        await exchange(self.hub, code, client_id="hub-cli", redirect_uri=ASKED["redirect_uri"])
        token = {"logout_token": self.provider.logout_token(sub="s-1")}
        return await browser.client.post(f"{browser.at}/{step}", data=token)

    async def by_saml(self, step: str, accept: str) -> httpx.Response:
        """Likewise, by one that speaks SAML."""
        at, headers, client = f"{V1}/auth/saml/walk-saml", {"accept": accept}, self.hub.client()
        if step == "metadata":
            return await client.get(f"{at}/metadata", headers=headers)
        answer = await client.get(f"{at}/login", params=ASKED, headers=headers)
        if step == "login":
            return answer
        request_id = dict(parse_qsl(urlsplit(answer.headers["location"]).query))["RelayState"]
        own = self.hub.settings.url + at
        said: dict[str, Any] = {"request_id": request_id, "attributes": {"mail": "walker@saml.example.org"}}
        response = self.saml.respond(audience=f"{own}/metadata", acs_url=f"{own}/acs", **said)
        form = {"SAMLResponse": as_form_value(response), "RelayState": request_id}
        answer = await client.post(f"{at}/acs", data=form, headers=headers)
        if step == "acs":
            return answer
        address = answer.headers["location"].removeprefix(self.hub.settings.url)
        return await client.get(address, headers=headers)

    async def identity(self, email: str) -> str:
        """Of somebody, as a provider would have given it."""
        identity_id = uuid4()
        await self.records.run(
            """INSERT INTO user_identities (id, tenant_id, user_id, kind, provider, issuer, subject, created_at)
               SELECT $1, tenant_id, id, 'oidc', 'walk', 'https://idp.example.org', $2, now()
               FROM users WHERE email = $3""",
            identity_id,
            str(identity_id),
            email,
        )
        return str(identity_id)

    async def somebody(self, body: Mapping[str, Any]) -> tuple[httpx.AsyncClient, dict[str, Any]]:
        """Somebody new, signed in, and the body with what is theirs in place of what it names."""
        email = await new_user(self.hub, self.records)
        tokens = await open_pair(self.hub, self.records, email)
        own = {"EMAIL": email, "REFRESH": tokens["refresh_token"], "TOKEN": tokens["access_token"]}
        if {"RESET", "CONFIRM", "INVITATION"} & {*body.values()}:
            own |= await self.links_of(email)
        return self.hub.client(tokens["access_token"]), {name: own.get(value, value) for name, value in body.items()}


def is_good(answer: httpx.Response) -> bool:
    return answer.is_success or answer.has_redirect_location


def new_name() -> str:
    return uuid4().hex


@pytest.fixture(scope="module")
async def world(hub: Hub, records: Records, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with serving_provider() as provider:
        made = World(hub, records, provider, TestProvider.made_in(tmp_path_factory.mktemp("saml")))
        await made.prepare()
        yield made


@pytest.mark.anyio
@pytest.mark.parametrize("name", sorted(ROUTES))
async def test_a_route_sends_an_entity_tag_where_it_declares_one(world: World, name: str) -> None:
    """A new route has to be called here with something that it answers with a success."""
    answer = await world.call(ROUTES[name], "application/json")
    assert is_good(answer), f"{answer.status_code} {answer.text[:300]}"
    assert ("etag" in answer.headers) == ROUTES[name].sends_entity_tag


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("name", "media_type"),
    sampled(
        product([name for name in sorted(ROUTES) if name.startswith("GET ") or "preview" in name], sorted(MEDIA_TYPES)),
        every=5,
    ),
)
async def test_a_route_answers_in_the_media_types_that_it_declares(world: World, name: str, media_type: str) -> None:
    route = ROUTES[name]
    answer = await world.call(route, media_type)
    assert is_good(answer), answer.text
    if answer.has_redirect_location:
        return
    sent = answer.headers["content-type"].partition(";")[0]
    if route.answer_type is bytes:
        assert sent in ("text/html", "text/css", "application/json", "application/samlmetadata+xml"), (
            "pages and the document have one form each"
        )
    elif route.answer_type is str:
        assert sent == str(route.handler.media_type)
    else:
        declared = {"application/json", "application/msgpack", *route.outcomes.also_as}
        assert sent == (media_type if media_type in declared else "application/json")
