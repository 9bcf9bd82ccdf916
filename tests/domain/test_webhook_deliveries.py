"""What webhooks are sent: which events, how often, signed by what, and what becomes of an endpoint that takes nothing."""

import asyncio
import json
import logging
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from standardwebhooks.webhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from app.core.outbound import Limits
from app.domain.events.sequencing import give_positions
from app.domain.upkeep.services import remove_due
from app.domain.webhooks import dispatching, endpoints
from app.domain.webhooks.dispatching import make_deliveries
from app.domain.webhooks.retries import (
    CIRCUIT_AT,
    JITTER,
    KEPT_TRYING,
    LADDER_S,
    LONGEST_PAUSE_S,
    next_attempt,
    pause_of_circuit,
)
from app.domain.webhooks.sealed import FIELD
from app.domain.webhooks.sending import WebhookSender
from app.domain.webhooks.signing import new_secret
from tests.beside import beside
from tests.conftest import Hub
from tests.domain.conftest import Records
from tests.domain.sources import NOWHERE, registered
from tests.domain.test_webhooks import SEE_AND_WRITE, WEBHOOKS, made, new_domain, scoped_user
from tests.receivers import (
    Received,
    Receiver,
    answers,
    hangs_up,
    keeps_silent,
    receiving,
    silent_from,
    takes,
    trusting_the_tests,
)
from tests.silent_names import SilentNames

pytestmark = pytest.mark.anyio

SHORT = Limits(connect_s=1.0, total_s=0.5)
"""For what never answers."""
ROLES = ["role.created", "role.updated", "role.deleted"]


class Post:
    """The worker's part, a step at a time."""

    def __init__(self, hub: Hub, records: Records) -> None:
        self.hub = hub
        self._records = records

    async def dispatch(self) -> None:
        """Every webhook has looked at every event."""
        while await give_positions(self.hub.parts):
            pass
        while await make_deliveries(self.hub.parts):
            pass

    def sender(self, **given: Any) -> WebhookSender:
        return WebhookSender(self.hub.parts, **{"authorities": trusting_the_tests(), **given})

    async def send(self, **given: Any) -> None:
        sender = self.sender(**given)
        await sender.send_what_is_due()
        await sender.close()

    async def work(self, **given: Any) -> None:
        await self.dispatch()
        await self.send(**given)

    async def let_time_pass(self, webhook: dict[str, Any]) -> None:
        """What waits for the webhook is due now."""
        webhook_id = UUID(webhook["id"])
        await self._records.run(
            "UPDATE webhook_deliveries SET next_attempt_at = now() WHERE webhook_id = $1 AND status = 'pending'",
            webhook_id,
        )
        await self._records.run("UPDATE webhooks SET due_at = now(), paused_until = NULL WHERE id = $1", webhook_id)

    async def deliveries(self, webhook: dict[str, Any]) -> list[dict[str, Any]]:
        """The oldest first."""
        path = f"{WEBHOOKS}/{webhook['id']}/deliveries"
        found = await self.hub.admin.get(path, params={"sort": "created_at", "limit": 200})
        assert found.status_code == 200, found.text
        return list(found.json()["items"])

    async def state(self, webhook: dict[str, Any]) -> dict[str, Any]:
        return dict((await self._records.run("SELECT * FROM webhooks WHERE id = $1", UUID(webhook["id"])))[0])


@pytest.fixture
async def post(hub: Hub, records: Records) -> Post:
    """With no webhook of another test left."""
    await records.run("DELETE FROM webhook_deliveries")
    await records.run("DELETE FROM webhooks")
    return Post(hub, records)


def event_in(received: Received) -> dict[str, Any]:
    return dict(json.loads(received.body))


def types_in(receiver: Any) -> list[str]:
    return [event_in(each)["type"].removeprefix("org.datafusionhub.") for each in receiver.received]


# --- which events ---


async def test_an_event_arrives_as_a_signed_cloudevent(hub: Hub, post: Post) -> None:
    async with receiving() as receiver:
        webhook = await made(hub.admin, url=receiver.url, event_types=["role.created"])
        role = await hub.new_role()
        await post.work()
    (received,) = receiver.received
    event = Verifier(webhook["secret"]).verify(received.body, received.headers)
    assert event["specversion"] == "1.0"
    assert event["type"] == "org.datafusionhub.role.created"
    assert event["subject"] == f"roles/{role['id']}"
    assert event["data"]["name"] == role["name"]
    assert event["id"] == received.headers["webhook-id"]
    assert received.headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    (delivery,) = await post.deliveries(webhook)
    assert (delivery["status"], delivery["attempts"], delivery["response_status"]) == ("delivered", 1, 204)
    assert (delivery["event_id"], delivery["event_type"], delivery["failure"]) == (event["id"], "role.created", None)
    assert delivery["next_attempt_at"] is None
    with pytest.raises(WebhookVerificationError):
        Verifier(webhook["secret"]).verify(received.body + b" ", received.headers)


