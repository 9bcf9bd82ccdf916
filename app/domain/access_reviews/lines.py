"""The lines of a review: each assignment that is in force when it begins, with what is known of it."""

from uuid import UUID

from sqlalchemy import TextClause, text

from app.domain.access_reviews.models import AccessReview
from app.domain.work import UnitOfWork

_OF_ROLE = "given.role_id = CAST(:role_id AS uuid)"
_OF_SCOPE = """given.scope_id IN (
  SELECT CAST(:scope_id AS uuid)
  UNION SELECT id FROM data_domains WHERE tenant_id = CAST(:tenant_id AS uuid)
    AND lineage @> ARRAY[CAST(:scope_id AS uuid)]
  UNION SELECT source.id FROM data_sources AS source JOIN data_domains AS domain ON domain.id = source.data_domain_id
    WHERE domain.tenant_id = CAST(:tenant_id AS uuid) AND domain.lineage @> ARRAY[CAST(:scope_id AS uuid)])"""


def _of(which: str) -> TextClause:
    return text(
        f"""INSERT INTO access_review_items (id, tenant_id, review_id, assignment_id, subject_type, subject_id,
              subject_name, role_id, role_name, scope_type, scope_id, since, expires_at, via_type, via_id,
              last_active_at, state)
            SELECT gen_random_uuid(), given.tenant_id, CAST(:review_id AS uuid), given.id, given.subject_type,
              given.subject_id, coalesce(person.email, team.name, account.name, ''), given.role_id, role.name,
              given.scope_type, given.scope_id, given.starts_at, given.expires_at, given.via_type, given.via_id,
              greatest(
                (SELECT max(last_seen_at) FROM sessions WHERE user_id = given.subject_id),
                (SELECT max(last_used_at) FROM api_keys
                 WHERE tenant_id = given.tenant_id AND owner_id = given.subject_id),
                (SELECT occurred_at FROM audit_events
                 WHERE tenant_id = given.tenant_id AND actor_id = given.subject_id
                 ORDER BY occurred_at DESC, id DESC LIMIT 1)),
              'open'
            FROM role_assignments AS given
            JOIN roles AS role ON role.id = given.role_id
            LEFT JOIN users AS person ON person.id = given.subject_id AND given.subject_type = 'user'
            LEFT JOIN groups AS team ON team.id = given.subject_id AND given.subject_type = 'group'
            LEFT JOIN service_accounts AS account
              ON account.id = given.subject_id AND given.subject_type = 'service_account'
            WHERE given.tenant_id = CAST(:tenant_id AS uuid) AND {which} AND given.ended_at IS NULL
              AND given.starts_at <= statement_timestamp()
              AND (given.expires_at IS NULL OR given.expires_at > statement_timestamp())"""  # noqa: S608 - names of ours
    )


_LINES_OF_ROLE, _LINES_OF_SCOPE = _of(_OF_ROLE), _of(_OF_SCOPE)
_PERMISSIONS = text(
    """SELECT DISTINCT permission FROM access_review_items AS item JOIN roles ON roles.id = item.role_id,
         unnest(roles.permissions) AS permission
       WHERE item.review_id = CAST(:review_id AS uuid)"""
)


async def write_lines(work: UnitOfWork, review: AccessReview) -> None:
    of_review: dict[str, UUID | None] = {"review_id": review.id, "tenant_id": work.tenant_id}
    if review.role_id is not None:
        await work.session.execute(_LINES_OF_ROLE, of_review | {"role_id": review.role_id})
    else:
        await work.session.execute(_LINES_OF_SCOPE, of_review | {"scope_id": review.scope_id})


async def permissions_of_lines(work: UnitOfWork, review_id: UUID) -> list[str]:
    """What all that is looked at brings."""
    return list(await work.session.scalars(_PERMISSIONS, {"review_id": review_id}))
