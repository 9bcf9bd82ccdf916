"""Keys of directories, and what directories do with them: SCIM 2.0 (RFC 7643, 7644) at `/scim/v2`.

`/scim/v2` describes itself in SCIM's own way (`/Schemas`, `/ResourceTypes`), and is not in the OpenAPI document
(decision 0062).
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
from litestar import Controller, delete, get, patch, post, put, route
from litestar.di import NamedDependency
from litestar.enums import HttpMethod
from litestar.params import FromPath, RequestBody

from app.core.answers import Answer, Tagged, answer, created, no_content
from app.core.bodies import decode_in_turns
from app.core.errors import NotFound, UnsupportedMediaType
from app.core.limits.prices import costs
from app.core.lists.listing import Page
from app.core.outcomes import outcomes
from app.core.security import for_directories, requires
from app.domain.idempotency.services import idempotent
from app.domain.requests import HubRequest
from app.domain.scim.conditional import is_known, written_tag
from app.domain.scim.definitions import GROUP, USER, resource_types, schemas, service_provider_config
from app.domain.scim.documents import Document, Selection
from app.domain.scim.errors import ERROR, MEDIA_TYPE, PATH, ScimFault
from app.domain.scim.groups import DirectoryGroups
from app.domain.scim.reading import Directory, Query, listed, query_of, query_of_search
from app.domain.scim.repositories import SCIM_KEYS
from app.domain.scim.resources import GroupRef, ShownUser, group_resource, tag_of_group, tag_of_user, user_resource
from app.domain.scim.schemas import ScimKeyCreate, ScimKeyCreated, ScimKeyOut
from app.domain.scim.services import ScimKeyService
from app.domain.scim.users import DirectoryUsers
from app.domain.work import UnitOfWork

Work = NamedDependency[UnitOfWork]
DIRECTORY = for_directories()
SAME_FOR_ALL = for_directories() | costs("nothing")
METHODS: list[HttpMethod] = [HttpMethod.GET, HttpMethod.POST, HttpMethod.PUT, HttpMethod.PATCH, HttpMethod.DELETE]
_TYPE = (b"content-type", MEDIA_TYPE.encode())


class ScimKeyController(Controller):
    path = "/scim-keys"
    tags = ["scim keys"]

    @get("/", opt=requires("scim-keys:read", listing=SCIM_KEYS), summary="List SCIM keys")
    async def list_scim_keys(self, request: HubRequest) -> Answer[Page[ScimKeyOut]]:
        """The keys of the tenant's directories. The keys themselves are never shown again."""
        query, tenant_id = SCIM_KEYS.parse(request.query_string), request.principal.tenant_id
        found = await request.parts.reads.page(SCIM_KEYS, query, ScimKeyOut, tenant_id=tenant_id)
        return answer(request.exchange, found)

    @post(
        "/",
        opt=requires("scim-keys:write", needs_session=True) | outcomes("exceeds_own_permissions"),
        summary="Create a SCIM key",
    )
    @idempotent
    async def create_scim_key(
        self, request: HubRequest, work: Work, data: RequestBody[ScimKeyCreate]
    ) -> Tagged[ScimKeyCreated]:
        """For Entra ID, Okta or another directory that keeps users and groups by SCIM 2.0 at `/scim/v2`. `key` is shown
        this once. Whoever makes one may do all that an admin may: with it people are put into any group of the
        directory."""
        key = await ScimKeyService(work).create(data)
        return created(request.exchange, key, f"/api/v1/scim-keys/{key.id}")

    @delete("/{scim_key_id:uuid}", opt=requires("scim-keys:write"), summary="Delete a SCIM key")
    async def delete_scim_key(self, request: HubRequest, work: Work, scim_key_id: FromPath[UUID]) -> Answer[None]:
        """It lets nobody in any more, on every worker within a second. What its directory has made stays."""
        await ScimKeyService(work).delete(scim_key_id)
        return no_content()