async def test_without_types_everything_from_then_on_is_sent_and_nothing_goes_round(hub: Hub, post: Post) -> None:
    await hub.new_role()
    await post.dispatch()
    async with receiving() as receiver:
        webhook = await made(hub.admin, url=receiver.url)
        await hub.new_role()
        for _ in range(3):
            await post.work()
    assert types_in(receiver) == ["webhook.created", "role.created"], "no delivery is an event itself"
    assert {each["status"] for each in await post.deliveries(webhook)} == {"delivered"}


async def test_the_tenants_are_apart(two_tenants: tuple[Hub, Hub], post: Post) -> None:
    hub, other = two_tenants
    async with receiving() as ours, receiving() as theirs:
        await made(hub.admin, url=ours.url, event_types=ROLES)
        await made(other.admin, url=theirs.url, event_types=ROLES)
        own, foreign = await hub.new_role(), await other.new_role()
        await post.work()
    assert [event_in(each)["subject"] for each in ours.received] == [f"roles/{own['id']}"]
    assert [event_in(each)["subject"] for each in theirs.received] == [f"roles/{foreign['id']}"]


async def test_of_a_domain_what_is_in_it_and_below(hub: Hub, post: Post) -> None:
    """Where things stand, as they stand when they are sent; what was deleted, where it stood last."""
    domain_id = await new_domain(hub)
    below, beside = await new_domain(hub, domain_id), await new_domain(hub)
    await post.dispatch()
    async with receiving() as receiver:
        await made(hub.admin, url=receiver.url, data_domain_id=domain_id)
        inside = await registered(hub, config=NOWHERE, data_domain_id=below)
        outside = await registered(hub, config=NOWHERE, data_domain_id=beside)
        nowhere = await registered(hub, config=NOWHERE)
        await hub.new_role()
        await hub.admin.patch(f"/api/v1/data-domains/{below}", json={"description": "Told."})
        await hub.admin.post(f"/api/v1/data-sources/{inside['id']}/discover")
        await hub.admin.post(f"/api/v1/data-sources/{outside['id']}/discover")
        await post.work()
        told = [event_in(each) for each in receiver.received]
        gone = [await hub.admin.delete(f"/api/v1/data-sources/{each['id']}") for each in (inside, outside, nowhere)]
        assert {answer.status_code for answer in gone} == {204}
        left = await new_domain(hub, domain_id)
        assert (await hub.admin.delete(f"/api/v1/data-domains/{left}")).status_code == 204
        await post.work()
    subjects = {(event["type"].rpartition("hub.")[2], event["subject"].partition("/")[0]) for event in told}
    assert subjects == {
        ("data_source.created", "data-sources"),
        ("data_domain.updated", "data-domains"),
        ("job.created", "jobs"),
    }
    assert {event["data"]["subject_id"] for event in told if "jobs/" in event["subject"]} == {inside["id"]}
    later = {event_in(each)["subject"] for each in receiver.received[len(told) :]}
    assert later == {f"data-sources/{inside['id']}", f"data-domains/{left}"}


async def test_what_moves_is_told_where_it_stands_then(hub: Hub, post: Post) -> None:
    here, there = await new_domain(hub), await new_domain(hub)
    source = await registered(hub, config=NOWHERE, data_domain_id=here)
    await post.dispatch()
    async with receiving() as left, receiving() as entered:
        await made(hub.admin, url=left.url, data_domain_id=here)
        await made(hub.admin, url=entered.url, data_domain_id=there)
        moved = await hub.admin.patch(f"/api/v1/data-sources/{source['id']}", json={"data_domain_id": there})
        assert moved.status_code == 200, moved.text
        await post.work()
    assert not left.received, "whoever may see the one domain may not see what is in the other"
    assert types_in(entered) == ["data_source.updated"]


async def test_events_of_one_subject_come_in_their_order(hub: Hub, post: Post) -> None:
    async with receiving() as receiver:
        await made(hub.admin, url=receiver.url, event_types=ROLES)
        role = await hub.new_role()
        for number in range(8):
            await hub.admin.patch(f"/api/v1/roles/{role['id']}", json={"description": str(number)})
        await post.work()
    assert [event_in(each)["data"]["description"] for each in receiver.received][1:] == [str(n) for n in range(8)]


# --- secrets ---


