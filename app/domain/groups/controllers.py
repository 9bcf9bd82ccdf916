"""Groups of users, and who is in them."""

from uuid import UUID

from litestar import Controller, delete, get, patch, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, RequestBody

from app.core.answers import Answer, Tagged, answer, created, entity, no_content
from app.core.lists.listing import Page
from app.core.outcomes import outcomes
from app.core.security import requires
from app.domain.dry_runs.services import DRY_RUN, rehearsed
from app.domain.groups.repositories import GROUP, GROUPS, MEMBERS_OF_GROUP
from app.domain.groups.schemas import GroupCreate, GroupOut, GroupPatch
from app.domain.groups.services import GroupService
from app.domain.idempotency.services import idempotent
from app.domain.requests import HubRequest
from app.domain.users.schemas import UserOut
from app.domain.work import UnitOfWork

Work = NamedDependency[UnitOfWork]

CREATING = outcomes("name_taken")
CHANGING = outcomes("exceeds_own_permissions", "managed_externally", "name_taken")
REACHING = outcomes("exceeds_own_permissions", "managed_externally")
READ = "groups:read"
WRITE = "groups:write"
CHOOSING = requires(WRITE, parameters=DRY_RUN)


class GroupController(Controller):
    path = "/groups"
    tags = ["groups"]

    @get("/", opt=requires(READ, listing=GROUPS), summary="List groups")
    async def list_groups(self, request: HubRequest) -> Answer[Page[GroupOut]]:
        """Every group of the tenant, a page at a time."""
        query, tenant_id = GROUPS.parse(request.query_string), request.principal.tenant_id
        return answer(request.exchange, await request.parts.reads.page(GROUPS, query, GroupOut, tenant_id=tenant_id))

    @get("/{group_id:uuid}", opt=requires(READ), summary="Get a group")
    async def get_group(self, request: HubRequest, group_id: FromPath[UUID]) -> Tagged[GroupOut]:
        """One group."""
        group = await request.parts.reads.one(GROUP, GroupOut, id=group_id, tenant_id=request.principal.tenant_id)
        return entity(request.exchange, group)

    @post("/", opt=requires(WRITE) | CREATING, summary="Create a group")
    @idempotent
    async def create_group(self, request: HubRequest, work: Work, data: RequestBody[GroupCreate]) -> Tagged[GroupOut]:
        """Without members, and without any role."""
        group = await GroupService(work).create(data)
        return created(request.exchange, group, f"/api/v1/groups/{group.id}")

    @patch("/{group_id:uuid}", opt=requires(WRITE) | CHANGING, summary="Change a group")
    async def update_group(
        self, request: HubRequest, work: Work, group_id: FromPath[UUID], data: RequestBody[GroupPatch]
    ) -> Tagged[GroupOut]:
        """JSON Merge Patch (RFC 7396). A group that may do no more than oneself."""
        return entity(request.exchange, await GroupService(work).update(group_id, data), changed=True)

    @delete("/{group_id:uuid}", opt=CHOOSING | REACHING, summary="Delete a group")
    @rehearsed
    async def delete_group(self, request: HubRequest, work: Work, group_id: FromPath[UUID]) -> Answer[None]:
        """Its members lose what they held by it, within a second."""
        await GroupService(work).delete(group_id)
        return no_content()

    @get("/{group_id:uuid}/members", opt=requires(READ, listing=MEMBERS_OF_GROUP), summary="List a group's members")
    async def list_group_members(self, request: HubRequest, group_id: FromPath[UUID]) -> Answer[Page[UserOut]]:
        """The users in the group."""
        tenant_id, reads = request.principal.tenant_id, request.parts.reads
        await reads.one(GROUP, GroupOut, id=group_id, tenant_id=tenant_id)
        query = MEMBERS_OF_GROUP.parse(request.query_string)
        own = {"tenant_id": tenant_id, "member_group_id": group_id}
        return answer(request.exchange, await reads.page(MEMBERS_OF_GROUP, query, UserOut, **own))

    @put("/{group_id:uuid}/members/{user_id:uuid}", opt=CHOOSING | REACHING, summary="Put a user into a group")
    @rehearsed
    async def add_member(
        self, request: HubRequest, work: Work, group_id: FromPath[UUID], user_id: FromPath[UUID]
    ) -> Tagged[UserOut]:
        """Into one that may do no more than oneself. Once more changes nothing. The answer is the user."""
        return entity(request.exchange, await GroupService(work).put_in(group_id, user_id), changed=True)

    @delete("/{group_id:uuid}/members/{user_id:uuid}", opt=CHOOSING | REACHING, summary="Take a user out of a group")
    @rehearsed
    async def remove_member(
        self, request: HubRequest, work: Work, group_id: FromPath[UUID], user_id: FromPath[UUID]
    ) -> Answer[None]:
        """They lose what they held by it, within a second."""
        await GroupService(work).take_out(group_id, user_id)
        return no_content()
