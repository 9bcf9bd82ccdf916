"""What is compared: for each user and place that a change touches, the permissions that are held there.

Both statements go by sets, whoever many are touched: users who hold the same roles at one place are one group, whose
permissions are put together once. What was before travels as one text from the first statement to the second, inside of
one transaction, since the second sees only what is after the change.
"""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import ARRAY, DateTime, Text, TextClause, Uuid, bindparam, text

MOST_LINES = 1000
_EVERYWHERE = "'00000000-0000-0000-0000-000000000000'::uuid"
"""Stands for the whole tenant where places are compared."""
_NOW = "coalesce(:moment, statement_timestamp())"
_HELD_BY_GROUP = f"""
    SELECT role_id, scope_type, scope_id FROM role_assignments
    WHERE tenant_id = :tenant_id AND subject_id = :row_id AND ended_at IS NULL
      AND (expires_at IS NULL OR expires_at > {_NOW})"""  # noqa: S608 - texts of ours, as below
TOUCHED: Final[Mapping[str, str]] = {
    "role": f"""
      SELECT subject_type, subject_id, scope_type, scope_id FROM role_assignments
      WHERE tenant_id = :tenant_id AND role_id = :row_id AND ended_at IS NULL
        AND (expires_at IS NULL OR expires_at > {_NOW})""",  # noqa: S608
    "subject": "SELECT :subject_type, :row_id, :scope_type, :scope_id",
    "group": f"""
      SELECT CASE WHEN :user_id IS NULL THEN 'group' ELSE 'user' END, coalesce(:user_id, :row_id), scope_type, scope_id
      FROM (
        WITH held AS ({_HELD_BY_GROUP}), owning AS (SELECT role_id FROM held WHERE scope_id IS NULL)
        SELECT scope_type, scope_id FROM held
        UNION SELECT 'data_domain', id FROM data_domains
        WHERE tenant_id = :tenant_id AND owner_role_id IN (SELECT role_id FROM owning)
        UNION SELECT 'data_source', id FROM data_sources
        WHERE tenant_id = :tenant_id AND owner_role_id IN (SELECT role_id FROM owning)) AS place""",  # noqa: S608
    "data_domain": """
      SELECT subject_type, subject_id, 'data_domain', :row_id FROM role_assignments
      WHERE tenant_id = :tenant_id AND ended_at IS NULL AND (
        scope_id IN (SELECT unnest(lineage) FROM data_domains WHERE id = ANY(:domain_ids))
        OR scope_id IS NULL AND role_id IN (
          SELECT unnest(:role_ids) UNION SELECT above.owner_role_id
          FROM data_domains AS named JOIN data_domains AS above ON above.id = ANY(named.lineage)
          WHERE named.id = ANY(:domain_ids)))""",
}
"""By kind of change: to whom something is given, and where, so that it may be another thing afterwards."""

_RIGHTS = """
    places AS (
      SELECT place.place, place.scope_type, place.scope_id,
        coalesce(source.data_domain_id, place.scope_id) AS domain_id, source.owner_role_id AS source_owner_id
      FROM (SELECT DISTINCT place, scope_type, scope_id FROM pairs) AS place
      LEFT JOIN data_sources AS source ON source.id = place.scope_id AND place.scope_type = 'data_source'
    ), known AS (
      SELECT places.place, places.scope_type, places.scope_id, places.source_owner_id,
        coalesce(domain.lineage, {lineage_of_gone}) || places.scope_id AS lineage
      FROM places LEFT JOIN data_domains AS domain ON domain.id = places.domain_id {and_before}
    ), standing AS MATERIALIZED (
      SELECT known.*, ARRAY(
        SELECT owner_role_id FROM data_domains WHERE id = ANY(known.lineage) AND owner_role_id IS NOT NULL
        UNION SELECT source_owner_id WHERE source_owner_id IS NOT NULL) AS owner_ids
      FROM known
    ), people AS (SELECT DISTINCT user_id FROM pairs),
    acting AS (
      SELECT user_id, user_id AS subject_id FROM people
      UNION ALL SELECT people.user_id, member.group_id
      FROM people JOIN group_members AS member ON member.user_id = people.user_id AND member.ended_at IS NULL
    ), held AS MATERIALIZED (
      SELECT acting.user_id, given.role_id, given.scope_id
      FROM acting JOIN role_assignments AS given ON given.subject_id = acting.subject_id
      WHERE given.tenant_id = :tenant_id AND given.ended_at IS NULL AND given.starts_at <= {now}
        AND (given.expires_at IS NULL OR given.expires_at > {now})
    ), by_roles AS (
      SELECT pairs.user_id, pairs.place,
        array_agg(DISTINCT held.role_id) FILTER (
          WHERE held.scope_id IS NULL OR held.scope_id = ANY(standing.lineage)) AS role_ids,
        coalesce(bool_or(held.scope_id IS NULL AND held.role_id = ANY(standing.owner_ids)), false) AS is_owner
      FROM pairs JOIN standing ON standing.place = pairs.place
      LEFT JOIN held ON held.user_id = pairs.user_id
      GROUP BY pairs.user_id, pairs.place
    ), alike AS MATERIALIZED (
      SELECT role_ids, is_owner, ARRAY(
        SELECT DISTINCT name FROM (
          SELECT unnest(permissions) AS name FROM roles WHERE tenant_id = :tenant_id AND id = ANY(role_ids)
          UNION ALL SELECT unnest(:owner_brings) WHERE is_owner) AS brought
        ORDER BY name) AS permissions
      FROM (SELECT DISTINCT role_ids, is_owner FROM by_roles) AS each
    ), rights AS (
      SELECT by_roles.user_id, by_roles.place, alike.permissions
      FROM by_roles JOIN alike ON alike.is_owner = by_roles.is_owner
        AND coalesce(alike.role_ids, '{{}}') = coalesce(by_roles.role_ids, '{{}}')
    )"""
