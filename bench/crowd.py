"""Rows for every list, as many as asked for, written straight into the tables of one tenant.

The distributions are lopsided on purpose: most rows share one value, some values are rare, some have no row at all, and
what is rare stands together at one end, as after an import. A list that walks along in the hope of soon finding what it
looks for is found out by them. Texts stand together, too: all names that begin with one word, and a hundredth of the
sources that came last.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

TENANT = UUID("00000000-0000-7000-8000-000000000001")
PUBLIC_ROLE = UUID("00000000-0000-7000-8000-000000000102")
FEW = 20
"""Rows that have the rare values: the first ones, whatever comes after them."""
_TABLES = (
    "users", "roles", "sources", "tests", "objects", "jobs", "audit events", "sessions", "accounts", "tenants",
    "domains", "groups", "keys", "role requests", "timeline", "delegations", "reviews", "lines",
    "webhooks", "deliveries", "events", "scim keys", "clients", "invitations", "factors",
)  # fmt: skip


def row_id(table: str, number: int) -> UUID:
    """Counts upwards, as UUIDs of version 7 do."""
    return UUID(f"0190{_TABLES.index(table):04x}-0000-7000-8000-{number:012x}")


CROWDED_ROLE, SMALL_ROLE, EMPTY_ROLE = (row_id("roles", 0xF00000000000 + number) for number in (1, 2, 3))
"""A tenth of the users, the first ones, hold one; `FEW` hold another; the third is held by nobody."""
CROWDED_SOURCE = row_id("sources", 0xF00000000001)
"""All tests and objects are of this one."""

CROWDED_DOMAIN, SMALL_DOMAIN, EMPTY_DOMAIN = (row_id("domains", 0xF00000000000 + number) for number in (1, 2, 3))
"""A tenth of the sources, the last ones, are in one, and so are most domains; `FEW` are in another."""
CROWDED_GROUP, SMALL_GROUP, EMPTY_GROUP = (row_id("groups", 0xF00000000000 + number) for number in (1, 2, 3))
"""As the roles of these names."""

_AT = "('2025-01-01Z'::timestamptz + i * interval '1 second')"
_CHANGED = "('2026-01-01Z'::timestamptz + (i::bigint * 7919 % 1000003) * interval '1 second')"
"""In another order than that of their creation."""
_FIRST_NAMES = "(ARRAY['Ada','Grace','Alan','Edsger','Barbara','Donald','Tony','Margaret','Dennis','Ken'])[1 + i % 10]"
EVENT_TYPE = "'org.datafusionhub.data_source.updated'"
_WORDS = (
    "(ARRAY['orders','payments','stock','parcels','visits','returns','prices','shops','fares','bills'])[1 + i % 10]"
)


def _id(table: str) -> str:
    return f"('0190{_TABLES.index(table):04x}-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid"


def _rare_or(rare: str, common: str) -> str:
    return f"CASE WHEN i <= {FEW} THEN {rare} ELSE {common} END"


async def make_places(connection: Any) -> None:
    """The roles, domains, groups and the source that many rows hang on."""
    for name, role_id in {"crowded": CROWDED_ROLE, "small": SMALL_ROLE, "empty": EMPTY_ROLE}.items():
        await connection.execute(
            """INSERT INTO roles (id, tenant_id, name, name_key, permissions, is_system, created_at, updated_at)
               VALUES ($1, $2, $3, $3, '{}', false, now(), now())""",
            role_id,
            TENANT,
            name,
        )
    for name, domain_id in {"crowded": CROWDED_DOMAIN, "small": SMALL_DOMAIN, "empty": EMPTY_DOMAIN}.items():
        await connection.execute(
            """INSERT INTO data_domains (id, tenant_id, name, name_key, lineage, created_at, updated_at)
               VALUES ($1, $2, $3, $3, ARRAY[$1::uuid], now(), now())""",
            domain_id,
            TENANT,
            name,
        )
    for name, group_id in {"crowded": CROWDED_GROUP, "small": SMALL_GROUP, "empty": EMPTY_GROUP}.items():
        await connection.execute(
            """INSERT INTO groups (id, tenant_id, name, name_key, created_at, updated_at)
               VALUES ($1, $2, $3, $3, now(), now())""",
            group_id,
            TENANT,
            name,
        )
    await connection.execute(
        """INSERT INTO data_sources (id, tenant_id, name, name_key, type, category, config, tags, is_paused, status,
                                     created_at, updated_at)
           VALUES ($1, $2, 'crowded', 'crowded', 'postgresql', 'database', '{}', '{}', false, 'untested', now(),
                   now())""",
        CROWDED_SOURCE,
        TENANT,
    )


async def grow(connection: Any, first: int, last: int, *, user_id: UUID) -> None:
    """Rows of these numbers for every list, on a connection of the owner's. The sessions are all of one user."""
    for statement in _statements(first, last, user_id):
        await connection.execute(statement)
    await connection.execute("ANALYZE")


