"""Letters on their way: sent once the server takes them, tried again while it does not, given up where that is no use."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from msgspec import structs

from app.core import mail
from app.domain.letters import sending
from app.domain.letters.messages import TEXTS, message_of, text_of
from app.domain.letters.models import Letter
from app.domain.letters.schemas import LetterKind, LetterOut
from app.domain.letters.sending import LetterSender, send_letters
from app.domain.recovery.forgotten import answer_forgotten, write_letters
from app.domain.upkeep.services import remove_due
from tests.conftest import Hub
from tests.domain.conftest import new_user
from tests.domain.letters import SENDER, Post
from tests.domain.letters import mailing as mailing
from tests.domain.letters import post as post
from tests.mail_servers import keeps_silent, serving, taking_mail

pytestmark = pytest.mark.anyio

KINDS: tuple[LetterKind, ...] = LetterOut.__annotations__["kind"].__args__


@pytest.fixture(scope="module")
def hub(mailing: Post) -> Hub:
    return mailing.hub


async def letter_to(post: Post, email: str) -> dict[str, Any]:
    (letter,) = await post.letters(email)
    return letter


async def forgotten_by(post: Post) -> str:
    """The address of somebody who waits for a letter."""
    email = await new_user(post.hub, post.records)
    answer = await post.hub.client().post("/api/v1/auth/forgot-password", json={"email": email})
    assert answer.status_code == 202
    return email


# --- a server that does not take it ---


async def test_a_greylisted_letter_is_sent_again_with_the_same_link_and_id(post: Post) -> None:
    email = await forgotten_by(post)
    post.server.answers = ["451 4.7.1 greylisted"]
    await post.work()
    waits = await letter_to(post, email)
    assert (waits["status"], waits["failure"], waits["attempts"], post.server.taken) == ("waiting", "deferred", 1, [])
    await post.let_time_pass()
    await post.work()
    sent = await letter_to(post, email)
    assert (sent["status"], sent["failure"], sent["attempts"]) == ("sent", None, 2)


async def test_a_letter_whose_confirmation_was_lost_comes_twice_and_is_the_same(post: Post) -> None:
    email = await forgotten_by(post)
    post.server.hangs_up_after = 1
    await post.work()
    assert (await letter_to(post, email))["failure"] == "disconnected"
    await post.let_time_pass()
    await post.work()
    first, second = post.server.to(email)
    assert first.message["message-id"] == second.message["message-id"]
    assert first.message["date"] == second.message["date"]
    assert first.token == second.token


async def test_a_refused_letter_is_given_up_and_told(post: Post) -> None:
    email = await forgotten_by(post)
    post.server.answers = ["550 5.1.1 no such mailbox"]
    await post.work()
    letter = await letter_to(post, email)
    assert (letter["status"], letter["failure"]) == ("failed", "refused")
    (row,) = await post.records.run("SELECT * FROM audit_events WHERE resource_id = $1", letter["id"])
    assert (row["action"], row["outcome"]) == ("letter.send", "failure")
    types = await post.records.run(
        "SELECT type FROM outbox_events WHERE subject = $1 ORDER BY sequence", f"letters/{letter['id']}"
    )
    assert [row["type"].removeprefix("org.datafusionhub.") for row in types] == ["letter.written", "letter.failed"]


async def test_nothing_is_lost_while_the_server_is_away(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    email = await forgotten_by(post)
    async with taking_mail() as gone:
        pass
    away = structs.replace(post.hub.settings, smtp_url=gone.url())
    with monkeypatch.context() as patched:
        patched.setattr(post.hub.parts, "settings", away)
        for _ in range(3):
            await post.work()
            await post.records.run("UPDATE letters SET next_attempt_at = now()")
    letter = await letter_to(post, email)
    assert (letter["status"], letter["failure"], letter["attempts"]) == ("waiting", "unreachable", 3)
    await post.work()
    assert len(post.server.to(email)) == 1


async def test_a_letter_is_given_up_once_its_link_would_be_dead(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    email = await forgotten_by(post)
    post.server.answers = ["451 later"]
    monkeypatch.setattr(sending, "LADDER_S", (3600.0,))
    await post.work()
    assert (await letter_to(post, email))["status"] == "failed"
    other = await forgotten_by(post)
    post.server.answers = ["451 later"]
    monkeypatch.undo()
    await post.work()
    await post.records.run("UPDATE letters SET next_attempt_at = now(), expires_at = now() WHERE email = $1", other)
    await post.work()
    letter = await letter_to(post, other)
    assert (letter["status"], letter["failure"], post.server.to(other)) == ("failed", "expired", [])


async def test_a_server_that_hangs_costs_a_deadline_and_not_the_letter(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    email = await forgotten_by(post)
    monkeypatch.setattr(mail, "DEADLINE_S", 0.3)
    async with serving(keeps_silent) as port:
        hanging = structs.replace(post.hub.settings, smtp_url=f"smtp://127.0.0.1:{port}")
        with monkeypatch.context() as patched:
            patched.setattr(post.hub.parts, "settings", hanging)
            await post.work()
    assert (await letter_to(post, email))["failure"] == "timeout"
    await post.let_time_pass()
    await post.work()
    assert len(post.server.to(email)) == 1


async def test_a_worker_that_was_killed_leaves_a_lease_that_runs_out(post: Post) -> None:
    email = await forgotten_by(post)
    dead = LetterSender(post.hub.parts)
    await write_letters(post.hub.parts)
    assert len(await dead._claim()) == 1
    await post.work()
    assert post.server.to(email) == [], "it may be on its way"
    await post.let_time_pass()
    await post.work()
    assert len(post.server.to(email)) == 1


async def test_two_workers_send_a_letter_once(post: Post) -> None:
    emails = [await forgotten_by(post) for _ in range(12)]
    await asyncio.gather(*(write_letters(post.hub.parts) for _ in range(3)))
    senders = [LetterSender(post.hub.parts) for _ in range(3)]
    while sum(await asyncio.gather(*(sender.send_due() for sender in senders))):
        pass
    assert sorted(taken.recipient for taken in post.server.taken) == sorted(emails)


async def test_a_running_worker_sends_within_seconds(post: Post) -> None:
    work = [asyncio.create_task(each(post.hub.parts)) for each in (answer_forgotten, send_letters)]
    try:
        email = await forgotten_by(post)
        async with asyncio.timeout(10):
            while not post.server.to(email):
                await asyncio.sleep(0.05)
    finally:
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)


async def test_letters_of_a_suspended_tenant_wait(post: Post) -> None:
    other = await post.hub.new_tenant()
    me = (await other.admin.get("/api/v1/auth/me")).json()
    await other.admin.post("/api/v1/users/invitations", json={"email": "waits@example.org"})
    path = f"/api/v1/tenants/{me['tenant']['id']}"
    await post.hub.admin.post(f"{path}/suspend")
    await post.work()
    assert post.server.to("waits@example.org") == []
    await post.hub.admin.post(f"{path}/resume")
    await post.work()
    assert len(post.server.to("waits@example.org")) == 1


# --- what it says ---


def letter_of(kind: LetterKind, email: str = "ada@example.org", **words: str) -> Letter:
    usual = {"inviter": "grace@example.org", "at": "2026-12-01 12:00 UTC", "new_address": "new@example.org"}
    return Letter(id=uuid4(), kind=kind, email=email, words={**usual, **words}, created_at=datetime.now(UTC))


def written(hub: Hub, letter: Letter, organisation: str = "Acme") -> Any:
    return message_of(letter, hub.settings, organisation=organisation, link="https://hub.example.org/x?token=dfp_a_b")


def test_every_kind_has_a_text_in_both_forms_and_no_other_has() -> None:
    for form in ("txt", "html"):
        assert {path.stem for path in TEXTS.glob(f"*.{form}")} == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_both_forms_of_a_text_say_the_same(hub: Hub, kind: LetterKind) -> None:
    text = text_of(kind)
    plain, html, subject = (set(each.get_identifiers()) for each in (text.plain, text.html, text.subject))
    assert plain - subject == html - subject
    message = written(hub, letter_of(kind))
    assert "$" not in message.as_string()


@pytest.mark.parametrize("kind", KINDS)
def test_no_value_begins_a_header_or_a_line_or_an_element(hub: Hub, kind: LetterKind) -> None:
    evil = "x\r\nBcc: victim@example.org\r\n\r\n<script>alert(1)</script>\u2028\x0b\x85$link"
    words = dict.fromkeys(("inviter", "at", "new_address"), evil)
    message = written(hub, letter_of(kind, **words), organisation=evil)
    assert message["bcc"] is None
    assert "\nBcc:" not in message.as_string()
    html = message.get_body(("html",)).get_content()
    assert "<script" not in html
    plain = message.get_body(("plain",)).get_content()
    assert not any(line.startswith(("Bcc", "<script")) for line in plain.splitlines())


def test_names_in_other_letters_are_encoded_and_a_unicode_domain_goes_out_as_dns_has_it(hub: Hub) -> None:
    message = written(hub, letter_of("invitation", "ada@bücher.example"), organisation="Bücher & Söhne 李")
    raw = message.as_bytes()
    assert raw.isascii() or b"Subject: =?utf-8?" in raw
    assert str(message["subject"]) == "You are invited to Bücher & Söhne 李"
    assert message["to"] == "ada@xn--bcher-kva.example"


async def test_an_address_in_other_letters_goes_out_where_the_server_takes_it(post: Post) -> None:
    made = await post.hub.admin.post("/api/v1/users/invitations", json={"email": "jörg@bücher.example"})
    assert made.status_code == 201, made.text
    await post.work()
    (taken,) = post.server.taken
    assert taken.recipient == "jörg@xn--bcher-kva.example"


async def test_the_sender_is_the_operators(post: Post) -> None:
    await forgotten_by(post)
    await post.work()
    (taken,) = post.server.taken
    assert (taken.sender, taken.message["from"]) == ("hub@example.org", SENDER)


# --- what is left of it ---


async def test_letters_are_forgotten_after_a_month(post: Post) -> None:
    email = await forgotten_by(post)
    await post.work()
    await post.records.run("UPDATE letters SET created_at = now() - interval '31 days'")
    invited = (await post.hub.admin.post("/api/v1/users/invitations", json={"email": "old@example.org"})).json()
    await post.records.run(
        "UPDATE invitations SET expires_at = now() - interval '31 days' WHERE email = 'old@example.org'"
    )
    await remove_due(post.hub.parts, datetime.now(UTC) + timedelta(seconds=1))
    assert await post.letters(email) == []
    assert (await post.hub.admin.get(f"/api/v1/users/invitations/{invited['id']}")).status_code == 404


async def test_metrics_tell_what_waits_and_what_became_of_it(post: Post) -> None:
    await forgotten_by(post)
    post.server.answers = ["451 later"]
    await post.work()
    lines = (await post.hub.admin.get("/metrics")).text.splitlines()
    assert "hub_letters_waiting 1.0" in lines
    assert any(line.startswith("hub_letters_oldest_waiting_seconds ") for line in lines)
    attempts = 'hub_letter_attempts_total{failure="deferred",kind="reset_password",outcome="retry"}'
    assert any(line.startswith(attempts) for line in lines)


async def test_a_hub_without_a_mail_server_is_ready(hub: Hub) -> None:
    assert (await hub.client().get("/health/ready")).status_code == 200