async def test_for_a_day_both_secrets_sign(hub: Hub, records: Records, post: Post) -> None:
    async with receiving() as receiver:
        webhook = await made(hub.admin, url=receiver.url, event_types=ROLES)
        path = f"{WEBHOOKS}/{webhook['id']}/rotate-secret"
        rotated = (await hub.admin.post(path)).json()
        expires_at = datetime.fromisoformat(rotated["previous_expires_at"])
        assert timedelta(hours=23) < expires_at - datetime.now(UTC) <= timedelta(days=1)
        await hub.new_role()
        await post.work()
        await records.run("UPDATE webhook_secrets SET expires_at = now() WHERE expires_at IS NOT NULL")
        await hub.new_role()
        await post.work()
        third = (await hub.admin.post(path)).json()
        await hub.new_role()
        await post.work()
    first, second, last = receiver.received
    secrets = [webhook["secret"], rotated["secret"], third["secret"]]
    assert [verified_by(first, secrets), verified_by(second, secrets), verified_by(last, secrets)] == [
        [True, True, False],
        [False, True, False],
        [False, True, True],
    ]


async def test_a_secret_that_has_expired_is_kept_no_longer(hub: Hub, post: Post, records: Records) -> None:
    webhook = await made(hub.admin)
    await hub.admin.post(f"{WEBHOOKS}/{webhook['id']}/rotate-secret")
    count = "SELECT count(*) FROM webhook_secrets WHERE webhook_id = $1"
    await remove_due(hub.parts, datetime.now(UTC))
    assert await records.one(count, UUID(webhook["id"])) == 2
    await records.run("UPDATE webhook_secrets SET expires_at = now() WHERE expires_at IS NOT NULL")
    await remove_due(hub.parts, datetime.now(UTC))
    assert await records.one(count, UUID(webhook["id"])) == 1


def verified_by(received: Received, secrets: list[str]) -> list[bool]:
    found = []
    for secret in secrets:
        try:
            Verifier(secret).verify(received.body, received.headers)
            found.append(True)
        except WebhookVerificationError:
            found.append(False)
    return found


# --- what is not taken ---


@pytest.mark.parametrize(
    ("answering", "failure", "status"),
    [
        (answers(500), "http_error", 500),
        (answers(302, location="https://169.254.169.254/"), "redirected", 302),
        (keeps_silent, "timeout", None),
        (hangs_up, "connection_lost", None),
    ],
    ids=["500", "redirect inward", "silent", "hangs up"],
)
async def test_what_is_not_taken_is_sent_again_under_the_same_id(
    hub: Hub, post: Post, answering: Any, failure: str, status: int | None
) -> None:
    async with receiving(answering) as receiver:
        webhook = await made(hub.admin, url=receiver.url, event_types=ROLES)
        await hub.new_role()
        await post.work(limits=SHORT if failure == "timeout" else Limits())
        (waits,) = await post.deliveries(webhook)
        await post.work()
        assert len(receiver.received) == 1, "not before its time"
        receiver.answering = takes
        await post.let_time_pass(webhook)
        await post.work()
    assert (waits["status"], waits["attempts"], waits["failure"]) == ("pending", 1, failure)
    assert waits["response_status"] == status
    pause = datetime.fromisoformat(waits["next_attempt_at"]) - datetime.fromisoformat(waits["last_attempt_at"])
    assert timedelta(0) < pause <= timedelta(seconds=30)
    (done,) = await post.deliveries(webhook)
    assert (done["status"], done["attempts"], done["failure"]) == ("delivered", 2, None)
    assert len(set(receiver.ids)) == 1
    first, second = receiver.received
    assert first.body == second.body
    assert Verifier(webhook["secret"]).verify(second.body, second.headers)


async def test_a_certificate_for_another_host_is_sent_nothing(hub: Hub, post: Post) -> None:
    async with receiving(host="localhost", certificate_for="hooks.example.org") as receiver:
        webhook = await made(hub.admin, url=receiver.url, event_types=ROLES)
        await hub.new_role()
        await post.work()
    (delivery,) = await post.deliveries(webhook)
    assert (delivery["status"], delivery["failure"]) == ("pending", "certificate_invalid")
    assert not receiver.received


async def test_the_right_certificate_is_sent_everything(hub: Hub, post: Post) -> None:
    async with receiving(host="localhost", certificate_for="localhost") as receiver:
        await made(hub.admin, url=receiver.url, event_types=ROLES)
        await hub.new_role()
        await post.work()
    assert types_in(receiver) == ["role.created"]


def test_the_ladder_begins_within_half_a_minute_and_ends_within_a_day() -> None:
    assert LADDER_S[0] * (1 + JITTER) <= 30
    assert sum(LADDER_S) * (1 + JITTER) < KEPT_TRYING.total_seconds() < sum(LADDER_S) * 2
    assert list(LADDER_S) == sorted(LADDER_S)
    now = datetime.now(UTC)
    expires_at = now + KEPT_TRYING
    assert next_attempt(len(LADDER_S) + 1, now, expires_at) is None
    assert next_attempt(1, expires_at, expires_at) is None
    steps = {next_attempt(3, now, expires_at) for _ in range(20)}
    assert len(steps) > 1, "they do not all come back together"


