"""What a tenant wants of those who sign in, as far as it is asked about again and again: one read, by the tenant's id.

By hand, and below all slices: users, sessions and tenants themselves ask.
"""

from collections.abc import Sequence
from uuid import UUID

from msgspec import Struct

from app.core.errors import BadRequest, Fault
from app.core.reads import written
from app.domain.parts import Parts


class SignInRules(Struct, frozen=True):
    password_min_length: int | None = None
    """None: as the deployment has it."""
    allowed_email_domains: Sequence[str] = ()
    """Empty: all."""

    def refuse_domain(self, email: str, *, path: str = "email") -> None:
        """Raises BadRequest for an address of another domain."""
        domain = email.rpartition("@")[2].lower()
        if self.allowed_email_domains and domain not in self.allowed_email_domains:
            fault = Fault(path, "domain_not_allowed", "is of a domain that this organisation does not take")
            raise BadRequest(errors=[fault])


async def rules_of(parts: Parts, tenant_id: UUID) -> SignInRules:
    """Of a tenant that is just being made: none of its own."""
    rows = await parts.reads.rows(_RULES, {"tenant_id": tenant_id})
    return SignInRules(*rows[0]) if rows else SignInRules()


_RULES = written(
    "SELECT password_min_length, allowed_email_domains FROM tenant_settings WHERE tenant_id = $1",
    "tenant_id",
    table="tenant_settings",
)