class ScimController(Controller):
    """What is asked for without a body, or is the same for all."""

    path = PATH
    tags = ["scim"]
    include_in_schema = False

    @get("/ServiceProviderConfig", opt=SAME_FOR_ALL)
    async def get_service_provider_config(self, request: HubRequest) -> Answer[bytes]:
        return _answer(service_provider_config(_base(request)))

    @get("/ResourceTypes", opt=SAME_FOR_ALL)
    async def list_resource_types(self, request: HubRequest) -> Answer[bytes]:
        return _answer(_all(resource_types(_base(request))))

    @get("/ResourceTypes/{name:str}", opt=SAME_FOR_ALL)
    async def get_resource_type(self, request: HubRequest, name: FromPath[str]) -> Answer[bytes]:
        return _answer(_by_id(resource_types(_base(request)), name))

    @get("/Schemas", opt=SAME_FOR_ALL)
    async def list_schemas(self, request: HubRequest) -> Answer[bytes]:
        return _answer(_all(schemas(_base(request))))

    @get("/Schemas/{name:str}", opt=SAME_FOR_ALL)
    async def get_schema(self, request: HubRequest, name: FromPath[str]) -> Answer[bytes]:
        return _answer(_by_id(schemas(_base(request)), name))

    @route("/Me", http_method=METHODS, opt=SAME_FOR_ALL)
    async def get_me(self, request: HubRequest) -> Answer[bytes]:
        """RFC 7644 section 3.11: a directory is nobody."""
        return _not_there("A key of a directory is no user: there is no /Me.")

    @route("/Bulk", http_method=METHODS, opt=SAME_FOR_ALL)
    async def change_in_bulk(self, request: HubRequest) -> Answer[bytes]:
        return _not_there("There is no /Bulk; see /ServiceProviderConfig.")

    @post("/.search", opt=SAME_FOR_ALL)
    async def search_all(self, request: HubRequest) -> Answer[bytes]:
        return _not_there("Search in /Users/.search or in /Groups/.search.")


class ScimUserController(Controller):
    path = f"{PATH}/Users"
    tags = ["scim"]
    include_in_schema = False

    @get("/", opt=DIRECTORY)
    async def list_scim_users(self, request: HubRequest) -> Answer[bytes]:
        return _answer(await _directory(request).users(query_of(request.query_string)))

    @post("/.search", opt=DIRECTORY | costs("read"))
    async def search_scim_users(self, request: HubRequest) -> Answer[bytes]:
        return _answer(await _directory(request).users(query_of_search(await _body(request))))

    @get("/{user_id:uuid}", opt=DIRECTORY)
    async def get_scim_user(self, request: HubRequest, user_id: FromPath[UUID]) -> Answer[bytes]:
        user, groups = await _directory(request).user(user_id)
        tag = tag_of_user(user, groups)
        if is_known(request.exchange, tag):
            return _answer(None, 304, tag)
        return _answer(_selection(request, USER).of(user_resource(_base(request), user, groups)), 200, tag)

    @post("/", opt=DIRECTORY)
    async def create_scim_user(self, request: HubRequest, work: Work) -> Answer[bytes]:
        user = await DirectoryUsers(work).create(await _body(request))
        return _made(_selection(request, USER), user_resource(_base(request), user, []), tag_of_user(user, []))

    @put("/{user_id:uuid}", opt=DIRECTORY)
    async def replace_scim_user(self, request: HubRequest, work: Work, user_id: FromPath[UUID]) -> Answer[bytes]:
        user, groups = await DirectoryUsers(work).replace(user_id, await _body(request))
        return _shown_user(request, user, groups)

    @patch("/{user_id:uuid}", opt=DIRECTORY)
    async def update_scim_user(self, request: HubRequest, work: Work, user_id: FromPath[UUID]) -> Answer[bytes]:
        user, groups = await DirectoryUsers(work).patch(user_id, await _body(request))
        return _shown_user(request, user, groups)

    @delete("/{user_id:uuid}", opt=DIRECTORY)
    async def delete_scim_user(self, request: HubRequest, work: Work, user_id: FromPath[UUID]) -> Answer[None]:
        await DirectoryUsers(work).delete(user_id)
        return no_content()


