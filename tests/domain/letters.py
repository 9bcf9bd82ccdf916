"""A hub that sends mail, its mail server, and the worker's part, a step at a time."""

from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest

from app.core.embedded import EmbeddedPostgres
from app.domain.letters.sending import LetterSender
from app.domain.recovery.forgotten import write_letters
from tests.conftest import Hub, running_hub
from tests.domain.conftest import Records
from tests.mail_servers import MailServer, Taken, taking_mail

PUBLIC_URL = "https://hub.example.org/base"
SENDER = "Data Fusion Hub <hub@example.org>"


class Post:
    """What a worker does with letters."""

    def __init__(self, hub: Hub, server: MailServer, records: Records) -> None:
        self.hub = hub
        self.server = server
        self.records = records

    async def work(self) -> None:
        """Everything that is due now."""
        while await write_letters(self.hub.parts):
            pass
        while await LetterSender(self.hub.parts).send_due():
            pass

    async def let_time_pass(self) -> None:
        """What waits is due now."""
        await self.records.run(
            "UPDATE letters SET next_attempt_at = now(), lease_until = NULL WHERE status = 'waiting'"
        )

    async def forget(self, email: str, **given: str) -> None:
        answer = await self.hub.client().post("/api/v1/auth/forgot-password", json={"email": email, **given})
        assert answer.status_code == 202, answer.text
        await self.work()

    def last_to(self, address: str) -> Taken:
        return self.server.to(address)[-1]

    async def letters(self, email: str) -> list[dict[str, object]]:
        """The oldest first."""
        rows = await self.records.run("SELECT * FROM letters WHERE email = $1 ORDER BY created_at, id", email)
        return [dict(row) for row in rows]


@pytest.fixture(scope="module")
async def mailing(
    cluster: EmbeddedPostgres, migrated: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Post]:
    """Of a hub of its own, beside the one that sends no mail."""
    async with taking_mail() as server:
        given = {"HUB_SMTP_URL": server.url(), "HUB_SMTP_FROM": SENDER, "HUB_PUBLIC_URL": PUBLIC_URL}
        async with running_hub(cluster, migrated, tmp_path_factory.mktemp("mailing"), **given) as hub:
            connection = await asyncpg.connect(hub.owner_url)
            yield Post(hub, server, Records(connection))
            await connection.close()


@pytest.fixture
async def post(mailing: Post) -> Post:
    """With no letter of another test left."""
    await mailing.records.run("DELETE FROM letters")
    await mailing.records.run("DELETE FROM forgotten_passwords")
    mailing.server.taken.clear()
    return mailing


def assert_worth_nothing(answer: httpx.Response) -> None:
    """What came of a link that is used, over or forged."""
    assert (answer.status_code, answer.json()["code"]) == (400, "link_not_valid")