def test_the_pauses_of_a_circuit_grow_to_an_end() -> None:
    now = datetime.now(UTC)
    assert pause_of_circuit(CIRCUIT_AT - 1, now) is None
    for failures in (CIRCUIT_AT, CIRCUIT_AT + 3, 10_000):
        until = pause_of_circuit(failures, now)
        assert until is not None
        assert now < until <= now + timedelta(seconds=LONGEST_PAUSE_S * (1 + JITTER))


async def test_it_is_given_up_after_a_day(hub: Hub, records: Records, post: Post) -> None:
    async with receiving(answers(500)) as receiver:
        webhook = await made(hub.admin, url=receiver.url, event_types=ROLES)
        await hub.new_role()
        await post.work()
        await records.run("UPDATE webhook_deliveries SET expires_at = now()")
        await post.let_time_pass(webhook)
        await post.work()
    (delivery,) = await post.deliveries(webhook)
    assert (delivery["status"], delivery["failure"], delivery["next_attempt_at"]) == ("failed", "expired", None)
    assert len(receiver.received) == 1
    assert (await post.state(webhook))["due_at"] is None


async def test_the_last_attempt_ends_it(hub: Hub, records: Records, post: Post) -> None:
    async with receiving(answers(500)) as receiver:
        webhook = await made(hub.admin, url=receiver.url, event_types=ROLES)
        await hub.new_role()
        await post.dispatch()
        for _ in range(len(LADDER_S) + 3):
            await post.let_time_pass(webhook)
            await post.send()
    (delivery,) = await post.deliveries(webhook)
    assert (delivery["status"], delivery["failure"]) == ("failed", "http_error")
    assert delivery["attempts"] == len(receiver.received) == len(LADDER_S) + 1


async def test_a_delivery_is_sent_again_by_hand(hub: Hub, post: Post, records: Records) -> None:
    async with receiving(answers(500)) as receiver:
        webhook = await made(hub.admin, url=receiver.url, event_types=ROLES)
        await hub.new_role()
        await post.work()
        await records.run("UPDATE webhook_deliveries SET status = 'failed', next_attempt_at = NULL")
        (given_up,) = await post.deliveries(webhook)
        receiver.answering = takes
        answer = await hub.admin.post(f"/api/v1/deliveries/{given_up['id']}/retry")
        await post.send()
        again = await hub.admin.post(f"/api/v1/deliveries/{given_up['id']}/retry")
        await post.send()
    assert (answer.status_code, answer.json()["status"]) == (200, "pending")
    assert again.status_code == 200
    assert len(receiver.received) == 3
    assert set(receiver.ids) == {given_up["event_id"]}
    (row,) = await records.audit(answer)
    assert row["action"] == "webhook_delivery.retry"
    assert (await hub.admin.post(f"/api/v1/deliveries/{uuid4()}/retry")).status_code == 404


# --- endpoints that are down ---


async def test_a_few_failures_open_the_circuit_and_one_message_probes(hub: Hub, post: Post) -> None:
    async with receiving(answers(503)) as receiver:
        webhook = await made(hub.admin, url=receiver.url, event_types=ROLES)
        for _ in range(12):
            await hub.new_role()
        await post.work()
        first = len(receiver.received)
        state = await post.state(webhook)
        await post.let_time_pass(webhook)
        await post.work()
        probed = len(receiver.received) - first
        receiver.answering = takes
        await post.let_time_pass(webhook)
        await post.work()
    assert CIRCUIT_AT <= first < CIRCUIT_AT + Limits().connections
    assert state["paused_until"] is not None
    assert state["due_at"] >= state["paused_until"]
    assert probed == 1
    assert {each["status"] for each in await post.deliveries(webhook)} == {"delivered"}, "all follow a good probe"
    state = await post.state(webhook)
    assert (state["failures"], state["failing_since"], state["paused_until"], state["due_at"]) == (0, None, None, None)


async def test_what_comes_while_the_circuit_is_open_does_not_close_it(hub: Hub, post: Post) -> None:
    async with receiving(answers(503)) as receiver:
        webhook = await made(hub.admin, url=receiver.url, event_types=ROLES)
        for _ in range(CIRCUIT_AT):
            await hub.new_role()
        await post.work()
        count = len(receiver.received)
        await hub.new_role()
        await post.work()
    assert len(receiver.received) == count
    state = await post.state(webhook)
    assert state["due_at"] == state["paused_until"]


