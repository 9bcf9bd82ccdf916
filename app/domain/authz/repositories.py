"""The questions about rights, as PostgreSQL is asked them: all of the rights of a moment (`rights_at`), be that the
present one or one of the past."""

from typing import Final

from app.core.reads import written

TABLE: Final = "role_assignments"

_GROUND = """json_build_array(held.is_owner, held.role_id, held.assignment_id, held.group_id, held.scope_type,
     held.scope_id, held.request_id)"""

OWN: Final = written(
    """SELECT held.is_owner, held.role_id, held.assignment_id, held.group_id, held.scope_type, held.scope_id,
         held.request_id, held.permissions,
         EXISTS (SELECT FROM roles WHERE roles.id = held.role_id AND roles.is_owner)
       FROM rights_at($1, $2, now(), '{}') AS held WHERE NOT held.is_owner""",
    "tenant_id",
    "user_id",
    table=TABLE,
)
"""What somebody's assignments bring now, but for what their roles own, of which there may be any number."""

CHECKED: Final = written(
    f"""SELECT place.source_id, place.domain_id, place.owner_role_id,
         CASE WHEN asked.resource_id IS NULL OR coalesce(place.source_id, place.domain_id) IS NOT NULL THEN (
           SELECT json_agg({_GROUND} ORDER BY held.scope_type DESC, held.scope_id, held.assignment_id)
           FROM rights_at($1, asked.user_id, asked.moment, $2) AS held
           WHERE (held.scope_id IS NULL OR held.scope_id = ANY (place.reach)) AND asked.action = ANY (held.permissions))
         END
       FROM (
         SELECT user_id, action, resource_type, resource_id, least(coalesce(at::timestamptz, now()), now()) AS moment,
           number
         FROM unnest($3::uuid[], $4::text[], $5::text[], $6::uuid[], $7::text[]) WITH ORDINALITY
           AS each (user_id, action, resource_type, resource_id, at, number)) AS asked
       LEFT JOIN LATERAL place_at($1, asked.resource_type, asked.resource_id, asked.moment) AS place ON true
       ORDER BY asked.number""",  # noqa: S608 - a constant of ours
    "tenant_id",
    "owner_brings",
    "user_ids",
    "actions",
    "resource_types",
    "resource_ids",
    "moments",
    table=TABLE,
)
"""For each of the checks where its resource stands, and what the right comes from."""


MOST: Final = 202
"""One more than the longest page and the row that tells whether there is another, which is how many a page may need of
each of the streams that it is put together from: a limit that the planner does not know it takes for a tenth of all."""

_MOMENT = "least(coalesce({at}::text::timestamptz, now()), now())"
_RANK = "CASE {row}.scope_type WHEN 'tenant' THEN 0 WHEN 'data_domain' THEN 1 ELSE 2 END"

HOLDER_AT: Final = written(
    f"SELECT person.email FROM holder_at($1, $2, {_MOMENT.format(at='$3')}) AS person",  # noqa: S608 - a constant of ours
    *("tenant_id", "user_id", "at"),
    table=TABLE,
)
"""No row for somebody who was not there."""

_LINES = f"""
    SELECT {_RANK.format(row="held")} AS rank, coalesce(held.scope_id, $5) AS scope_key,
      permission COLLATE "C" AS permission, held.scope_type, held.scope_id,
      json_agg({_GROUND} ORDER BY held.is_owner, held.assignment_id) AS grounds
    FROM asked, rights_at($1, $2, asked.moment, $3) AS held, unnest(held.permissions) AS permission
"""  # noqa: S608 - a constant of ours
_BY_LINE = "GROUP BY 1, 2, 3, 4, 5"


def _owned(kind: str, after: str) -> str:
    return f"""SELECT owned.scope_type, owned.scope_id FROM asked, owners CROSS JOIN LATERAL (
           SELECT it.scope_type, it.scope_id FROM owned_at($1, owners.role_id, asked.moment) AS it
           WHERE it.scope_type = '{kind}' AND it.scope_id >= {after}
           ORDER BY it.scope_id LIMIT {MOST}) AS owned"""  # noqa: S608 - names of ours


EFFECTIVE: Final = written(
    f"""WITH asked AS (SELECT {_MOMENT.format(at="$4")} AS moment),
       held AS MATERIALIZED (
         SELECT given.role_id, given.scope_type, given.scope_id, given.permissions
         FROM asked, rights_at($1, $2, asked.moment, $3) AS given WHERE NOT given.is_owner),
       owners AS (SELECT DISTINCT role_id FROM held WHERE scope_type = 'tenant'),
       scopes AS (
         SELECT each.scope_type, each.scope_id FROM (
           SELECT scope_type, scope_id FROM held WHERE permissions <> '{{}}'
           UNION {_owned("data_domain", "$9")} UNION {_owned("data_source", "$10")}) AS each
         WHERE ({_RANK.format(row="each")}, coalesce(each.scope_id, $5)) >= ($6, $7)
         ORDER BY {_RANK.format(row="each")}, each.scope_id LIMIT {MOST})
       SELECT lines.* FROM ({_LINES}
         WHERE (held.scope_id IS NULL OR held.scope_id = ANY (ARRAY (SELECT scope_id FROM scopes)))
         {_BY_LINE}) AS lines
       WHERE (rank, scope_key, permission) > ($6, $7, $8)
       ORDER BY rank, scope_key, permission LIMIT $11""",  # noqa: S608 - constants of ours
    *("tenant_id", "user_id", "owner_brings", "at", "nothing", "after_rank", "after_scope", "after_permission"),
    *("first_domain", "first_source", "page_limit"),
    table=TABLE,
)
"""A page of somebody's permissions, each with its scope: those for the tenant, then those in domains, then those on
sources. Which scopes it is about is found first, so that what a role owns, of which there may be any number, is not
gone through for each page."""