def _statements(first: int, last: int, user_id: UUID) -> Iterator[str]:
    numbers = f"generate_series({first}, {last}) AS i"
    owner = f"CASE WHEN i <= {FEW} THEN '{SMALL_ROLE}'::uuid WHEN i % 100 = 0 THEN '{CROWDED_ROLE}' END"
    late, later = last - (last - first + 1) // 77, last - (last - first + 1) // 100
    together = f"CASE WHEN i > {later} THEN ' archived' WHEN i > {late} THEN ' mothballed' ELSE '' END"
    yield f"""
        INSERT INTO users (id, tenant_id, email, email_key, first_name, last_name, is_active, created_at, updated_at)
        SELECT {_id("users")}, '{TENANT}', email, email, {_FIRST_NAMES}, 'Of ' || substr(md5(i::text), 1, 8), i > {FEW},
          {_AT}, {_CHANGED}
        FROM (SELECT i, 'person.' || substr(md5('u' || i), 1, 12) || '@example.org' AS email FROM {numbers}) AS numbered
    """
    yield f"""
        INSERT INTO roles (id, tenant_id, name, name_key, description, permissions, owner_role_id, is_system,
                           is_requestable, created_at, updated_at)
        SELECT {_id("roles")}, '{TENANT}', name, name, 'People who look at ' || {_WORDS}, '{{roles:read}}', {owner},
          false, i <= {FEW}, {_AT}, {_CHANGED}
        FROM (SELECT i, {_WORDS} || ' ' || substr(md5('r' || i), 1, 12) AS name FROM {numbers}) AS numbered
    """
    yield f"""
        INSERT INTO service_accounts (id, tenant_id, name, name_key, description, is_active, created_at, updated_at)
        SELECT {_id("accounts")}, '{TENANT}', name, name, 'Looks at ' || {_WORDS}, i > {FEW}, {_AT}, {_CHANGED}
        FROM (SELECT i, {_WORDS} || ' of ' || substr(md5('a' || i), 1, 12) AS name FROM {numbers}) AS numbered
    """
    yield f"""
        INSERT INTO oauth_clients (id, tenant_id, client_id, name, name_key, redirect_uris, is_confidential, created_at,
                                   updated_at)
        SELECT {_id("clients")}, '{TENANT}', 'dfo_' || i, name, name, '{{https://app.example.org/}}', false, {_AT},
          {_CHANGED}
        FROM (SELECT i, {_WORDS} || ' for ' || substr(md5('o' || i), 1, 12) AS name FROM {numbers}) AS numbered
    """
    yield f"""
        INSERT INTO tenants (id, slug, name, is_active, created_at, updated_at)
        SELECT {_id("tenants")}, slug, slug, i > {FEW}, {_AT}, {_CHANGED}
        FROM (SELECT i, {_WORDS} || '-' || substr(md5('t' || i), 1, 12) AS slug FROM {numbers}) AS numbered
    """
    memberships = {
        PUBLIC_ROLE: (first, last),
        CROWDED_ROLE: ((first - 1) // 10 + 1, last // 10),
        SMALL_ROLE: (first, min(last, FEW)),
    }
    for role_id, (low, high) in memberships.items():
        yield f"""
            INSERT INTO role_assignments (id, subject_type, scope_type, subject_id, role_id, tenant_id, starts_at,
                                          created_at, updated_at, user_email_key, user_created_at, user_updated_at)
            SELECT gen_random_uuid(), 'user', 'tenant', users.id, '{role_id}', '{TENANT}', {_AT}, {_AT}, {_AT},
              users.email_key, users.created_at, users.updated_at
            FROM generate_series({low}, {high}) AS i JOIN users ON users.id = {_id("users")}
        """
    yield f"""
        INSERT INTO role_assignments (id, subject_type, scope_type, scope_id, subject_id, role_id, tenant_id, starts_at,
                                      ended_at, created_at, updated_at)
        SELECT gen_random_uuid(), {_rare_or("'group'", "'user'")}, {_rare_or("'data_domain'", "'data_source'")},
          {_rare_or(f"'{SMALL_ROLE}'::uuid", f"'{CROWDED_SOURCE}'")}, {_id("users")}, '{CROWDED_ROLE}', '{TENANT}',
          {_AT}, CASE WHEN i % 2 = 0 THEN {_AT} + interval '1 hour' END, {_AT}, {_AT}
        FROM {numbers}
    """
    yield f"""
        INSERT INTO data_domains (id, tenant_id, name, name_key, description, parent_id, lineage, owner_role_id,
                                  created_at, updated_at)
        SELECT {_id("domains")}, '{TENANT}', name, name, 'Sources of ' || {_WORDS}, parent,
          array_remove(ARRAY[parent, {_id("domains")}], NULL), {owner}, {_AT}, {_CHANGED}
        FROM (SELECT i, {_WORDS} || ' ' || substr(md5('d' || i), 1, 12) AS name,
                CASE WHEN i <= {FEW} THEN '{SMALL_DOMAIN}'::uuid WHEN i % 3 > 0 THEN '{CROWDED_DOMAIN}' END AS parent
              FROM {numbers}) AS numbered
    """
    yield f"""
        INSERT INTO groups (id, tenant_id, name, name_key, description, created_at, updated_at)
        SELECT {_id("groups")}, '{TENANT}', name, name, 'People who look at ' || {_WORDS}, {_AT}, {_CHANGED}
        FROM (SELECT i, {_WORDS} || ' ' || substr(md5('g' || i), 1, 12) AS name FROM {numbers}) AS numbered
    """
    in_groups = {CROWDED_GROUP: ((first - 1) // 10 + 1, last // 10), SMALL_GROUP: (first, min(last, FEW))}
    for group_id, (low, high) in in_groups.items():
        yield f"""
            INSERT INTO group_members (id, tenant_id, group_id, user_id, created_at, user_email_key, user_created_at,
                                       user_updated_at)
            SELECT gen_random_uuid(), '{TENANT}', '{group_id}', users.id, {_AT}, users.email_key, users.created_at,
              users.updated_at
            FROM generate_series({low}, {high}) AS i JOIN users ON users.id = {_id("users")}
        """
    last_tenth = last - (last - first + 1) // 10
    in_domain = f"CASE WHEN i <= {FEW} THEN '{SMALL_DOMAIN}'::uuid WHEN i > {last_tenth} THEN '{CROWDED_DOMAIN}' END"
    yield f"""
        INSERT INTO role_requests (id, tenant_id, user_id, role_id, scope_type, justification, status, pending_until,
                                   slots, awaits, created_at, updated_at)
        SELECT {_id("role requests")}, '{TENANT}', {_rare_or(f"{_id('users')}", f"'{user_id}'::uuid")},
          {_rare_or(f"'{SMALL_ROLE}'::uuid", f"'{CROWDED_ROLE}'::uuid")}, 'tenant', 'To look at ' || {_WORDS},
          CASE WHEN i <= {FEW} THEN 'pending' WHEN i % 50 = 0 THEN 'denied' WHEN i % 3 = 0 THEN 'expired'
            ELSE 'approved' END,
          now() + interval '1 day', ARRAY['{PUBLIC_ROLE}'::uuid], ARRAY['{PUBLIC_ROLE}'::uuid], {_AT}, {_AT}
        FROM {numbers}
    """
    yield f"""
        INSERT INTO role_request_entries (id, tenant_id, request_id, kind, role_ids, created_at)
        SELECT {_id("timeline")}, '{TENANT}', '{row_id("role requests", 1)}', 'commented', '{{}}', {_AT}
        FROM {numbers}
    """
    yield f"""
        INSERT INTO factors (id, tenant_id, user_id, type, name, confirmed_at, created_at, updated_at)
        SELECT {_id("factors")}, '{TENANT}', {_rare_or(f"'{row_id('users', 5)}'::uuid", f"'{user_id}'::uuid")},
          'passkey', 'key ' || i, {_AT}, {_AT}, {_AT}
        FROM {numbers}
    """
    yield f"""
        INSERT INTO delegations (id, tenant_id, user_id, to_user_id, starts_at, ends_at, created_at, updated_at)
        SELECT {_id("delegations")}, '{TENANT}', {_rare_or(f"'{row_id('users', 5)}'::uuid", f"'{user_id}'::uuid")},
          {_id("roles")}, {_AT}, {_AT} + interval '1 day', {_AT}, {_AT}
        FROM {numbers}
    """
    yield f"""
        INSERT INTO access_reviews (id, tenant_id, name, role_id, due_at, on_no_answer, closed_at, created_at,
                                    updated_at)
        SELECT {_id("reviews")}, '{TENANT}', 'Of ' || {_WORDS}, '{CROWDED_ROLE}', {_AT}, 'keep', {_AT}, {_AT}, {_AT}
        FROM {numbers}
    """
    yield f"""
        INSERT INTO access_review_items (id, tenant_id, review_id, assignment_id, subject_type, subject_id,
                                         subject_name, role_id, role_name, scope_type, since, state)
        SELECT {_id("lines")}, '{TENANT}', '{row_id("reviews", 1)}', {_id("lines")}, 'user', {_id("users")}, 'Somebody',
          '{CROWDED_ROLE}', 'crowded', 'tenant', {_AT}, {_rare_or("'ended'", "'kept'")}
        FROM {numbers}
    """
    yield f"""
        INSERT INTO data_sources (id, tenant_id, name, name_key, description, type, category, config, tags,
                                  owner_role_id, data_domain_id, is_paused, status, created_at, updated_at)
        SELECT {_id("sources")}, '{TENANT}', name, name, 'Rows of ' || {_WORDS} || {together},
          CASE WHEN i <= {FEW} THEN 'redis' WHEN i % 3 = 0 THEN 'mysql' ELSE 'postgresql' END,
          {_rare_or("'cache'", "'database'")}, '{{"host": "db.example.org"}}',
          {_rare_or("'{old,shop}'::text[]", "'{shop}'")}, {owner}, {in_domain}, i <= {FEW},
          CASE WHEN i <= {FEW} THEN 'failed' WHEN i % 4 = 0 THEN 'passed' ELSE 'untested' END, {_AT}, {_CHANGED}
        FROM (SELECT i, {_WORDS} || '-' || substr(md5('s' || i), 1, 12) AS name FROM {numbers}) AS numbered
    """
    yield f"""
        INSERT INTO data_source_tags (data_source_id, tag, tenant_id, source_created_at, source_updated_at,
                                      source_name_key)
        SELECT source.id, tag, source.tenant_id, source.created_at, source.updated_at, source.name_key
        FROM {numbers} JOIN data_sources AS source ON source.id = {_id("sources")}, unnest(source.tags) AS tag
        ON CONFLICT DO NOTHING  -- where the triggers were not switched off
    """
    yield f"""
        INSERT INTO data_source_secrets (data_source_id, name, tenant_id, sealed, key_id, version, updated_at)
        SELECT {_id("sources")}, 'password', '{TENANT}', '\\x00', 'of before', 1, {_AT} FROM {numbers}
    """
    yield f"""
        INSERT INTO data_source_tests (id, tenant_id, data_source_id, status, steps, server, duration_ms, created_at)
        SELECT {_id("tests")}, '{TENANT}', '{CROWDED_SOURCE}', {_rare_or("'failed'", "'passed'")}, '[]', '{{}}', 1.5,
          {_AT}
        FROM {numbers}
    """
    yield f"""
        INSERT INTO source_objects (id, tenant_id, data_source_id, name, path, qualified_name, kind, is_active, fields,
                                    discovered_at)
        SELECT {_id("objects")}, '{TENANT}', '{CROWDED_SOURCE}', name, ARRAY['shop', name], 'shop.' || name,
          {_rare_or("'view'", "'table'")}, i > {FEW}, '[]', {_CHANGED}
        FROM (SELECT i, {_WORDS} || '_' || substr(md5('o' || i), 1, 12) AS name FROM {numbers}) AS numbered
    """
    yield f"""
        INSERT INTO jobs (id, tenant_id, kind, status, subject_id, arguments, created_at, updated_at, finished_at)
        SELECT {_id("jobs")}, '{TENANT}', {_rare_or("'tidy'", "'discover'")}, {_rare_or("'failed'", "'succeeded'")},
          {_rare_or(f"'{SMALL_ROLE}'::uuid", f"CASE WHEN i % 2 = 0 THEN '{CROWDED_SOURCE}'::uuid END")}, '{{}}', {_AT},
          {_AT}, {_AT}
        FROM {numbers}
    """
    yield f"""
        INSERT INTO audit_events (id, tenant_id, occurred_at, actor_id, api_key_id, action, resource_type, resource_id,
                                  outcome, request_id, address)
        SELECT {_id("audit events")}, '{TENANT}', {_AT},
          {_rare_or(f"'{SMALL_ROLE}'::uuid", f"CASE WHEN i % 2 = 0 THEN '{user_id}'::uuid END")},
          {_rare_or(f"'{SMALL_ROLE}'::uuid", f"CASE WHEN i % 2 = 0 THEN '{CROWDED_SOURCE}'::uuid END")},
          {_rare_or("'tenant.create'", "'data_source.test'")}, {_rare_or("'tenant'", "'data_source'")},
          {_rare_or(f"'{SMALL_ROLE}'::uuid", f"'{CROWDED_SOURCE}'::uuid")}, {_rare_or("'refused'", "'success'")},
          {_rare_or("'one-request'", "substr(md5('a' || i), 1, 12)")}, {_rare_or("'2001:db8::7'", "'192.0.2.1'")}
        FROM {numbers}
    """
    yield f"""
        INSERT INTO audit_seals (tenant_id, number, first_position, last_position, first_id, last_id, count, root,
                                 previous_hash, sealed_at, kid, signature, hash)
        SELECT '{TENANT}', i, i, i, {_id("audit events")}, {_id("audit events")}, 1, repeat('0', 64), repeat('0', 64),
          {_AT}, 'of before', repeat('0', 128), repeat('0', 64)
        FROM {numbers}
    """
    yield f"""
        INSERT INTO outbox_events (id, tenant_id, type, source, subject, "time", data, position, data_source_id,
                                   data_domain_id)
        SELECT {_id("events")}, '{TENANT}', {_rare_or("'org.datafusionhub.tenant.created'", EVENT_TYPE)}, '/api/v1',
          {_rare_or(f"'tenants/{SMALL_ROLE}'", f"'data-sources/{CROWDED_SOURCE}'")}, {_AT} + i * interval '9 seconds',
          '{{}}', i, {_rare_or("NULL", f"'{CROWDED_SOURCE}'::uuid")}, {in_domain}
        FROM {numbers}
    """
    yield _keys(numbers, user_id)
    yield _scim_keys(numbers)
    yield _invitations(numbers)
    yield f"""
        INSERT INTO webhooks (id, tenant_id, url, event_types, data_domain_id, is_active, position, created_at,
                              updated_at)
        SELECT {_id("webhooks")}, '{TENANT}', 'https://hooks.example.org/', '{{}}', {in_domain}, false, 0, {_AT},
          {_CHANGED}
        FROM {numbers}
    """
    yield f"""
        INSERT INTO webhook_deliveries (id, tenant_id, webhook_id, event_id, event_type, subject, status, attempts,
                                        created_at, expires_at)
        SELECT {_id("deliveries")}, '{TENANT}', '{row_id("webhooks", 1)}', {_id("deliveries")}, 'role.created',
          'roles/' || i, {_rare_or("'failed'", "'delivered'")}, 1, {_AT}, {_AT}
        FROM {numbers}
    """
    yield f"""
        INSERT INTO sessions (id, tenant_id, user_id, key_id, generation, rotated_at, idle_expires_at, expires_at,
                              last_seen_at, created_at, updated_at)
        SELECT {_id("sessions")}, '{TENANT}', '{user_id}', 'of before', 1, {_AT},
          now() + {_rare_or("interval '1 day'", "interval '-1 day'")}, now() + interval '2 days', {_CHANGED}, {_AT},
          {_AT}
        FROM {numbers}
    """


def _invitations(numbers: str) -> str:
    address = "'invited.' || substr(md5('i' || i), 1, 12) || '@example.org'"
    return f"""
        INSERT INTO invitations (id, tenant_id, email, email_key, first_name, last_name, role_ids, expires_at,
                                 created_at, updated_at)
        SELECT {_id("invitations")}, '{TENANT}', {address}, {address}, {_FIRST_NAMES}, '', '{{}}', {_CHANGED}, {_AT},
          {_CHANGED}
        FROM {numbers}
    """


def _keys(numbers: str, user_id: UUID) -> str:
    return f"""
        INSERT INTO api_keys (id, tenant_id, name, prefix, digest, owner_type, owner_id, expires_at, created_at,
                              updated_at)
        SELECT {_id("keys")}, '{TENANT}', {_WORDS} || ' ' || substr(md5('k' || i), 1, 12),
          'dfh_' || substr(md5('p' || i), 1, 22), '\\x00', {_rare_or("'service_account'", "'user'")},
          {_rare_or(_id("accounts"), f"'{user_id}'::uuid")}, {_CHANGED}, {_AT}, {_CHANGED}
        FROM {numbers}
    """


def _scim_keys(numbers: str) -> str:
    return f"""
        INSERT INTO scim_keys (id, tenant_id, name, digest, created_at, updated_at)
        SELECT {_id("scim keys")}, '{TENANT}', {_WORDS} || ' ' || substr(md5('s' || i), 1, 12), '\\x00', {_AT},
          {_CHANGED}
        FROM {numbers}
    """


@asynccontextmanager
async def without_indexes(connection: Any) -> AsyncIterator[None]:
    """For many rows: indexes that hold no constraint are built anew at the end, which takes a third of the time."""
    found = await connection.fetch(
        """SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS definition
           FROM pg_index JOIN pg_class ON pg_class.oid = indrelid
           WHERE relnamespace = 'public'::regnamespace AND NOT indisunique"""
    )
    samples = await connection.fetch(
        """SELECT attrelid::regclass::text AS name, attnum, attstattarget FROM pg_attribute
           JOIN pg_class ON pg_class.oid = attrelid WHERE relkind = 'i' AND attstattarget > 0"""
    )
    for row in found:
        await connection.execute(f"DROP INDEX {row['name']}")
    yield
    await connection.execute("SET maintenance_work_mem = '512MB'")
    for row in found:
        await connection.execute(row["definition"])
    for row in samples:
        await connection.execute(
            f"ALTER INDEX {row['name']} ALTER COLUMN {row['attnum']} SET STATISTICS {row['attstattarget']}"
        )
    await connection.execute("ANALYZE")