async def test_gone_is_switched_off_at_once_and_aloud(
    hub: Hub, records: Records, post: Post, caplog: pytest.LogCaptureFixture
) -> None:
    async with receiving(answers(410)) as receiver, receiving() as beside:
        webhook = await made(hub.admin, url=receiver.url, event_types=ROLES)
        await made(hub.admin, url=beside.url, event_types=["webhook.disabled"])
        for _ in range(30):
            await hub.new_role()
        with caplog.at_level(logging.WARNING, "hub.webhooks"):
            await post.work()
        await post.work()
    assert len(receiver.received) <= Limits().connections
    shown = (await hub.admin.get(f"{WEBHOOKS}/{webhook['id']}")).json()
    assert (shown["is_active"], shown["disabled_because"], shown["version"]) == (False, "gone", 2)
    assert {each["status"] for each in await post.deliveries(webhook)} == {"failed"}
    assert {each["failure"] for each in await post.deliveries(webhook)} == {"gone", "webhook_disabled"}
    (row,) = await records.run("SELECT * FROM audit_events WHERE action = 'webhook.disable'")
    assert (row["actor_id"], str(row["resource_id"])) == (None, webhook["id"])
    assert types_in(beside) == ["webhook.disabled"]
    assert event_in(beside.received[0])["data"]["disabled_because"] == "gone"
    assert f"webhook {webhook['id']} of tenant" in caplog.text
    assert "is disabled: gone" in caplog.text


async def test_days_without_a_success_switch_it_off(hub: Hub, records: Records, post: Post) -> None:
    async with receiving(answers(500)) as receiver:
        webhook = await made(hub.admin, url=receiver.url, event_types=ROLES)
        await hub.new_role()
        await post.work()
        long_ago = "UPDATE webhooks SET failing_since = now() - interval '9 days', last_failure_at = now() - interval '25 hours'"
        await records.run(long_ago)
        await post.let_time_pass(webhook)
        await post.work()
        state = await post.state(webhook)
        assert state["is_active"], "nobody knows how it was in between"
        assert datetime.now(UTC) - state["failing_since"] < timedelta(hours=1)
        await records.run("UPDATE webhooks SET failing_since = now() - interval '2 days 23 hours'")
        await post.let_time_pass(webhook)
        await post.work()
        assert (await post.state(webhook))["is_active"]
        await records.run("UPDATE webhooks SET failing_since = now() - interval '3 days'")
        await post.let_time_pass(webhook)
        await post.work()
        shown = (await hub.admin.get(f"{WEBHOOKS}/{webhook['id']}")).json()
        assert (shown["is_active"], shown["disabled_because"]) == (False, "failing")
        assert shown["disabled_at"] is not None
        receiver.answering = takes
        await hub.new_role()
        await post.dispatch()
        on = await hub.admin.patch(f"{WEBHOOKS}/{webhook['id']}", json={"is_active": True})
        assert (on.json()["is_active"], on.json()["disabled_because"], on.json()["failing_since"]) == (True, None, None)
        before = len(receiver.received)
        last = await hub.new_role()
        await post.work()
    told = [event_in(each)["subject"] for each in receiver.received[before:]]
    assert told == [f"roles/{last['id']}"], "what happened while it was off is not made up for"


async def test_a_test_that_is_taken_closes_the_circuit(hub: Hub, post: Post) -> None:
    async with receiving(answers(503)) as receiver:
        webhook = await made(hub.admin, url=receiver.url, event_types=ROLES)
        for _ in range(CIRCUIT_AT):
            await hub.new_role()
        await post.work()
        receiver.answering = takes
        tested = await hub.admin.post(f"{WEBHOOKS}/{webhook['id']}/test")
        assert tested.json()["status"] == "delivered"
        state = await post.state(webhook)
    assert (state["failures"], state["paused_until"]) == (0, None)
    assert state["due_at"] is not None


async def test_for_an_endpoint_that_takes_nothing_only_so_many_wait(
    hub: Hub, records: Records, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatching, "MOST_WAITING", 3)
    async with receiving(answers(503)) as receiver:
        webhook = await made(hub.admin, url=receiver.url, event_types=ROLES)
        for _ in range(7):
            await hub.new_role()
        await post.dispatch()
        assert len(await post.deliveries(webhook)) == 3
        state = await post.state(webhook)
        assert state["dispatch_at"] > datetime.now(UTC), "it is not looked at again and again"
        receiver.answering = takes
        for _ in range(3):
            await post.send()
            await post.dispatch()
        await post.send()
    assert len(set(receiver.ids)) == 7


# --- workers ---


async def test_a_worker_that_is_killed_between_send_and_note_sends_again_with_the_same_id(
    hub: Hub, records: Records, post: Post
) -> None:
    arrived = asyncio.Event()
    async with receiving(silent_from(arrived)) as receiver:
        webhook = await made(hub.admin, url=receiver.url, event_types=ROLES)
        await hub.new_role()
        await post.dispatch()
        killed = asyncio.create_task(post.send())
        await asyncio.wait_for(arrived.wait(), 10)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(endpoints.Held, "put_back", nothing)  # a killed worker puts nothing back
            for task in asyncio.all_tasks():
                if task.get_name() == f"webhook {webhook['id']}":
                    task.cancel()
            with suppress(asyncio.CancelledError):
                await killed
        receiver.answering = takes
        await post.send()
        assert len(receiver.received) == 1, "as long as its lease lasts nobody else takes the endpoint"
        await records.run("UPDATE webhooks SET lease_until = now() - interval '1 second'")
        await post.send()
    assert len(receiver.received) == 2
    assert len(set(receiver.ids)) == 1
    (delivery,) = await post.deliveries(webhook)
    assert delivery["status"] == "delivered"