_RIGHTS_BEFORE = _RIGHTS.format(now=_NOW, lineage_of_gone="'{}'", and_before="")
_RIGHTS_AFTER = _RIGHTS.format(
    now=_NOW,
    lineage_of_gone="before.lineage",
    and_before="LEFT JOIN lineages AS before ON before.scope_id = places.scope_id",
)

_BEFORE = f"""
    pairs AS MATERIALIZED (
      SELECT DISTINCT coalesce(member.user_id, touched.subject_id) AS user_id, touched.scope_type, touched.scope_id,
        coalesce(touched.scope_id, {_EVERYWHERE}) AS place
      FROM touched LEFT JOIN group_members AS member
        ON touched.subject_type = 'group' AND member.group_id = touched.subject_id AND member.ended_at IS NULL
      WHERE touched.subject_type <> 'group' OR member.user_id IS NOT NULL
    ), {_RIGHTS_BEFORE}
    SELECT coalesce(json_agg(each), '[]')::text FROM (
      SELECT standing.scope_type, standing.scope_id, standing.lineage, rights.permissions,
        array_agg(rights.user_id) AS users
      FROM rights JOIN standing ON standing.place = rights.place
      GROUP BY standing.scope_type, standing.scope_id, standing.lineage, rights.permissions) AS each"""  # noqa: S608
_AFTER = f"""
    WITH was AS MATERIALIZED (
      SELECT * FROM json_to_recordset(CAST(:before AS json)) AS row (
        scope_type text, scope_id uuid, lineage uuid[], permissions text[], users uuid[])
    ), pairs AS MATERIALIZED (
      SELECT user_id, was.scope_type, was.scope_id, coalesce(was.scope_id, {_EVERYWHERE}) AS place,
        was.permissions AS had
      FROM was, unnest(was.users) AS user_id
    ), lineages AS (SELECT DISTINCT scope_id, lineage FROM was),
    {_RIGHTS_AFTER}, changed AS MATERIALIZED (
      SELECT pairs.user_id, pairs.scope_type, pairs.scope_id, pairs.had, rights.permissions AS has
      FROM pairs JOIN rights ON rights.user_id = pairs.user_id AND rights.place = pairs.place
      WHERE rights.permissions <> pairs.had
    ), lines AS (
      SELECT scope_type, scope_id, count(*) AS people, (array_agg(user_id ORDER BY user_id))[1:{MOST_LINES}] AS users,
        ARRAY(SELECT unnest(has) EXCEPT SELECT unnest(had) ORDER BY 1) AS gained,
        ARRAY(SELECT unnest(had) EXCEPT SELECT unnest(has) ORDER BY 1) AS lost
      FROM changed GROUP BY scope_type, scope_id, had, has
    )
    SELECT (SELECT count(DISTINCT user_id) FROM changed) AS users,
      (SELECT coalesce(sum(people * ((gained <> '{{}}')::int + (lost <> '{{}}')::int)), 0)::bigint FROM lines) AS found,
      (SELECT coalesce(json_agg(shown), '[]')::text FROM (
         SELECT * FROM lines ORDER BY people DESC, scope_id, gained, lost LIMIT {MOST_LINES}) AS shown) AS lines"""  # noqa: S608

PLANNING: Final = text(
    """SELECT set_config('enable_nestloop', 'off', true), set_config('jit', 'off', true),
         set_config('work_mem', '32MB', true)"""
)
"""Nothing is known of how many rows a step brings to the next: a join that goes one by one would be quadratic."""
AS_EVER: Final = text(
    """SELECT set_config(name, reset_val, true) FROM pg_settings WHERE name IN ('enable_nestloop', 'jit', 'work_mem')"""
)
"""What the connection had before, for what else the transaction does."""

_TYPES: Mapping[str, Any] = {
    "tenant_id": Uuid(),
    "moment": DateTime(timezone=True),
    "row_id": Uuid(),
    "user_id": Uuid(),
    "scope_id": Uuid(),
    "subject_type": Text(),
    "scope_type": Text(),
    "domain_ids": ARRAY(Uuid()),
    "role_ids": ARRAY(Uuid()),
    "owner_brings": ARRAY(Text()),
    "before": Text(),
    "actor_id": Uuid(),
    "added": ARRAY(Text()),
}


def _typed(sql: str) -> TextClause:
    return text(sql).bindparams(*(bindparam(name, type_=kind) for name, kind in _TYPES.items() if f":{name}" in sql))


BEFORE: Final = {
    kind: _typed(f"WITH touched (subject_type, subject_id, scope_type, scope_id) AS ({touched}), {_BEFORE.strip()}")
    for kind, touched in TOUCHED.items()
}
"""By kind of change, one text: by place and permissions, who holds them there."""
AFTER: Final = _typed(_AFTER)
"""Who gains and loses what, by who changes alike."""


def rights_of_pairs(with_: str, people: str, wanted: str) -> TextClause:
    """What people hold at places: `people` selects them with theirs (user_id, scope_type, scope_id), and `wanted` looks
    at `pairs` and `rights`, which tell places apart by `place`."""
    return _typed(
        f"""WITH {with_}, pairs AS MATERIALIZED (
              SELECT DISTINCT user_id, scope_type, scope_id, coalesce(scope_id, {_EVERYWHERE}) AS place
              FROM ({people}) AS named
            ), {_RIGHTS_BEFORE} {wanted}"""  # noqa: S608
    )
