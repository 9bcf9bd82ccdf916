"""Roles, their members and approvers, and the list of permissions."""

from typing import Any
from uuid import UUID

from litestar import Controller, delete, get, patch, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, RequestBody

from app.core.answers import Answer, Tagged, answer, created, entity, no_content
from app.core.lists.keyed import IN_MEMORY_PARAMETERS, page_of_names
from app.core.lists.listing import Page
from app.core.lists.parameters import parse_parameters
from app.core.outcomes import outcomes
from app.core.security import missing, requires
from app.domain.dry_runs.services import DRY_RUN, rehearsed
from app.domain.idempotency.services import idempotent
from app.domain.requests import HubRequest
from app.domain.roles.confirming import CONFIRMING, confirmable
from app.domain.roles.permissions import PermissionService, find_permission
from app.domain.roles.repositories import REQUESTABLE_ROLES, ROLE, ROLES
from app.domain.roles.schemas import (
    ApproverRoles,
    PermissionOut,
    PermissionPut,
    RequestableRoleOut,
    RoleCreate,
    RoleIds,
    RoleOut,
    RolePatch,
)
from app.domain.roles.services import RoleService
from app.domain.users.repositories import MEMBERS
from app.domain.users.schemas import UserOut
from app.domain.work import UnitOfWork

Work = NamedDependency[UnitOfWork]


READ = "roles:read"
LISTING = outcomes(to_others=Page[RequestableRoleOut])
FILLING = requires("roles:write", parameters=DRY_RUN | CONFIRMING)
CREATING = outcomes("exceeds_own_permissions", "name_taken")
CHANGING = outcomes("exceeds_own_permissions", "holders_unconfirmed", "name_taken", "system_role")
DELETING = outcomes("exceeds_own_permissions", "system_role")
APPROVING = outcomes("exceeds_own_permissions", "system_role")


class RoleController(Controller):
    path = "/roles"
    tags = ["roles"]

    @get("/", opt=requires(READ, listing=ROLES, lets_others_in=True) | LISTING, summary="List roles")
    async def list_roles(self, request: HubRequest) -> Answer[Page[RoleOut]]:
        """With `roles:read` every role of the tenant, a page at a time. Anybody may ask for those with
        `is_requestable=true`, and sees their ids, names and descriptions."""
        if not request.principal.may(READ):
            return await _requestable_roles(request)
        query = ROLES.parse(request.query_string)
        return answer(
            request.exchange,
            await request.parts.reads.page(ROLES, query, RoleOut, tenant_id=request.principal.tenant_id),
        )

    @get("/{role_id:uuid}", opt=requires("roles:read"), summary="Get a role")
    async def get_role(self, request: HubRequest, role_id: FromPath[UUID]) -> Tagged[RoleOut]:
        """One role."""
        role = await request.parts.reads.one(ROLE, RoleOut, id=role_id, tenant_id=request.principal.tenant_id)
        return entity(request.exchange, role)

    @post("/", opt=requires("roles:write", parameters=DRY_RUN) | CREATING, summary="Create a role")
    @rehearsed
    @idempotent
    async def create_role(self, request: HubRequest, work: Work, data: RequestBody[RoleCreate]) -> Tagged[RoleOut]:
        """With permissions that one holds oneself."""
        role = await RoleService(work).create(data)
        return created(request.exchange, role, f"/api/v1/roles/{role.id}")

    @patch(
        "/{role_id:uuid}",
        opt=FILLING | CHANGING,
        summary="Change a role",
    )
    @confirmable
    @rehearsed
    async def update_role(
        self, request: HubRequest, work: Work, role_id: FromPath[UUID], data: RequestBody[RolePatch]
    ) -> Tagged[RoleOut]:
        """JSON Merge Patch (RFC 7396). What members may do changes within a second."""
        return entity(request.exchange, await RoleService(work).update(role_id, data), changed=True)

    @delete("/{role_id:uuid}", opt=requires("roles:write", parameters=DRY_RUN) | DELETING, summary="Delete a role")
    @rehearsed
    async def delete_role(self, request: HubRequest, work: Work, role_id: FromPath[UUID]) -> Answer[None]:
        """Members lose it. A role that still owns something cannot be deleted."""
        await RoleService(work).delete(role_id)
        return no_content()

    @get("/{role_id:uuid}/members", opt=requires("roles:read", listing=MEMBERS), summary="List a role's members")
    async def list_members(self, request: HubRequest, role_id: FromPath[UUID]) -> Answer[Page[UserOut]]:
        """The users who hold the role."""
        tenant_id, reads = request.principal.tenant_id, request.parts.reads
        await reads.one(ROLE, RoleOut, id=role_id, tenant_id=tenant_id)
        query = MEMBERS.parse(request.query_string)
        return answer(
            request.exchange, await reads.page(MEMBERS, query, UserOut, tenant_id=tenant_id, member_role_id=role_id)
        )

    @get("/{role_id:uuid}/approver-roles", opt=requires("roles:read"), summary="Get a role's approver roles")
    async def get_approvers(self, request: HubRequest, work: Work, role_id: FromPath[UUID]) -> Tagged[Page[UUID]]:
        """The ids of the roles whose members decide on requests for this one."""
        version, ids = await RoleService(work).approvers(role_id)
        return entity(request.exchange, Page(items=ids, next_cursor=None, total=len(ids)), version=version)

    @put(
        "/{role_id:uuid}/approver-roles", opt=requires("roles:write") | APPROVING, summary="Set a role's approver roles"
    )
    async def set_approvers(
        self, request: HubRequest, work: Work, role_id: FromPath[UUID], data: RequestBody[ApproverRoles | RoleIds]
    ) -> Tagged[Page[UUID]]:
        """Replace the list: `{"items": [...]}` or the bare array of role ids."""
        wanted = data.items if isinstance(data, ApproverRoles) else data
        version, ids = await RoleService(work).set_approvers(role_id, wanted)
        return entity(
            request.exchange, Page(items=ids, next_cursor=None, total=len(ids)), version=version, changed=True
        )


