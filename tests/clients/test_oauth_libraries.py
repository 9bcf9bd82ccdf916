"""Client libraries of other makers against a hub that is served: Authlib, openid-client under Node, and a command-line
program that listens on the loopback interface, written as RFC 8252 has it."""

import asyncio
import json
import os
import secrets
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import time
from typing import Any
from uuid import uuid4

import httpx
import jwt
import pytest
import uvicorn
from authlib.integrations.httpx_client import AsyncOAuth2Client
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc.jwk import ECKey, RSAKey

from app.core.embedded import EmbeddedPostgres
from tests import npm
from tests.conftest import Hub, running_hub
from tests.domain.oauth import (
    ME,
    REVOKE,
    TOKEN,
    WEB,
    Machine,
    machine_with_key,
    new_account,
    new_private_key,
    public_jwk,
    registered_client,
    sign_in,
    somebody,
)
from tests.ports import free_port

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
HERE = Path(__file__).parent
WITHIN_S = 60


@pytest.fixture(scope="module")
async def served(
    cluster: EmbeddedPostgres, migrated: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Hub]:
    """A hub of this process that answers on a loopback port, by the address that it goes by."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    async with running_hub(cluster, migrated, tmp_path_factory.mktemp("hub"), HUB_PUBLIC_URL=url) as hub:
        server = uvicorn.Server(uvicorn.Config(hub.app, port=port, lifespan="off", log_level="error"))
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        yield hub
        server.should_exit = True
        await serving


async def metadata_of(hub: Hub) -> dict[str, Any]:
    """All that a client has to know of a server but its address."""
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"{hub.settings.url}/.well-known/oauth-authorization-server")
        found: dict[str, Any] = answer.json()
    assert found["issuer"] == hub.settings.url
    return found


async def browse(hub: Hub, address: str) -> str:
    """As the browser that is sent to the address: where it ends, once somebody has signed in on the page."""
    async with httpx.AsyncClient(trust_env=False) as browser:
        begun = await browser.get(address)
    assert begun.status_code == 302, begun.text
    return await sign_in(hub, begun.headers["location"], await somebody(hub))


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post", "none"])
async def test_authlib_signs_somebody_in_refreshes_and_revokes(served: Hub, method: str) -> None:
    known = await metadata_of(served)
    registered = await registered_client(served, is_confidential=method != "none")
    async with AsyncOAuth2Client(
        registered["client_id"],
        registered["client_secret"],
        token_endpoint_auth_method=method,
        revocation_endpoint_auth_method=method,
        redirect_uri=WEB,
        scope="api",
        code_challenge_method="S256",
        token_endpoint=known["token_endpoint"],
        trust_env=False,
    ) as client:
        verifier = secrets.token_urlsafe(48)
        address, state = client.create_authorization_url(known["authorization_endpoint"], code_verifier=verifier)
        back = await browse(served, address)
        token = await client.fetch_token(authorization_response=back, state=state, code_verifier=verifier)
        assert (token["token_type"], token["scope"]) == ("Bearer", "api")
        me = await client.get(f"{served.settings.url}{ME}")
        assert me.status_code == 200, me.text
        refreshed = await client.refresh_token(known["token_endpoint"])
        assert refreshed["access_token"] != token["access_token"]
        revoked = await client.revoke_token(known["revocation_endpoint"], token=refreshed["refresh_token"])
        assert revoked.status_code == 200
        assert (await client.get(f"{served.settings.url}{ME}")).status_code == 401


async def test_authlib_of_requests_gets_a_token_by_secret(served: Hub) -> None:
    machine = await machine_with_key(served)
    session = OAuth2Session(machine.id, machine.key["key"], scope="api")
    session.trust_env = False
    token_endpoint, me = f"{served.settings.url}{TOKEN}", f"{served.settings.url}{ME}"
    granted = await asyncio.to_thread(session.fetch_token, token_endpoint, grant_type="client_credentials")
    assert granted["token_type"] == "Bearer"
    assert (await asyncio.to_thread(session.get, me)).json()["service_account"]["id"] == machine.id
    session.close()


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
async def test_authlib_gets_a_token_by_private_key_jwt(served: Hub, algorithm: str) -> None:
    private = new_private_key(algorithm)
    account = await new_account(served, jwks={"keys": [public_jwk(private, algorithm)]})
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    key = (RSAKey if algorithm == "RS256" else ECKey).import_key(pem)
    endpoint = f"{served.settings.url}{TOKEN}"
    async with AsyncOAuth2Client(
        account["id"], key, token_endpoint_auth_method="private_key_jwt", trust_env=False
    ) as client:
        for _ in range(2):
            within_a_minute = {"exp": int(time()) + 60}  # by itself it signs for an hour
            client.register_client_auth_method(PrivateKeyJWT(endpoint, within_a_minute, alg=algorithm))
            await client.fetch_token(endpoint, grant_type="client_credentials")
        me = await client.get(f"{served.settings.url}{ME}")
        assert me.json()["service_account"]["id"] == account["id"]


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA"])
async def test_openid_client_discovers_and_does_all_of_it(served: Hub, tmp_path: Path, algorithm: str) -> None:
    private = new_private_key(algorithm)
    machine = await machine_with_key(served)
    jwks = {"keys": [public_jwk(private, algorithm)]}
    assert (await served.admin.patch(f"/api/v1/service-accounts/{machine.id}", json={"jwks": jwks})).is_success
    jwk = jwt.get_algorithm_by_name(algorithm).to_jwk(private, as_dict=True)
    jwk = {name: value for name, value in jwk.items() if name in ("kty", "crv", "x", "y", "d")}
    registered = await registered_client(served, is_confidential=True)
    given = (served.settings.url, registered["client_id"], registered["client_secret"], WEB)
    async with npm_program(tmp_path, *given, machine.id, machine.key["key"], json.dumps(jwk), algorithm) as program:
        begun = await program.hear()
        program.tell(await browse(served, begun["address"]))
        signed_in = await program.hear()
        assert "iss" in signed_in["mixedUp"], signed_in
        assert signed_in["me"]["user"] is not None
        assert await program.hear() == {"gone": "invalid_grant"}
        got = await program.hear()
    for kind in ("bySecret", "byKey"):
        me = await served.client(got[kind]).get(ME)
        assert me.json()["service_account"]["id"] == machine.id
    assert got["expiresIn"] == 900


class Program:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def hear(self) -> Any:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), WITHIN_S)
        assert line, (await self._process.stderr.read()).decode()
        return json.loads(line)

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())


@asynccontextmanager
async def npm_program(folder: Path, *arguments: str) -> AsyncIterator[Program]:
    """The program of `oauth/` with what it needs from npm, run until the end of the block."""
    await asyncio.to_thread(npm.install, HERE / "oauth", folder)
    environment = {**os.environ, "NO_PROXY": "*", "NODE_NO_WARNINGS": "1"}
    process = await asyncio.create_subprocess_exec(
        *("node", "client.mjs", *arguments), cwd=folder, env=environment, stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    try:
        yield Program(process)
    finally:
        if process.returncode is None:
            assert process.stdin is not None
            process.stdin.close()
            await asyncio.wait_for(process.wait(), WITHIN_S)


COMMAND = HERE / "oauth" / "command_line.py"


async def test_a_command_line_program_signs_its_user_in(served: Hub) -> None:
    """It listens on a port that was free, prints the address for the browser, and waits for it to come back."""
    command = [sys.executable, str(COMMAND), served.settings.url]
    process = await asyncio.create_subprocess_exec(
        *command, env={**os.environ, "NO_PROXY": "*"}, stdout=PIPE, stderr=PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    address = (await asyncio.wait_for(process.stdout.readline(), WITHIN_S)).decode().strip()
    assert address, (await process.stderr.read()).decode()
    back = await browse(served, address)
    async with httpx.AsyncClient(trust_env=False) as browser:
        shown = await browser.get(back)
    assert "close this window" in shown.text
    said, errors = await asyncio.wait_for(process.communicate(), WITHIN_S)
    assert process.returncode == 0, errors.decode()
    assert "@" in said.decode()


async def test_a_machine_of_another_hub_is_nobody_here(served: Hub) -> None:
    stranger = Machine(served, {"id": str(uuid4())}, private=new_private_key("EdDSA"), algorithm="EdDSA")
    async with httpx.AsyncClient(trust_env=False) as client:
        for path in (TOKEN, REVOKE):
            form = {
                "grant_type": "client_credentials",
                "token": "x",
                "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
                "client_assertion": stranger.assertion(),
            }
            answer = await client.post(f"{served.settings.url}{path}", data=form)
            assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
