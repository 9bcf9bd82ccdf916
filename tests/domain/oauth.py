"""A client of the hub's OAuth endpoints by hand, and the one step of a sign-in that is not its own: the page."""

import asyncio
import hmac
import json
import secrets
from base64 import b64encode, urlsafe_b64encode
from dataclasses import dataclass, field
from hashlib import sha256
from time import monotonic, time
from typing import Any
from urllib.parse import parse_qsl, quote_plus, urlsplit
from uuid import UUID, uuid4

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.core.sealed_values import unseal
from app.core.tenancy import DEFAULT_TENANT_ID
from app.domain.auth.sessions import Authenticated
from app.domain.oauth.assertions import ASSERTION_TYPE
from app.domain.sign_in.finishing import finish
from app.domain.sign_in.pending import PENDING as PURPOSE
from app.domain.sign_in.pending import PendingSignIn
from app.domain.work import unit_of_work_of
from tests.conftest import PASSWORD, Hub

AUTHORIZE = "/api/v1/auth/authorize"
TOKEN = "/api/v1/auth/token"
REVOKE = "/api/v1/auth/revoke"
CLIENTS = "/api/v1/oauth-clients"
ACCOUNTS = "/api/v1/service-accounts"
ME = "/api/v1/auth/me"
CALLBACK = "http://127.0.0.1:49152/callback"
"""Of `hub-cli`."""
WEB = "https://app.example.org/signed-in"
"""Of clients that are registered here."""


@dataclass
class Somebody:
    id: str
    email: str
    tenant_id: UUID = DEFAULT_TENANT_ID


async def somebody(hub: Hub, *, tenant_id: UUID = DEFAULT_TENANT_ID) -> Somebody:
    user = await hub.new_user(password=PASSWORD)
    return Somebody(user["id"], user["email"], tenant_id)


def challenge_of(verifier: str) -> str:
    return urlsafe_b64encode(sha256(verifier.encode()).digest()).rstrip(b"=").decode()


@dataclass
class Flow:
    """One sign-in of a client's users."""

    hub: Hub
    client_id: str = "hub-cli"
    redirect_uri: str = CALLBACK
    secret: str | None = None
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48))
    state: str = field(default_factory=lambda: secrets.token_urlsafe(8))

    def parameters(self, **changed: str | None) -> dict[str, str]:
        """Those of a good request but for what is given; None: left out."""
        good: dict[str, str | None] = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "code_challenge": challenge_of(self.verifier),
            "code_challenge_method": "S256",
            "state": self.state,
            "scope": "api",
        }
        return {name: value for name, value in (good | changed).items() if value is not None}

    async def begin(self, **changed: str | None) -> httpx.Response:
        return await self.hub.client().get(AUTHORIZE, params=self.parameters(**changed))

    async def code(self, who: Somebody, **changed: str | None) -> str:
        """What the browser brings back once somebody has signed in."""
        begun = await self.begin(**changed)
        assert begun.status_code == 302, begun.text
        ended = await sign_in(self.hub, begun.headers["location"], who)
        answer = dict(parse_qsl(urlsplit(ended).query))
        assert ended.startswith(self.redirect_uri)
        assert (answer["state"], answer["iss"]) == (self.state, self.hub.settings.url)
        return answer["code"]

    async def redeem(self, given: str, /, **changed: str | None) -> httpx.Response:
        form: dict[str, str | None] = {
            "grant_type": "authorization_code",
            "code": given,
            "redirect_uri": self.redirect_uri,
            "code_verifier": self.verifier,
            "client_id": self.client_id,
            "client_secret": self.secret,
        }
        return await ask(self.hub, TOKEN, **(form | changed))

    async def sign_in(self, who: Somebody) -> dict[str, Any]:
        answer = await self.redeem(await self.code(who))
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def refresh(self, token: str, **changed: str | None) -> httpx.Response:
        form = {"grant_type": "refresh_token", "refresh_token": token, "client_id": self.client_id}
        return await ask(self.hub, TOKEN, **(form | {"client_secret": self.secret} | changed))


async def sign_in(hub: Hub, location: str, who: Somebody) -> str:
    """Where the browser is sent by the sign-in page to which it was sent, once somebody has shown who they are."""
    assert urlsplit(location).path == f"{hub.settings.base_path}/sign-in"
    pending = pending_in(hub, location)
    async with unit_of_work_of(hub.parts, tenant_id=who.tenant_id) as work:
        return finish(work, pending, Authenticated(user_id=UUID(who.id), email=who.email))


def pending_in(hub: Hub, location: str) -> PendingSignIn:
    """What the page is told by its address."""
    sealed = dict(parse_qsl(urlsplit(location).query))["request"]
    pending = unseal(hub.parts.key_ring, PURPOSE, sealed, PendingSignIn)
    assert pending is not None
    return pending


async def ask(hub: Hub, path: str, *, basic: Any = None, **form: Any) -> httpx.Response:
    headers = {} if basic is None else {"Authorization": basic_header(*basic)}
    given = {name: value for name, value in form.items() if value is not None}
    return await hub.client().post(path, data=given, headers=headers)


def basic_header(client_id: str, secret: str) -> str:
    return "Basic " + b64encode(f"{quote_plus(client_id)}:{quote_plus(secret)}".encode()).decode()