async def _requestable_roles(request: HubRequest) -> Answer[Any]:
    """Raises Forbidden for those who ask for more than what everybody may see."""
    given = parse_parameters(request.query_string)
    beyond = given.keys() & (ROLES.filters.keys() - REQUESTABLE_ROLES.filters.keys())
    if beyond or given.get("is_requestable") != "true":
        raise missing(request.principal, READ)
    query, tenant_id = REQUESTABLE_ROLES.parse(request.query_string), request.principal.tenant_id
    page = await request.parts.reads.page(REQUESTABLE_ROLES, query, RequestableRoleOut, tenant_id=tenant_id)
    return answer(request.exchange, page)


class PermissionController(Controller):
    path = "/permissions"
    tags = ["roles"]

    @get("/", opt=requires("permissions:read", parameters=IN_MEMORY_PARAMETERS), summary="List permissions")
    async def list_permissions(self, request: HubRequest) -> Answer[Page[PermissionOut]]:
        """Every permission that a role can bring, with a sentence: the hub's own, and those that other services
        registered."""
        known = await request.parts.known_permissions.of_tenant(request.principal.tenant_id)
        return answer(request.exchange, page_of_names(known, request.query_string))

    @get("/{permission_name:str}", opt=requires("permissions:read"), summary="Get a permission")
    async def get_permission(self, request: HubRequest, permission_name: FromPath[str]) -> Tagged[PermissionOut]:
        """One permission, of the hub's own or of another service."""
        version, permission = await find_permission(request.parts.reads, permission_name, request.principal.tenant_id)
        return entity(request.exchange, permission, version=version)

    @put(
        "/{permission_name:str}",
        opt=requires("permissions:write") | outcomes("built_in_permission", "too_many_permissions"),
        summary="Register a permission",
    )
    async def put_permission(
        self, request: HubRequest, work: Work, permission_name: FromPath[str], data: RequestBody[PermissionPut]
    ) -> Tagged[PermissionOut]:
        """For another service of the platform, which gives it a prefix of its own (`reports.dashboards:read`). Roles
        can bring it from then on, `admin` holds it, and `/authz/check` answers for it; to the hub itself it means
        nothing."""
        version, permission = await PermissionService(work).put(permission_name, data)
        return entity(request.exchange, permission, version=version, changed=True)

    @delete(
        "/{permission_name:str}",
        opt=requires("permissions:write") | outcomes("built_in_permission"),
        summary="Withdraw a permission",
    )
    async def delete_permission(self, request: HubRequest, work: Work, permission_name: FromPath[str]) -> Answer[None]:
        """One that another service registered and that no role has any more, but for `admin`."""
        await PermissionService(work).delete(permission_name)
        return no_content()
