"""What was asked of a hub and what it acknowledged, written down before anything is sent, and held against its database.

The ledger is a file: a test that dies with its hub leaves it. Nothing acknowledged may be missing, and each role that is
there has one row in the audit log and one event in the outbox, whatever happened to the hub while it was made.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import asyncpg
import httpx

from tests.commands.hubs import Served

PATIENCE_S = 60
"""Of the tests, not a promise of the hub: other work shares the machine."""
PASSED_ON = frozenset((429, 502, 503))


@dataclass(frozen=True)
class Verdict:
    acknowledged: int
    present: int
    lost: int
    roles: int
    """All that are there: what was asked for without an answer may be, or not."""
    one_audit_row_each: bool
    one_event_each: bool
    out_s: float
    """The longest time in which nothing was acknowledged."""

    @property
    def is_good(self) -> bool:
        return self.acknowledged > 0 and self.lost == 0 and self.one_audit_row_each and self.one_event_each

    def __str__(self) -> str:
        pairs = "audit and events one to one" if self.one_audit_row_each and self.one_event_each else "NOT ONE TO ONE"
        return (
            f"acknowledged {self.acknowledged:5}  present {self.present:5}  lost {self.lost}  {pairs}  "
            f"out {self.out_s:4.1f} s"
        )


class Ledger:
    """Of roles that several writers make at once, without end."""

    def __init__(self, file: Path, client: httpx.Client) -> None:
        self._file = file.open("a", encoding="utf-8")
        self._client = client
        self._is_over = threading.Event()
        self._writing = threading.Lock()
        self._last = time.monotonic()
        self.acknowledged: dict[str, str] = {}
        """Name to id."""
        self.sent = 0
        self.out_s = 0.0
        self.unexpected: list[str] = []

    @contextmanager
    def being_filled(self, writers: int = 4) -> Iterator["Ledger"]:
        with ThreadPoolExecutor(writers) as pool:
            tasks = [pool.submit(self._write_on) for _ in range(writers)]
            try:
                yield self
            finally:
                self._is_over.set()
            for task in tasks:
                task.result()

    def wait_for_more(self, count: int = 20) -> None:
        """Until so many more are acknowledged."""
        wanted, began = len(self.acknowledged) + count, time.monotonic()
        while len(self.acknowledged) < wanted:
            assert time.monotonic() < began + PATIENCE_S, self.unexpected[-3:]
            time.sleep(0.01)

    def _write_on(self) -> None:
        while not self._is_over.is_set():
            name = uuid4().hex
            self._note("sent", name)
            try:
                answer = self._client.post("/roles", json={"name": name})
            except httpx.TransportError:
                time.sleep(0.02)
                continue
            if answer.status_code == 201:
                self._acknowledge(name, answer.json()["id"])
            elif answer.status_code in PASSED_ON:
                time.sleep(0.02)
            else:
                self.unexpected.append(f"{answer.status_code} {answer.text}")

    def _note(self, kind: str, name: str) -> None:
        with self._writing:
            self.sent += kind == "sent"
            self._file.write(f"{json.dumps({kind: name})}\n")
            self._file.flush()

    def _acknowledge(self, name: str, role_id: str) -> None:
        now = time.monotonic()
        self.out_s, self._last = max(self.out_s, now - self._last), now
        self.acknowledged[name] = role_id
        self._note("acknowledged", name)

    async def verdict(self, owner_url: str) -> Verdict:
        connection = await asyncpg.connect(owner_url)
        try:
            rows = await connection.fetch(STORED)
        finally:
            await connection.close()
        stored = {row["name"]: (row["audit_rows"], row["events"]) for row in rows}
        lost = self.acknowledged.keys() - stored.keys()
        return Verdict(
            acknowledged=len(self.acknowledged),
            present=len(self.acknowledged) - len(lost),
            lost=len(lost),
            roles=len(stored),
            one_audit_row_each=all(counts[0] == 1 for counts in stored.values()),
            one_event_each=all(counts[1] == 1 for counts in stored.values()),
            out_s=self.out_s,
        )


STORED = """
    SELECT role.name,
      (SELECT count(*) FROM audit_events WHERE resource_id = role.id AND action = 'role.create') AS audit_rows,
      (SELECT count(*) FROM outbox_events WHERE subject = 'roles/' || role.id AND type LIKE '%role.created') AS events
    FROM roles AS role WHERE NOT role.is_system"""


def owner_url_of(hub: Served) -> str:
    postgres = json.loads((hub.data_dir / "postgres.json").read_text(encoding="utf-8"))
    return f"postgresql://hub_owner:{postgres['passwords']['hub_owner']}@127.0.0.1:{postgres['port']}/hub"


def wait_until(is_so: Callable[[], bool]) -> None:
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() < began + PATIENCE_S
        time.sleep(0.02)