async def registered_client(hub: Hub, **given: Any) -> dict[str, Any]:
    body = {"name": uuid4().hex, "redirect_uris": [WEB], **given}
    made = await hub.admin.post(CLIENTS, json=body)
    assert made.status_code == 201, made.text
    return dict(made.json())


async def flow_of_registered(hub: Hub, **given: Any) -> Flow:
    client = await registered_client(hub, **given)
    return Flow(hub, client["client_id"], WEB, client["client_secret"])


async def works(hub: Hub, token: str) -> bool:
    answer = await hub.client(token).get(ME)
    assert answer.status_code in (200, 401)
    return answer.status_code == 200


async def ends_within_a_second(hub: Hub, token: str) -> bool:
    """On a worker that may have remembered whom it is of."""
    began = monotonic()
    while await works(hub, token):
        if monotonic() - began > 1:
            return False
        await asyncio.sleep(0.02)
    return True


def assert_refused(answer: httpx.Response, name: str, status: int = 400) -> None:
    """In the shape of RFC 6749 section 5.2."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body) == {"error", "error_description"}
    assert body["error"] == name, body
    assert body["error_description"]
    assert answer.headers["cache-control"] == "no-store"
    by_header = "authorization" in answer.request.headers
    assert answer.headers.get("www-authenticate") == ('Basic realm="hub"' if status == 401 and by_header else None)


# Programs -------------------------------------------------------------------------------------------------------------


@dataclass
class Machine:
    """A service account with what it shows itself by."""

    hub: Hub
    account: dict[str, Any]
    key: dict[str, Any] = field(default_factory=dict)
    """As the API showed it; empty for one that signs."""
    private: Any = None
    algorithm: str = ""

    @property
    def id(self) -> str:
        return str(self.account["id"])

    async def ask(self, **changed: str | None) -> httpx.Response:
        form: dict[str, str | None] = {"grant_type": "client_credentials"}
        if self.key:
            form |= {"client_id": self.id, "client_secret": self.key["key"]}
        else:
            form |= {"client_assertion_type": ASSERTION_TYPE, "client_assertion": self.assertion()}
        return await ask(self.hub, TOKEN, **(form | changed))

    async def token(self) -> str:
        answer = await self.ask()
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def claims(self, **changed: Any) -> dict[str, Any]:
        good = {
            "iss": self.id,
            "sub": self.id,
            "aud": self.hub.settings.url,
            "exp": int(time()) + 60,
            "jti": uuid4().hex,
        }
        return {name: value for name, value in (good | changed).items() if value is not None}

    def assertion(self, *, headers: dict[str, Any] | None = None, **changed: Any) -> str:
        return jwt.encode(self.claims(**changed), self.private, self.algorithm, headers=headers)


async def machine_with_key(hub: Hub, *, permissions: list[str] | None = None, **given: Any) -> Machine:
    account = await new_account(hub)
    owner = {"type": "service_account", "id": account["id"]}
    body = {"name": "k", "owner": owner, "permissions": permissions, **given}
    made = await hub.admin.post("/api/v1/api-keys", json=body)
    assert made.status_code == 201, made.text
    return Machine(hub, account, key=made.json())


async def machine_that_signs(hub: Hub, algorithm: str = "EdDSA", **of_key: str) -> Machine:
    private = new_private_key(algorithm)
    account = await new_account(hub, jwks={"keys": [public_jwk(private, algorithm) | of_key]})
    return Machine(hub, account, private=private, algorithm=algorithm)


def new_private_key(algorithm: str, bits: int = 2048) -> Any:
    match algorithm:
        case "EdDSA":
            return ed25519.Ed25519PrivateKey.generate()
        case "ES256":
            return ec.generate_private_key(ec.SECP256R1())
        case "RS256" | "PS256":
            return rsa.generate_private_key(65537, bits)
    raise ValueError(algorithm)


def signed_by_public_key(private: Any, claims: dict[str, Any], **header: str) -> str:
    """The oldest trick (RFC 8725 section 2.1): the public key as a shared secret. PyJWT refuses to write it, so that it
    is written by hand."""
    pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    parts = [json.dumps(part).encode() for part in ({"alg": "HS256", "typ": "JWT", **header}, claims)]
    signed = b".".join(urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    return b".".join((signed, urlsafe_b64encode(hmac.digest(pem, signed, "sha256")).rstrip(b"="))).decode()


def public_jwk(private: Any, algorithm: str) -> dict[str, str]:
    found: dict[str, Any] = jwt.get_algorithm_by_name(algorithm).to_jwk(private.public_key(), as_dict=True)
    return {name: value for name, value in found.items() if name not in ("key_ops", "alg")}


async def new_account(hub: Hub, **given: Any) -> dict[str, Any]:
    made = await hub.admin.post(ACCOUNTS, json={"name": uuid4().hex, **given})
    assert made.status_code == 201, made.text
    return dict(made.json())


async def give_role(hub: Hub, account_id: str, *permissions: str) -> None:
    role = await hub.new_role(permissions=list(permissions))
    subject = {"type": "service_account", "id": account_id}
    given = await hub.admin.post("/api/v1/role-assignments", json={"subject": subject, "role_id": role["id"]})
    assert given.status_code == 201, given.text
