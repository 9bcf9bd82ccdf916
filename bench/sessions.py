"""`GET /auth/me` beside refreshes, while more and more people are signed in: what one pays for others' sessions."""

import asyncio
import http.client
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import asyncpg

from app.core import embedded
from app.core.sealing import KeyRing
from app.core.security import Tokens
from app.core.signing_keys import read_signing_keys
from app.domain.auth.principals import MAX_PRINCIPALS
from app.domain.auth.sessions import refresh_token_of
from app.runtime import SECRET_KEYS_FILE, SIGNING_KEYS_FILE
from bench import contestants
from bench.contestants import Server
from bench.footprint import data_folder
from bench.report import Goal, Work
from bench.rounds import Bench, Entry
from bench.seeding import sign_in

COUNTS = (100, 10_000, 1_000_000)
REFRESHES_A_SECOND = 20
_AT_MOST = 1.2
"""Of the time that a request takes with the fewest sessions."""
_SESSIONS_OF_USER = 10
_WARMERS = 16
_TENANT = UUID("00000000-0000-7000-8000-000000000001")
_PUBLIC_ROLE = UUID("00000000-0000-7000-8000-000000000102")

_USERS = """
    INSERT INTO users (id, tenant_id, email, email_key, first_name, last_name, is_active, created_at, updated_at)
    SELECT ('01910000-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid, $1, i || '@example.org', i || '@example.org',
           'Ada', 'Number ' || i, true, now(), now()
    FROM generate_series($2::int, $3::int) AS i"""
_MEMBERS = """
    INSERT INTO role_assignments (id, subject_type, scope_type, subject_id, role_id, tenant_id, starts_at, created_at,
                                  updated_at)
    SELECT gen_random_uuid(), 'user', 'tenant', ('01910000-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid, $2, $1,
           now(), now(), now()
    FROM generate_series($3::int, $4::int) AS i"""
_SESSIONS = """
    INSERT INTO sessions (id, tenant_id, user_id, key_id, generation, rotated_at, idle_expires_at, expires_at,
                          last_seen_at, created_at, updated_at)
    SELECT ('01920000-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid, $1,
           ('01910000-0000-7000-8000-' || lpad(to_hex(i / $2::int), 12, '0'))::uuid, $3, 1, now(),
           now() + interval '7 days', now() + interval '30 days', now(), now(), now()
    FROM generate_series($4::int, $5::int) AS i"""


def sessions(bench: Bench, counts: Sequence[int] = COUNTS) -> list[Work]:
    fewest, most = f"{counts[0]:,} sessions", f"{counts[-1]:,} sessions"
    work = Work(f"GET /auth/me beside {REFRESHES_A_SECOND} refreshes/s", [Goal(most, fewest, 1 / _AT_MOST)])
    with data_folder() as data_dir, Server(contestants.hub(data_dir, {}), data_dir.parent / "hub.log") as hub:
        crowd = _Crowd(hub, data_dir)
        with embedded.running(data_dir) as database:
            measured = Bench(bench.pace, database.pid, lambda _: None)
            for count in counts:
                bench.tell(f"sessions: {count:,}")
                asyncio.run(crowd.grow(database.superuser_url, count))
                crowd.warm()
                me = Entry(hub, sign_in(hub.url).request("GET", "/auth/me"))
                for _ in range(bench.pace.rounds):
                    with crowd.refreshing(bench):
                        _, sample = measured.measure(me)
                    work.add(f"{count:,} sessions", sample)
    return [work]


class _Crowd:
    """Sessions written straight into the tables, with tokens that only whoever has the hub's keys can make."""

    def __init__(self, hub: Server, data_dir: Path) -> None:
        self._hub = hub
        self._ring = KeyRing.parse((data_dir / SECRET_KEYS_FILE).read_text().strip())
        self._tokens = Tokens(read_signing_keys(data_dir / SIGNING_KEYS_FILE), issuer=_issuer(hub))
        self._count = 0
        self._refreshed = 0

    async def grow(self, url: str, count: int) -> None:
        connection = await asyncpg.connect(url)
        first_user, last_user = -(-self._count // _SESSIONS_OF_USER), (count - 1) // _SESSIONS_OF_USER
        await connection.execute(_USERS, _TENANT, first_user, last_user)
        await connection.execute(_MEMBERS, _TENANT, _PUBLIC_ROLE, first_user, last_user)
        key_id = self._ring.current_id
        await connection.execute(_SESSIONS, _TENANT, _SESSIONS_OF_USER, key_id, self._count, count - 1, timeout=600)
        await connection.execute("VACUUM ANALYZE sessions, users, role_assignments", timeout=600)
        await connection.close()
        self._count = count

    def warm(self) -> None:
        """Have as many principals in memory as the hub keeps."""
        wanted = range(min(self._count, MAX_PRINCIPALS))
        warmers = [threading.Thread(target=self._ask_for, args=(wanted[n::_WARMERS],)) for n in range(_WARMERS)]
        for each in warmers:
            each.start()
        for each in warmers:
            each.join()

    def _ask_for(self, numbers: range) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._hub.port)
        for number in numbers:
            token = self._tokens.issue(subject=_user(number), session=_session(number), tenant=_TENANT)
            connection.request("GET", "/api/v1/auth/me", headers={"Authorization": f"Bearer {token}"})
            connection.getresponse().read()
        connection.close()

    @contextmanager
    def refreshing(self, bench: Bench) -> Iterator[None]:
        """One session after the other, so many a second, for as long as the block lasts."""
        over, failed = threading.Event(), list[int]()

        def refresh() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", self._hub.port)
            while not over.wait(1 / REFRESHES_A_SECOND):
                if (status := self._refresh(connection)) != 200:
                    failed.append(status)

        refresher = threading.Thread(target=refresh)
        refresher.start()
        try:
            yield
        finally:
            over.set()
            refresher.join()
        if failed:
            bench.problem(f"sessions: {len(failed)} refreshes failed, such as with {failed[0]}")

    def _refresh(self, connection: http.client.HTTPConnection) -> int:
        """Each session in turn; with few of them some generations later."""
        number, generation = self._refreshed % self._count, 1 + self._refreshed // self._count
        self._refreshed += 1
        token = refresh_token_of(self._ring, self._ring.current_id, _session(number), generation)
        body = json.dumps({"refresh_token": token})
        connection.request("POST", "/api/v1/auth/refresh", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        return answer.status


def _user(number: int) -> UUID:
    return UUID(f"01910000-0000-7000-8000-{number // _SESSIONS_OF_USER:012x}")


def _session(number: int) -> UUID:
    return UUID(f"01920000-0000-7000-8000-{number:012x}")


def _issuer(hub: Server) -> str:
    """As the hub's own tokens have it."""
    import jwt

    claims = jwt.decode(sign_in(hub.url).token, options={"verify_signature": False})
    return str(claims["iss"])
