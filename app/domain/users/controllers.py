"""Users and the roles that they hold."""

from uuid import UUID

from litestar import Controller, delete, get, patch, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, RequestBody

from app.core.answers import Answer, Tagged, answer, created, entity, no_content
from app.core.lists.listing import Page
from app.core.outcomes import outcomes
from app.core.security import requires
from app.domain.dry_runs.services import DRY_RUN, rehearsed
from app.domain.idempotency.services import idempotent
from app.domain.requests import HubRequest
from app.domain.roles.schemas import RoleOut
from app.domain.users.repositories import ROLES_OF_USER, USER, USERS
from app.domain.users.schemas import UserCreate, UserOut, UserPatch
from app.domain.users.services import UserService
from app.domain.work import UnitOfWork

Work = NamedDependency[UnitOfWork]


GIVING_ROLES = requires("users:write", parameters=DRY_RUN)
CREATING = outcomes("email_taken", "login_busy", "weak_password")
CHANGING = outcomes(
    "email_taken", "exceeds_own_permissions", "last_admin", "login_busy", "managed_externally", "weak_password"
)
DELETING = outcomes("exceeds_own_permissions", "last_admin", "managed_externally")
REACHING = outcomes("exceeds_own_permissions")
TAKING = outcomes("exceeds_own_permissions", "last_admin", "system_role")


class UserController(Controller):
    path = "/users"
    tags = ["users"]

    @get("/", opt=requires("users:read", listing=USERS), summary="List users")
    async def list_users(self, request: HubRequest) -> Answer[Page[UserOut]]:
        """Every user of the tenant, a page at a time."""
        query = USERS.parse(request.query_string)
        return answer(
            request.exchange,
            await request.parts.reads.page(USERS, query, UserOut, tenant_id=request.principal.tenant_id),
        )

    @get("/{user_id:uuid}", opt=requires("users:read"), summary="Get a user")
    async def get_user(self, request: HubRequest, user_id: FromPath[UUID]) -> Tagged[UserOut]:
        """One user."""
        user = await request.parts.reads.one(USER, UserOut, id=user_id, tenant_id=request.principal.tenant_id)
        return entity(request.exchange, user)

    @post("/", opt=requires("users:write") | CREATING, summary="Create a user")
    @idempotent
    async def create_user(self, request: HubRequest, work: Work, data: RequestBody[UserCreate]) -> Tagged[UserOut]:
        """With or without a password; everyone holds the role `public`."""
        user = await UserService(work).create(data)
        return created(request.exchange, user, f"/api/v1/users/{user.id}")

    @patch("/{user_id:uuid}", opt=requires("users:write") | CHANGING, summary="Change a user")
    async def update_user(
        self, request: HubRequest, work: Work, user_id: FromPath[UUID], data: RequestBody[UserPatch]
    ) -> Tagged[UserOut]:
        """JSON Merge Patch (RFC 7396). A new password or a deactivation ends the user's sessions within a
        second; while the user is not active, their API keys open nothing.

        What a directory keeps of a user is changed there alone: 409 `managed_externally`. `managed_by` hands a user
        over to it, or takes them back."""
        return entity(request.exchange, await UserService(work).update(user_id, data), changed=True)

    @delete("/{user_id:uuid}", opt=requires("users:write") | DELETING, summary="Delete a user")
    async def delete_user(self, request: HubRequest, work: Work, user_id: FromPath[UUID]) -> Answer[None]:
        """Their API keys are gone with them. The audit log keeps the name under which the user acted."""
        await UserService(work).delete(user_id)
        return no_content()

    @post(
        "/{user_id:uuid}/unlock",
        opt=requires("users:write") | REACHING,
        summary="Let a locked user try again",
        status_code=204,
    )
    async def unlock_user(self, request: HubRequest, work: Work, user_id: FromPath[UUID]) -> Answer[None]:
        """Ten failed logins in a row lock an account for up to 15 minutes (`locked_until`); this ends it at once."""
        await UserService(work).unlock(user_id)
        return no_content()

    @post(
        "/{user_id:uuid}/end-sessions",
        opt=requires("users:write") | REACHING,
        summary="Sign a user out",
        status_code=204,
    )
    async def end_user_sessions(self, request: HubRequest, work: Work, user_id: FromPath[UUID]) -> Answer[None]:
        """Their tokens are dead on every worker within a second; they may sign in again."""
        await UserService(work).end_sessions(user_id)
        return no_content()

    @get("/{user_id:uuid}/roles", opt=requires("users:read", listing=ROLES_OF_USER), summary="List a user's roles")
    async def list_user_roles(self, request: HubRequest, user_id: FromPath[UUID]) -> Answer[Page[RoleOut]]:
        """The roles that the user holds."""
        tenant_id, reads = request.principal.tenant_id, request.parts.reads
        await reads.one(USER, UserOut, id=user_id, tenant_id=tenant_id)
        query = ROLES_OF_USER.parse(request.query_string)
        return answer(
            request.exchange, await reads.page(ROLES_OF_USER, query, RoleOut, tenant_id=tenant_id, user_id=user_id)
        )

    @put(
        "/{user_id:uuid}/roles/{role_id:uuid}",
        opt=GIVING_ROLES | REACHING,
        summary="Give a user a role",
    )
    @rehearsed
    async def assign_role(
        self, request: HubRequest, work: Work, user_id: FromPath[UUID], role_id: FromPath[UUID]
    ) -> Tagged[UserOut]:
        """A role whose permissions one holds oneself. Giving it again changes nothing."""
        return entity(request.exchange, await UserService(work).assign(user_id, role_id), changed=True)

    @delete(
        "/{user_id:uuid}/roles/{role_id:uuid}",
        opt=GIVING_ROLES | TAKING,
        summary="Take a role from a user",
    )
    @rehearsed
    async def unassign_role(
        self, request: HubRequest, work: Work, user_id: FromPath[UUID], role_id: FromPath[UUID]
    ) -> Answer[None]:
        """The last admin stays admin."""
        await UserService(work).unassign(user_id, role_id)
        return no_content()
