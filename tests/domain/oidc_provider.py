"""An OpenID provider of the tests' own: it says whatever a test wants, true or not."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from secrets import token_urlsafe
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx
import jwt

from tests.conftest import Hub
from tests.domain.oauth import TOKEN, WEB, ask, challenge_of, new_private_key
from tests.receivers import Answering, Received, answers, receiving

PAGE = WEB
"""Of HUB_SIGN_IN_REDIRECTS."""
VERIFIER = token_urlsafe(48)
CHALLENGE = challenge_of(VERIFIER)
LOGIN = {"redirect_uri": PAGE, "code_challenge": CHALLENGE, "code_challenge_method": "S256"}
"""What the page asks of the hub."""
CLIENT_ID, CLIENT_SECRET = "hub", "a secret of +/& signs"
BACK_CHANNEL = "http://schemas.openid.net/event/backchannel-logout"


class Key:
    """A signing key of the provider's."""

    def __init__(self, kid: str, algorithm: str = "RS256", bits: int = 2048) -> None:
        self.kid, self.algorithm = kid, algorithm
        self.private = new_private_key(algorithm, bits)
        public = jwt.get_algorithm_by_name(algorithm).to_jwk(self.private.public_key(), as_dict=True)
        self.public_jwk = public | {"kid": kid, "use": "sig"}

    def sign(self, claims: dict[str, Any], **header: Any) -> str:
        return jwt.encode(claims, self.private, algorithm=self.algorithm, headers={"kid": self.kid, **header})


FIRST = Key("first")


@dataclass
class Provider:
    issuer: str = ""
    keys: list[Key] = field(default_factory=lambda: [FIRST])
    """The first one signs, and all are shown."""
    claims: dict[str, Any] = field(default_factory=dict)
    """Of whoever signs in next, in the ID token; what is `...` is left out."""
    userinfo: dict[str, Any] | None = None
    discovery: dict[str, Any] = field(default_factory=dict)
    """What it says of itself beside the truth."""
    forge: Callable[[dict[str, Any]], str] | None = None
    """From claims to an ID token, in place of an honest signature."""
    token: dict[str, Any] = field(default_factory=dict)
    """Beside what a token answer says honestly."""
    instead: dict[str, Answering] = field(default_factory=dict)
    """By path, an answer of another kind."""
    asked: list[Received] = field(default_factory=list)
    nonces: dict[str, str] = field(default_factory=dict)
    """By the code that it gives, which is the challenge that came along."""
    nonce: str = ""
    """Of the sign-in that is under way."""

    def fetched(self, path: str) -> int:
        return sum(each.path == path for each in self.asked)

    def id_token(self) -> str:
        now = int(time.time())
        usual = {"iss": self.issuer, "aud": CLIENT_ID, "sub": "s-1", "nonce": self.nonce, "iat": now, "exp": now + 300}
        usual |= {"email": "ada@example.org", "email_verified": True, "given_name": "Ada", "family_name": "Lovelace"}
        claims = {name: value for name, value in (usual | self.claims).items() if value is not ...}
        return self.forge(claims) if self.forge else self.keys[0].sign(claims)

    def logout_token(self, **said: Any) -> str:
        now = int(time.time())
        usual = {"iss": self.issuer, "aud": CLIENT_ID, "iat": now, "exp": now + 120, "jti": token_urlsafe(8)}
        claims = usual | {"events": {BACK_CHANNEL: {}}} | said
        return self.keys[0].sign({k: v for k, v in claims.items() if v is not ...}, typ="logout+jwt")

    async def answer(self, received: Received, writer: asyncio.StreamWriter) -> None:
        self.asked.append(received)
        path = received.path.partition("?")[0]
        await self.instead.get(path, self._honest(path, received))(received, writer)

    def _honest(self, path: str, received: Received) -> Answering:
        if path == "/.well-known/openid-configuration":
            return as_json(self._document())
        if path == "/jwks":
            return as_json({"keys": [key.public_jwk for key in self.keys]})
        if path == "/userinfo" and self.userinfo is not None:
            return as_json(self.userinfo)
        if path == "/token":
            return self._tokens(received)
        return answers(404)

    def _document(self) -> dict[str, Any]:
        ends = {"authorization": "authorize", "token": "token", "userinfo": "userinfo"}
        said: dict[str, Any] = {f"{name}_endpoint": f"{self.issuer}/{place}" for name, place in ends.items()}
        if self.userinfo is None:
            del said["userinfo_endpoint"]
        return {"issuer": self.issuer, "jwks_uri": f"{self.issuer}/jwks", **said, **self.discovery}

    def _tokens(self, received: Received) -> Answering:
        form = dict(parse_qsl(received.body.decode()))
        made = challenge_of(form["code_verifier"])
        assert made == form["code"]
        self.nonce = self.nonces[made]
        honest = {"access_token": "at-1", "token_type": "Bearer", "expires_in": 60, "id_token": self.id_token()}
        return as_json({name: value for name, value in (honest | self.token).items() if value is not ...})


