"""Data sources for tests: a small shop in a real PostgreSQL, the calls that tests make all the time, and a worker."""

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from time import monotonic
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import httpx

from app.core import embedded
from app.core.embedded import EmbeddedPostgres
from app.domain.jobs.runner import JobHandler, JobRunner
from app.domain.parts import Parts
from app.worker import HANDLERS
from tests.beside import beside
from tests.conftest import Hub
from tests.postgres import create_database

SOURCES = "/api/v1/data-sources"
NOWHERE = {"host": "nowhere.invalid", "database": "shop", "username": "reader"}
CERTIFIED = NOWHERE | {
    "tls_mode": "require",
    "client_certificate": "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----",
}
"""Takes two secrets."""
ENDED = ("succeeded", "failed", "cancelled")

SHOP = """
CREATE TABLE orders (id bigint PRIMARY KEY, name text, total numeric(12, 2) NOT NULL, paid boolean, placed_at timestamptz);
INSERT INTO orders SELECT n, 'order ' || n, n * 1.5, n % 2 = 0, '2024-01-02T03:04:05Z' FROM generate_series(1, 30) AS n;
CREATE VIEW recent AS SELECT id, name FROM orders;
CREATE TABLE gone (id integer);
CREATE TABLE cells (id integer, cell text, amount numeric, doc jsonb);
CREATE SCHEMA "odd.schema";
CREATE TABLE "odd.schema"."a ""b"".c" ("x y" integer);
INSERT INTO "odd.schema"."a ""b"".c" VALUES (7);
"""


@dataclass
class Shop:
    """A database with the tables of SHOP, and a role that may read them."""

    owner_url: str
    username: str
    password: str

    @property
    def config(self) -> dict[str, Any]:
        place = urlsplit(self.owner_url)
        return {"host": "127.0.0.1", "port": place.port, "database": place.path[1:], "username": self.username}

    async def run(self, sql: str) -> None:
        connection = await asyncpg.connect(self.owner_url)
        try:
            await connection.execute(sql)
            await connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {self.username}")
        finally:
            await connection.close()


async def open_shop(cluster: EmbeddedPostgres) -> Shop:
    name, username = await create_database(cluster), f"reader_{uuid4().hex}"
    shop = Shop(cluster.url(embedded.SUPERUSER, name), username, f"canary-{uuid4().hex}")
    await shop.run(f"CREATE ROLE {username} LOGIN PASSWORD '{shop.password}'; {SHOP}")
    await shop.run(f'GRANT USAGE ON SCHEMA "odd.schema" TO {username}')
    await shop.run(f'GRANT SELECT ON ALL TABLES IN SCHEMA "odd.schema" TO {username}')
    return shop


async def post_source(client: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    body = {"name": f"source {uuid4().hex}", "type": "postgresql", "config": NOWHERE, **fields}
    return await client.post(SOURCES, json=body)


async def registered(hub: Hub, **fields: Any) -> dict[str, Any]:
    answer = await post_source(hub.admin, **fields)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    made.pop("warnings", None)  # many sources of the tests are of one place
    return made


async def registered_shop(hub: Hub, shop: Shop, **fields: Any) -> str:
    """The path of a source that leads to the shop."""
    made = await registered(hub, config=shop.config, secrets={"password": shop.password}, **fields)
    return f"{SOURCES}/{made['id']}"


async def discovered_shop(hub: Hub, shop: Shop) -> str:
    path = await registered_shop(hub, shop)
    assert (await discovered(hub, path))["status"] == "succeeded"
    return path


async def discovered(hub: Hub, path: str) -> dict[str, Any]:
    """The job of a discovery, after it has ended."""
    started = await hub.admin.post(f"{path}/discover")
    assert started.status_code == 202, started.text
    async with working(hub.parts):
        return await ended(hub.admin, started.json()["id"])


async def objects(hub: Hub, path: str, query: str = "") -> dict[str, dict[str, Any]]:
    found = await hub.admin.get(f"{path}/objects?limit=200{query}")
    assert found.status_code == 200, found.text
    return {item["qualified_name"]: item for item in found.json()["items"]}


def working(
    parts: Parts, handlers: Mapping[str, JobHandler] = HANDLERS, *, concurrency: int = 4
) -> AbstractAsyncContextManager["asyncio.Task[None]"]:
    """A worker's queue in this process, shut down with the block."""
    return beside(JobRunner(parts, handlers, concurrency=concurrency).run_forever())


async def ended(client: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
    return await until(client, job_id, *ENDED)


async def until(client: httpx.AsyncClient, job_id: str, *statuses: str, within_s: float = 30) -> dict[str, Any]:
    """The job once it has one of the statuses."""
    gives_up = monotonic() + within_s
    while True:
        job: dict[str, Any] = (await client.get(f"/api/v1/jobs/{job_id}")).json()
        if job["status"] in statuses:
            return job
        assert monotonic() < gives_up, job
        await asyncio.sleep(0.05)


def faults(answer: httpx.Response) -> dict[str, str]:
    """Path to code."""
    return {fault["path"]: fault["code"] for fault in answer.json().get("errors") or []}
