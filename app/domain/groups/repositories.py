"""Which rows make a group on the wire, and which lists of groups and their members there are."""

from sqlalchemy import bindparam

from app.core.database import Repository
from app.core.lists.filters import search_filter, text_filter
from app.core.lists.listing import Listing, Sort
from app.domain.groups.models import Group, GroupMember
from app.domain.groups.schemas import GroupOut
from app.domain.users.models import User
from app.domain.users.repositories import UserRepository
from app.domain.users.schemas import UserOut


class GroupRepository(Repository[Group]):
    model_type = Group


class GroupMemberRepository(Repository[GroupMember]):
    model_type = GroupMember


def _members_listing() -> Listing:
    """The users in one group (bound as `member_group_id`). Each joins the one membership that has not ended."""
    return Listing(
        UserRepository.selection(UserOut).where(
            GroupMember.user_id == User.id,
            GroupMember.tenant_id == User.tenant_id,
            GroupMember.group_id == bindparam("member_group_id", type_=GroupMember.group_id.type),
            GroupMember.ended_at.is_(None),
        ),
        name="members of a group",
        id_column=GroupMember.user_id,
        sorts={
            "email": Sort(GroupMember.user_email_key, "group_members_email_idx"),
            "created_at": Sort(GroupMember.user_created_at, "group_members_created_at_idx"),
        },
        default_sort="email",
    )


MEMBERS_OF_GROUP = _members_listing()
GROUP = GroupRepository.selection_by_id(GroupOut)
GROUPS = Listing(
    GroupRepository.selection(GroupOut),
    name="groups",
    id_column=Group.id,
    sorts={
        "created_at": Sort(Group.created_at, "groups_tenant_id_created_at_id_idx"),
        "updated_at": Sort(Group.updated_at, "groups_tenant_id_updated_at_id_idx"),
        "name": Sort(Group.name_key, "groups_tenant_id_name_key_id_idx"),
    },
    default_sort="created_at",
    filters={
        "name": text_filter(
            Group.name_key,
            name_key=True,
            index="groups_tenant_id_name_key_id_idx",
            description="This name, in any case.",
        ),
        "q": search_filter(Group.name, Group.description, index="groups_search_idx"),
    },
)