async def nothing(*_: object) -> None:
    """Stands for what does not happen."""


async def test_a_worker_that_ends_puts_back_what_it_had(hub: Hub, post: Post) -> None:
    arrived = asyncio.Event()
    async with receiving(silent_from(arrived)) as receiver:
        webhook = await made(hub.admin, url=receiver.url, event_types=ROLES)
        await hub.new_role()
        await post.dispatch()
        working = asyncio.create_task(post.sender().run_forever())
        await asyncio.wait_for(arrived.wait(), 10)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        assert (await post.state(webhook))["lease_id"] is None
        receiver.answering = takes
        await post.send()
    assert len(set(receiver.ids)) == 1
    assert len(receiver.received) == 2


async def test_several_workers_send_each_event_once(hub: Hub, post: Post) -> None:
    async with receiving() as one, receiving() as other:
        for receiver in (one, other):
            await made(hub.admin, url=receiver.url, event_types=ROLES)
        for _ in range(25):
            await hub.new_role()
        while await give_positions(hub.parts):
            pass
        await asyncio.gather(*(make_deliveries(hub.parts) for _ in range(4)))
        await post.dispatch()
        await asyncio.gather(*(post.send() for _ in range(4)))
    for receiver in (one, other):
        assert len(receiver.ids) == len(set(receiver.ids)) == 25


async def test_nothing_is_sent_once_it_is_switched_off_or_leads_elsewhere(hub: Hub, post: Post) -> None:
    """By a worker that has it already."""
    going_on = asyncio.Event()

    async def waits(received: Received, writer: asyncio.StreamWriter) -> None:
        going_on.set()
        await asyncio.sleep(0.3)
        await takes(received, writer)

    async with receiving(waits) as receiver:
        webhook = await made(hub.admin, url=receiver.url, event_types=ROLES)
        role = await hub.new_role()
        for number in range(5):
            await hub.admin.patch(f"/api/v1/roles/{role['id']}", json={"description": str(number)})
        await post.dispatch()
        sending = asyncio.create_task(post.send())
        await asyncio.wait_for(going_on.wait(), 10)
        off = await hub.admin.patch(f"{WEBHOOKS}/{webhook['id']}", json={"is_active": False})
        assert off.status_code == 200
        await sending
    assert len(receiver.received) == 1
    found = await post.deliveries(webhook)
    assert [each["status"] for each in found] == ["delivered", *["failed"] * 5]
    assert {each["failure"] for each in found[1:]} == {"webhook_disabled"}


async def test_what_a_webhook_was_for_before_is_given_to_nobody(hub: Hub, post: Post) -> None:
    """Whoever may see one domain moves a webhook of the whole tenant there."""
    here = await new_domain(hub)
    somebody = await scoped_user(hub, here, *SEE_AND_WRITE)
    await post.dispatch()
    async with receiving(answers(500)) as receiver:
        webhook = await made(hub.admin, url=receiver.url)
        await hub.new_role()
        await post.work()
        (waiting,) = [each for each in await post.deliveries(webhook) if each["event_type"] == "role.created"]
        moved = await hub.admin.patch(f"{WEBHOOKS}/{webhook['id']}", json={"data_domain_id": here})
        assert moved.status_code == 200
        assert await post.deliveries(webhook) == []
        assert (await somebody.get(f"{WEBHOOKS}/{webhook['id']}/deliveries")).json()["items"] == []
        assert (await somebody.post(f"/api/v1/deliveries/{waiting['id']}/retry")).status_code == 404


async def test_of_other_types_what_waits_is_sent_no_more(hub: Hub, post: Post) -> None:
    await post.dispatch()
    async with receiving(answers(500)) as receiver:
        webhook = await made(hub.admin, url=receiver.url)
        await hub.new_role()
        await post.work()
        narrowed = await hub.admin.patch(f"{WEBHOOKS}/{webhook['id']}", json={"event_types": ["user.created"]})
        assert narrowed.status_code == 200
        assert {each["status"] for each in await post.deliveries(webhook)} == {"failed"}


async def test_only_whoever_may_see_an_event_sends_it_again(hub: Hub, post: Post, records: Records) -> None:
    """A delivery of an event that happened elsewhere, for whatever reason it is there."""
    here = await new_domain(hub)
    somebody = await scoped_user(hub, here, *SEE_AND_WRITE)
    webhook = await made(hub.admin, data_domain_id=here)
    await hub.new_role()
    delivery_id = await records.one(
        """INSERT INTO webhook_deliveries (id, tenant_id, webhook_id, event_id, event_type, subject, status, created_at,
                                           expires_at)
           SELECT gen_random_uuid(), tenant_id, $1, id, 'role.created', subject, 'failed', now(), now()
           FROM outbox_events WHERE type LIKE '%.role.created' LIMIT 1 RETURNING id""",
        UUID(webhook["id"]),
    )
    refused = await somebody.post(f"/api/v1/deliveries/{delivery_id}/retry")
    assert (refused.status_code, refused.json()["code"]) == (403, "permission_missing")


