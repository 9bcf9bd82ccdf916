"""Fills a fresh hub through its own API: what F1 and P1 read are the rows that the hub wrote."""

import json
from dataclasses import dataclass
from typing import Any

import jwt

from bench.contestants import ADMIN_EMAIL, ADMIN_PASSWORD
from bench.load import Request
from bench.probe import WrongAnswer, expect

ROLES = 200
SOURCES = 200
_API = "/api/v1"


@dataclass(frozen=True)
class HubClient:
    """The hub's side of a bench: what every request to it needs."""

    url: str
    token: str

    def request(self, method: str, path: str, body: object = None, **headers: str) -> Request:
        sent = {"Authorization": f"Bearer {self.token}", **headers}
        if body is None:
            return Request(f"{self.url}{_API}{path}", method, sent)
        return Request(f"{self.url}{_API}{path}", method, sent | {"Content-Type": "application/json"}, json.dumps(body))

    def get(self, path: str) -> Any:
        return expect(self.request("GET", path), 200).json

    def create(self, path: str, body: object) -> Any:
        return expect(self.request("POST", path, body), 201).json


@dataclass(frozen=True)
class Rows:
    role_id: str
    source_id: str | None
    """None where the hub took no data source; `refusal` then says why."""
    refusal: str
    user_id: str
    tenant_id: str


def login_request(url: str) -> Request:
    body = json.dumps({"email": ADMIN_EMAIL, "password": ADMIN_PASSWORD})
    return Request(f"{url}{_API}/auth/login", "POST", {"Content-Type": "application/json"}, body)


def sign_in(url: str) -> HubClient:
    """A fresh access token; they last 15 minutes, less than a long bench."""
    return HubClient(url, expect(login_request(url), 200).json["access_token"])


def new_role(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "description": "People who look at what was sold, by shop and by week.",
        "permissions": ["data-sources:read", "roles:read"],
    }


def new_source(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "description": "Orders and payments of the web shop.",
        "type": "postgresql",
        "config": {"host": "db.example.com", "port": 5432, "database": "shop", "username": "reader"},
        "secrets": {"password": "correct horse battery staple"},
        "tags": ["shop", "orders"],
    }


def fill(hub: HubClient) -> Rows:
    roles = [hub.create("/roles", new_role(f"analysts {n:03}")) for n in range(ROLES)]
    # From the middle of the table, so that neither end of an index is favoured.
    source_id, refusal = _fill_sources(hub)
    claims = jwt.decode(hub.token, options={"verify_signature": False})
    return Rows(roles[ROLES // 2]["id"], source_id, refusal, claims["sub"], claims["tid"])


def _fill_sources(hub: HubClient) -> tuple[str | None, str]:
    """The roles can be measured without them."""
    try:
        sources = [hub.create("/data-sources", new_source(f"shop {n:03}")) for n in range(SOURCES)]
    except WrongAnswer as error:
        return None, str(error)
    return sources[SOURCES // 2]["id"], ""