EFFECTIVE_COUNT: Final = written(
    f"""WITH asked AS (SELECT {_MOMENT.format(at="$4")} AS moment)
       SELECT count(*) FROM ({_LINES} {_BY_LINE}) AS lines""",  # noqa: S608 - constants of ours
    *("tenant_id", "user_id", "owner_brings", "at", "nothing"),
    table=TABLE,
)

PLACE: Final = written(
    f"""WITH asked AS (SELECT {_MOMENT.format(at="$4")} AS moment)
       SELECT place.reach, array_remove(place.owner_role_id || ARRAY(
         SELECT domain.owner_role_id FROM unnest(place.reach) AS above (id)
         CROSS JOIN LATERAL domain_at($1, above.id, asked.moment) AS domain), NULL)
       FROM asked, place_at($1, $2, $3, asked.moment) AS place""",  # noqa: S608 - constants of ours
    *("tenant_id", "kind", "id", "at"),
    table=TABLE,
)
"""The thing's own id with those of the domains above it, and the roles that own any of them."""

_IS_ACTIVE = "NOT EXISTS (SELECT FROM holder_at($1, {id}, asked.moment) AS gone WHERE NOT gone.is_active)"
_BRINGING = """asked,
    (SELECT id FROM roles WHERE tenant_id = $1 AND permissions && $5
     UNION SELECT row_id FROM rights_history
       WHERE tenant_id = $1 AND kind = 'role' AND valid_to > (SELECT moment FROM asked)) AS named
    CROSS JOIN LATERAL role_at($1, named.id, asked.moment) AS role
  WHERE role.permissions && $5"""


def _holders(role: str, where: str, *, of: str, limited: bool) -> str:
    """Those to whom a role is given, themselves and by their groups, as `where` says; of each stream as many as a page
    may need."""
    few = f"ORDER BY 1 LIMIT {MOST}" if limited else ""
    is_next = "{id} > $7" if limited else "true"
    return f"""
      SELECT found.id, kind.name
      FROM asked CROSS JOIN {of} CROSS JOIN (VALUES ('user'), ('service_account')) AS kind (name)
      CROSS JOIN LATERAL (
        SELECT given.subject_id AS id FROM assignments_at($1, asked.moment) AS given
        WHERE {where} AND given.subject_type = kind.name AND {is_next.format(id="given.subject_id")} AND {role}
          AND {_IS_ACTIVE.format(id="given.subject_id")} {few}) AS found
      UNION
      SELECT found.id, 'user' FROM asked CROSS JOIN {of}
      JOIN LATERAL (
        SELECT given.subject_id, given.role_id FROM assignments_at($1, asked.moment) AS given
        WHERE {where} AND given.subject_type = 'group' AND {role}) AS given ON true
      CROSS JOIN LATERAL (
        SELECT member.user_id AS id FROM members_at($1, asked.moment) AS member
        WHERE member.group_id = given.subject_id AND {is_next.format(id="member.user_id")}
          AND {_IS_ACTIVE.format(id="member.user_id")} {few}) AS found"""  # noqa: S608 - constants of ours


def _all_holders(*, limited: bool) -> str:
    is_of_role = "given.scope_id IS NULL AND given.role_id = granting.id"
    brings = "EXISTS (SELECT FROM role_at($1, given.role_id, asked.moment) AS role WHERE role.permissions <> '{}')"
    things = "unnest($3::uuid[]) AS thing (id)"
    everywhere = _holders("true", is_of_role, of="granting", limited=limited)
    there = _holders(brings, "given.scope_id = thing.id", of=things, limited=limited)
    return f"{everywhere} UNION {there}"


_GRANTING = f"""WITH asked AS (SELECT {_MOMENT.format(at="$2")} AS moment),
       granting AS MATERIALIZED (SELECT named.id FROM {_BRINGING} UNION SELECT unnest($4::uuid[]))"""  # noqa: S608

ACCESS: Final = written(
    f"""{_GRANTING},
       page AS MATERIALIZED (SELECT id, name FROM ({_all_holders(limited=True)}) AS holders ORDER BY id LIMIT $8)
       SELECT page.id, page.name, (SELECT person.email FROM holder_at($1, page.id, asked.moment) AS person), (
         SELECT json_agg(json_build_array(held.is_owner, held.role_id, held.assignment_id, held.group_id,
             held.scope_type, held.scope_id, held.request_id, held.permissions)
           ORDER BY held.is_owner, held.assignment_id)
         FROM rights_at($1, page.id, asked.moment, $6) AS held
         WHERE (held.scope_id IS NULL AND held.permissions && $5) OR held.scope_id = ANY ($3))
       FROM asked, page ORDER BY page.id""",  # noqa: S608 - constants of ours
    *("tenant_id", "at", "reach", "owner_role_ids", "about_places", "owner_brings", "after", "page_limit"),
    table=TABLE,
)
"""A page of those who may do something in a place, in the order of their ids, with all that it comes from. Who they are
is found role by role, along indexes, so that a page of 100,000 holders costs what one of ten does."""

ACCESS_COUNT: Final = written(
    f"{_GRANTING} SELECT count(*) FROM ({_all_holders(limited=False)}) AS holders",  # noqa: S608 - constants of ours
    *("tenant_id", "at", "reach", "owner_role_ids", "about_places"),
    table=TABLE,
)