async def test_a_suspended_tenant_is_sent_nothing(hub: Hub, post: Post, records: Records) -> None:
    tenant = await hub.new_tenant()
    async with receiving() as receiver:
        await made(tenant.admin, url=receiver.url, event_types=ROLES)
        await tenant.new_role()
        await post.dispatch()
        slug = await records.one("SELECT slug FROM tenants ORDER BY created_at DESC LIMIT 1")
        tenants = (await hub.admin.get("/api/v1/tenants", params={"limit": 200})).json()["items"]
        tenant_id = next(each["id"] for each in tenants if each["slug"] == slug)
        assert (await hub.admin.post(f"/api/v1/tenants/{tenant_id}/suspend")).status_code == 200
        await post.work()
        assert not receiver.received
        assert (await hub.admin.post(f"/api/v1/tenants/{tenant_id}/resume")).status_code == 200
        await post.work()
    assert types_in(receiver) == ["role.created"]


async def test_what_is_deleted_is_sent_nothing_more(hub: Hub, post: Post, records: Records) -> None:
    async with receiving() as receiver:
        webhook = await made(hub.admin, url=receiver.url, event_types=ROLES)
        await hub.new_role()
        await post.work()
        await hub.new_role()
        await post.dispatch()
        (first, *_) = await post.deliveries(webhook)
        assert (await hub.admin.delete(f"{WEBHOOKS}/{webhook['id']}")).status_code == 204
        await post.work()
    assert len(receiver.received) == 1
    assert await records.one("SELECT count(*) FROM webhook_deliveries WHERE status = 'pending'") == 0
    assert (await hub.admin.post(f"/api/v1/deliveries/{first['id']}/retry")).status_code == 404


async def test_an_event_that_is_not_kept_any_more_is_given_up(hub: Hub, post: Post, records: Records) -> None:
    async with receiving() as receiver:
        webhook = await made(hub.admin, url=receiver.url, event_types=ROLES)
        await hub.new_role()
        await post.dispatch()
        await records.run("DELETE FROM outbox_events WHERE type LIKE '%role.created'")
        await post.send()
    (delivery,) = await post.deliveries(webhook)
    assert (delivery["status"], delivery["failure"]) == ("failed", "event_gone")
    assert not receiver.received


async def test_deliveries_are_removed_with_their_events(hub: Hub, post: Post, records: Records) -> None:
    async with receiving() as receiver:
        webhook = await made(hub.admin, url=receiver.url, event_types=ROLES)
        await hub.new_role()
        await hub.new_role()
        await post.work()
    old = (await post.deliveries(webhook))[0]
    days = hub.settings.history_days + 1
    await records.run(
        "UPDATE webhook_deliveries SET created_at = now() - make_interval(days => $1) WHERE id = $2",
        days,
        UUID(old["id"]),
    )
    await remove_due(hub.parts, datetime.now(UTC))
    assert old["id"] not in [each["id"] for each in await post.deliveries(webhook)]
    assert len(await post.deliveries(webhook)) == 1


async def test_figures_say_how_webhooks_get_on(hub: Hub, post: Post) -> None:
    async with receiving(answers(410)) as gone, receiving(answers(500)) as failing, receiving() as well:
        for receiver in (gone, failing, well):
            await made(hub.admin, url=receiver.url, event_types=ROLES)
        await hub.new_role()
        await post.work()
    text = (await hub.admin.get("/metrics")).text
    figures = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("hub_webhook"))
    assert figures['hub_webhooks{state="active"}'] == "1.0"
    assert figures['hub_webhooks{state="failing"}'] == "1.0"
    assert figures['hub_webhooks{state="disabled"}'] == "1.0"
    assert figures["hub_webhook_deliveries_pending"] == "1.0"
    assert float(figures["hub_webhook_oldest_delivery_age_seconds"]) > 0
    assert float(figures['hub_webhook_deliveries_total{failure="none",outcome="delivered"}']) > 0
    assert float(figures['hub_webhooks_disabled_total{because="gone"}']) > 0