class ScimGroupController(Controller):
    path = f"{PATH}/Groups"
    tags = ["scim"]
    include_in_schema = False

    @get("/", opt=DIRECTORY)
    async def list_scim_groups(self, request: HubRequest) -> Answer[bytes]:
        return _answer(await _directory(request).groups(query_of(request.query_string)))

    @post("/.search", opt=DIRECTORY | costs("read"))
    async def search_scim_groups(self, request: HubRequest) -> Answer[bytes]:
        return _answer(await _directory(request).groups(query_of_search(await _body(request))))

    @get("/{group_id:uuid}", opt=DIRECTORY)
    async def get_scim_group(self, request: HubRequest, group_id: FromPath[UUID]) -> Answer[bytes]:
        directory = _directory(request)
        group = await directory.group(group_id)
        tag = tag_of_group(group)
        if is_known(request.exchange, tag):
            return _answer(None, 304, tag)
        return _answer(await directory.shown_group(group, _selection(request, GROUP)), 200, tag)

    @post("/", opt=DIRECTORY)
    async def create_scim_group(self, request: HubRequest, work: Work) -> Answer[bytes]:
        groups = DirectoryGroups(work)
        group = await groups.create(await _body(request))
        shown = group_resource(_base(request), group, await groups.members_of(group.id))
        return _made(_selection(request, GROUP), shown, tag_of_group(group))

    @put("/{group_id:uuid}", opt=DIRECTORY)
    async def replace_scim_group(self, request: HubRequest, work: Work, group_id: FromPath[UUID]) -> Answer[bytes]:
        groups = DirectoryGroups(work)
        group = await groups.replace(group_id, await _body(request))
        shown = group_resource(_base(request), group, await groups.members_of(group.id))
        return _answer(_selection(request, GROUP).of(shown), 200, tag_of_group(group))

    @patch("/{group_id:uuid}", opt=DIRECTORY)
    async def update_scim_group(self, request: HubRequest, work: Work, group_id: FromPath[UUID]) -> Answer[bytes]:
        """204, so that one who comes is not answered with ten thousand who are there; with `attributes` what they name
        (RFC 7644 section 3.5.2)."""
        groups, selection = DirectoryGroups(work), _selection(request, GROUP)
        group = await groups.patch(group_id, await _body(request))
        if not selection.is_asked_for:
            return _answer(None, 204, tag_of_group(group))
        members = await groups.members_of(group.id) if selection.shows("members") else None
        return _answer(selection.of(group_resource(_base(request), group, members)), 200, tag_of_group(group))

    @delete("/{group_id:uuid}", opt=DIRECTORY)
    async def delete_scim_group(self, request: HubRequest, work: Work, group_id: FromPath[UUID]) -> Answer[None]:
        await DirectoryGroups(work).delete(group_id)
        return no_content()


def _base(request: HubRequest) -> str:
    return request.parts.settings.url.rstrip("/") + PATH


def _directory(request: HubRequest) -> Directory:
    return Directory(request.parts.reads, request.principal.tenant_id, _base(request))


def _selection(request: HubRequest, kind: Any) -> Selection:
    return query_of(request.query_string).selection(kind)


def _shown_user(request: HubRequest, user: ShownUser, groups: Sequence[GroupRef]) -> Answer[bytes]:
    shown = _selection(request, USER).of(user_resource(_base(request), user, groups))
    return _answer(shown, 200, tag_of_user(user, groups))


async def _body(request: HubRequest) -> dict[str, Any]:
    """Raises UnsupportedMediaType, TooLarge, or BadRequest for what is no object."""
    name, _, parameters = (request.exchange.header(b"content-type") or "").lower().partition(";")
    charset = parameters.strip().removeprefix("charset=").strip('"')
    is_plain = request.exchange.header(b"content-encoding") in (None, "identity")
    if name.strip() not in (MEDIA_TYPE, "application/json") or charset not in ("", "utf-8", "utf8") or not is_plain:
        raise UnsupportedMediaType(f"Send the body as {MEDIA_TYPE}.")
    body = await request.body()
    if not body.strip():
        raise ScimFault("invalidSyntax", "There is no body.")
    found: dict[str, Any] = await decode_in_turns(body, dict[str, Any], "json")
    return found


def _answer(content: Document | None, status: int = 200, tag: str | None = None) -> Answer[bytes]:
    tagged = [] if tag is None else [(b"etag", written_tag(tag).encode())]
    if content is None:
        return Answer(status, tagged, b"")
    return Answer(status, [_TYPE, *tagged], msgspec.json.encode(content))


def _made(selection: Selection, resource: Document, tag: str) -> Answer[bytes]:
    location = str(resource["meta"]["location"]).encode()
    response = _answer(selection.of(resource), 201, tag)
    response.wire_headers.append((b"location", location))
    return response


def _all(resources: list[Document]) -> Document:
    return listed(Query(), len(resources), resources)


def _by_id(resources: list[Document], name: str) -> Document:
    """Raises NotFound."""
    found = next((each for each in resources if each["id"] == name), None)
    if found is None:
        raise NotFound
    return found


def _not_there(sentence: str) -> Answer[bytes]:
    return _answer({"schemas": [ERROR], "status": "501", "detail": sentence}, 501)