def as_json(document: object, status: int = 200) -> Answering:
    return answers(status, json.dumps(document).encode(), content_type="application/json; charset=utf-8")


@asynccontextmanager
async def serving_provider() -> AsyncIterator[Provider]:
    provider = Provider()

    async def answering(received: Received, writer: asyncio.StreamWriter) -> None:
        await provider.answer(received, writer)

    async with receiving(answering) as receiver:
        provider.issuer = f"http://127.0.0.1:{receiver.port}"
        yield provider


class Browser:
    """Of somebody who signs in by the provider, as far as the hub can tell."""

    def __init__(self, hub: Hub, provider: Provider, name: str, tenant: str | None = None) -> None:
        self.hub, self.provider, self.name, self.tenant = hub, provider, name, tenant
        self.client = hub.client()

    @property
    def at(self) -> str:
        return f"/api/v1/auth/oidc/{self.name}"

    async def go(self, **given: str) -> dict[str, str]:
        """To the provider: what it is asked."""
        asked = LOGIN | {"state": "mine"} | ({"tenant": self.tenant} if self.tenant else {}) | given
        return self.arrive(await self.client.get(f"{self.at}/login", params=asked))

    def arrive(self, answer: httpx.Response) -> dict[str, str]:
        assert answer.status_code == 302, answer.text
        place = urlsplit(answer.headers["location"])
        assert f"{place.scheme}://{place.netloc}" == self.provider.issuer
        there = dict(parse_qsl(place.query))
        self.provider.nonces[there["code_challenge"]] = there["nonce"]
        return there

    async def come_back(self, there: dict[str, str], **given: str) -> httpx.Response:
        named = dict(parse_qsl(urlsplit(there.get("redirect_uri", "")).query))
        answered = {"code": there.get("code_challenge", "c"), "state": there["state"], **named, **given}
        return await self.client.get(f"{self.at}/callback", params=answered)

    async def sign_in(self, **given: str) -> dict[str, str]:
        """There and back: what the page at the end is told."""
        return ended(await self.come_back(await self.go(), **given))

    async def signed_in(self, **given: str) -> httpx.AsyncClient:
        """The client of who has signed in."""
        told = await self.sign_in(**given)
        assert "code" in told, told
        return self.hub.client((await exchange(self.hub, told["code"])).json()["access_token"])


async def exchange(hub: Hub, code: str, **given: str) -> httpx.Response:
    """The code at the end of a sign-in, as the page does it but for what is given."""
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": PAGE, "code_verifier": VERIFIER}
    return await ask(hub, TOKEN, **(form | given))


async def groups_of(hub: Hub, user_id: str) -> set[str]:
    found = set()
    for group in (await hub.admin.get("/api/v1/groups", params={"limit": 200})).json()["items"]:
        members = await hub.admin.get(f"/api/v1/groups/{group['id']}/members", params={"limit": 200})
        if user_id in {member["id"] for member in members.json()["items"]}:
            found.add(group["name"])
    return found


def ended(answer: httpx.Response) -> dict[str, str]:
    """At the page that wanted the sign-in."""
    assert answer.status_code == 302, answer.text
    address, _, query = answer.headers["location"].partition("?")
    assert address == PAGE
    told = parse_qs(query)
    assert told["state"] == ["mine"]
    return {name: values[0] for name, values in told.items()}