async def silent_beside(
    hub: Hub, records: Records, webhook: dict[str, Any], url: str, count: int, *, were_well: bool
) -> None:
    """So many webhooks like that one, at an endpoint that says nothing."""
    made_of = await records.run(
        """INSERT INTO webhooks (id, tenant_id, url, event_types, is_active, position, last_success_at, created_at, updated_at)
           SELECT gen_random_uuid(), tenant_id, $1, event_types, true, position, CASE WHEN $3 THEN now() END, now(), now()
           FROM webhooks, generate_series(1, $4) WHERE id = $2 RETURNING id, tenant_id""",
        url,
        UUID(webhook["id"]),
        were_well,
        count,
    )
    ring = hub.parts.key_ring
    for row in made_of:
        secret_id = uuid4()
        sealed = ring.seal(new_secret().encode(), tenant_id=row["tenant_id"], row_id=secret_id, field=FIELD)
        await records.run(
            """INSERT INTO webhook_secrets (id, tenant_id, webhook_id, sealed, key_id, created_at)
               VALUES ($1, $2, $3, $4, $5, now())""",
            *(secret_id, row["tenant_id"], row["id"], sealed, ring.current_id),
        )


@asynccontextmanager
async def working(post: Post) -> AsyncIterator[None]:
    """A worker that sends, with the time-outs of a real one."""
    async with beside(post.sender().run_forever()), asyncio.timeout(120):
        yield


async def until(holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.sleep(0.02)


async def one_more_arrives(hub: Hub, post: Post, good: Receiver) -> float:
    """Seconds until it does."""
    count = len(good.received)
    await hub.new_role()
    await post.dispatch()
    began = time.monotonic()
    await until(lambda: len(good.received) > count)
    return time.monotonic() - began


@pytest.mark.slow
async def test_a_thousand_that_are_down_hold_no_other_up(hub: Hub, records: Records, post: Post) -> None:
    """Each of them would have to be waited for: a thousand times fifteen seconds."""
    async with receiving(keeps_silent) as silent, receiving() as good:
        webhook = await made(hub.admin, url=good.url, event_types=ROLES)
        await hub.new_role()
        await post.work()
        await silent_beside(hub, records, webhook, silent.url, 1000, were_well=False)
        await hub.new_role()
        await post.dispatch()
        async with working(post):
            await until(lambda: len(silent.received) >= 8)
            for _ in range(3):
                await one_more_arrives(hub, post, good)
    waiting = await records.one("SELECT count(*) FROM webhook_deliveries WHERE status = 'pending' AND attempts = 0")
    assert waiting > 950, "it did not have to wait for them"
    assert len(silent.received) <= 64


@pytest.mark.slow
async def test_names_that_nobody_answers_for_hold_no_other_up(
    hub: Hub, records: Records, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's resolver cannot be called off: its threads are as busy as it is."""
    real, released = socket.getaddrinfo, threading.Event()
    asked: list[threading.Event] = []

    def answer(host: Any, *args: Any, **kwargs: Any) -> Any:
        if str(host).endswith(".unanswered.example"):
            asked.append(done := threading.Event())
            released.wait(30)
            done.set()
            raise socket.gaierror(socket.EAI_AGAIN, "nobody answered")
        return real(host, *args, **kwargs)

    async with receiving(host="localhost") as good:
        await made(hub.admin, url=good.url, event_types=ROLES)
        await hub.new_role()
        await post.work()
        monkeypatch.setattr(socket, "getaddrinfo", answer)
        for number in range(40):
            await made(hub.admin, url=f"https://{number}.unanswered.example/", event_types=ROLES)
        await hub.new_role()
        await post.dispatch()
        async with working(post):
            await until(lambda: len(asked) >= 8)
            await one_more_arrives(hub, post, good)
            answered = len([each for each in asked if each.is_set()])
        released.set()
    assert answered == 0, "all of them were still waited for"


async def test_names_of_one_tenant_that_nobody_answers_for_hold_no_other_tenant_up(
    hub: Hub, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even once each of them was waited for in vain: the look-ups go on behind their time."""
    names, sender = SilentNames(monkeypatch), post.sender(places=16, limits=Limits(connect_s=0.2))
    for number in range(12):
        await made(hub.admin, url=f"https://{number}.unanswered.example/", event_types=ROLES)
    await hub.new_role()
    await post.dispatch()
    await sender.send_what_is_due()
    assert names.threads
    other = await hub.new_tenant()
    async with receiving(host="localhost") as good:
        await made(other.admin, url=good.url, event_types=ROLES)
        await other.new_role()
        await post.dispatch()
        await sender.send_what_is_due()
    names.release()
    await sender.close()
    assert len(good.received) == 1


@pytest.mark.slow
async def test_of_a_hundred_that_fall_silent_together_the_others_hear_little(
    hub: Hub, records: Records, post: Post
) -> None:
    """They were well until now, and have the places of those that are: for one round."""
    async with receiving(keeps_silent) as silent, receiving() as good:
        webhook = await made(hub.admin, url=good.url, event_types=ROLES)
        await hub.new_role()
        await post.work()
        await silent_beside(hub, records, webhook, silent.url, 100, were_well=True)
        await hub.new_role()
        await post.dispatch()
        async with working(post):
            await until(lambda: len(silent.received) >= 64)
            waited_s = await one_more_arrives(hub, post, good)
    assert waited_s < 3 * Limits().total_s, "a hundred times fifteen seconds, one after the other, would be more"
