"""People with second factors, as tests need them."""

import asyncio
import time
from typing import Any

import httpx
import pyotp

from tests.authenticator import Passkey
from tests.conftest import PASSWORD, Hub
from tests.domain.conftest import Records, new_user

AUTH = "/api/v1/auth"


class Person:
    """Somebody who signs in, with what they have set up."""

    def __init__(self, hub: Hub, records: Records, email: str, client: httpx.AsyncClient) -> None:
        self.hub, self.records, self.email, self.client = hub, records, email, client
        self.totp: pyotp.TOTP | None = None
        self.totp_id = ""
        self.passkey_id = ""
        self._home: httpx.AsyncClient | None = None

    @classmethod
    async def new(cls, hub: Hub, records: Records) -> "Person":
        email = await new_user(hub, records)
        return cls(hub, records, email, await hub.sign_in(email))

    async def home(self) -> httpx.AsyncClient:
        """The session in which they set up what they have: one of two factors from the first one on. `client` is one
        of the password alone, opened before."""
        self._home = self._home or await self.hub.sign_in(self.email)
        return self._home

    async def set_up_totp(self) -> "Person":
        home = await self.home()
        made = await home.post(f"{AUTH}/factors", json={"type": "totp", "name": "phone"})
        assert made.status_code == 201, made.text
        self.totp, self.totp_id = pyotp.TOTP(made.json()["secret"]), made.json()["id"]
        code = await self.code()
        done = await home.post(f"{AUTH}/factors/{self.totp_id}/confirm", json={"code": code})
        assert done.status_code == 200, done.text
        await self.forget_steps()
        return self

    async def set_up_passkey(self, name: str = "laptop") -> Passkey:
        options = await self.begin_passkey(name)
        passkey = new_passkey(self.hub)
        answer = passkey.create(options)
        done = await (await self.home()).post(f"{AUTH}/factors/{self.passkey_id}/confirm", json={"credential": answer})
        assert done.status_code == 200, done.text
        return passkey

    async def begin_passkey(self, name: str = "laptop") -> dict[str, Any]:
        made = await (await self.home()).post(f"{AUTH}/factors", json={"type": "passkey", "name": name})
        assert made.status_code == 201, made.text
        self.passkey_id = made.json()["id"]
        options: dict[str, Any] = made.json()["options"]
        return options

    async def recovery_codes(self) -> list[str]:
        made = await (await self.home()).post(f"{AUTH}/recovery-codes")
        assert made.status_code == 200, made.text
        codes: list[str] = made.json()["codes"]
        return codes

    async def forget_steps(self) -> None:
        """As if half an hour had passed: codes of now are new again."""
        await self.records.run(
            "UPDATE factors SET last_step = 0 WHERE user_id IN (SELECT id FROM users WHERE email = $1)", self.email
        )

    async def code(self, around: int = 0) -> str:
        """Of the present time step, or of one before or behind it; never at the very end of a step."""
        assert self.totp is not None
        if (left := 30 - time.time() % 30) < 4:
            await asyncio.sleep(left)
        return self.totp.at(time.time() + 30 * around)

    async def password(self) -> dict[str, Any]:
        """What the right password is answered with: what goes on."""
        answer = await self.hub.client().post(f"{AUTH}/login", json={"email": self.email, "password": PASSWORD})
        assert (answer.status_code, answer.json()["code"]) == (401, "mfa_required"), answer.text
        mfa: dict[str, Any] = answer.json()["mfa"]
        return mfa

    async def show(self, mfa: dict[str, Any], **given: Any) -> httpx.Response:
        return await self.hub.client().post(f"{AUTH}/mfa", json={"mfa_token": mfa["token"], **given})

    async def sign_in(self) -> httpx.AsyncClient:
        """With the password and a code."""
        answer = await self.show(await self.password(), method="totp", code=await self.code())
        assert answer.status_code == 200, answer.text
        await self.forget_steps()
        return self.hub.client(answer.json()["access_token"])

    async def amr(self) -> list[str]:
        """Of the session that was opened last."""
        found = "SELECT amr FROM sessions WHERE user_id = (SELECT id FROM users WHERE email = $1) ORDER BY id DESC"
        return list(await self.records.one(found, self.email))

    async def age_sessions(self) -> None:
        """As if six minutes had passed since they proved who they are."""
        ago = "now() - interval '6 minutes'"
        await self.records.run(
            f"""UPDATE sessions SET authenticated_at = {ago}, stepped_up_at = {ago}
                WHERE user_id = (SELECT id FROM users WHERE email = $1)""",
            self.email,
        )


def new_passkey(hub: Hub) -> Passkey:
    return Passkey(hub.settings.url, "127.0.0.1")
