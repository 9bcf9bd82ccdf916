"""What a user and a group are made of in SCIM (RFC 7643 section 4), and what the hub says of itself (section 5).

Everything else is read off these: what is taken from a body, which paths there are, what can be filtered by. What is in
no schema here is ignored in a body, as the RFC has it.
"""

from functools import cache
from typing import Any, Final, Literal

from msgspec import Struct

CORE_USER: Final = "urn:ietf:params:scim:schemas:core:2.0:User"
ENTERPRISE: Final = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
CORE_GROUP: Final = "urn:ietf:params:scim:schemas:core:2.0:Group"
MAX_RESULTS: Final = 200
Type = Literal["string", "boolean", "complex", "reference", "dateTime"]
Mutability = Literal["readWrite", "readOnly", "immutable"]


class Attribute(Struct, frozen=True, kw_only=True):
    name: str
    type: Type = "string"
    multi: bool = False
    required: bool = False
    exact: bool = False
    """Whether its case matters."""
    mutability: Mutability = "readWrite"
    uniqueness: Literal["none", "server"] = "none"
    canonical: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    parts: tuple["Attribute", ...] = ()
    description: str = ""

    def part(self, name: str) -> "Attribute | None":
        """By its name in any case."""
        return _by_name(self.parts).get(name.lower())

    @property
    def is_read_only(self) -> bool:
        return self.mutability == "readOnly"

    def shown(self) -> dict[str, Any]:
        """RFC 7643 section 7."""
        found: dict[str, Any] = {
            "name": self.name,
            "type": self.type,
            "multiValued": self.multi,
            "description": self.description or self.name,
            "required": self.required,
            "mutability": self.mutability,
            "returned": "default",
        }
        if self.parts:
            found["subAttributes"] = [part.shown() for part in self.parts]
        else:
            found |= {"caseExact": self.exact, "uniqueness": self.uniqueness}
        if self.canonical:
            found["canonicalValues"] = list(self.canonical)
        if self.references:
            found["referenceTypes"] = list(self.references)
        return found


@cache
def _by_name(attributes: tuple[Attribute, ...]) -> dict[str, Attribute]:
    return {attribute.name.lower(): attribute for attribute in attributes}


class Kind(Struct, frozen=True, kw_only=True):
    """A type of resources."""

    name: str
    endpoint: str
    urn: str
    attributes: tuple[Attribute, ...]
    description: str
    extension: str | None = None
    extended: tuple[Attribute, ...] = ()
    ignored: frozenset[str] = frozenset()
    """Attributes of the RFC's schema that the hub takes without keeping them."""

    def attribute(self, name: str) -> Attribute | None:
        """One of the core schema, or one that every resource has, by its name in any case."""
        return _by_name((*self.attributes, *COMMON)).get(name.lower())

    def extended_attribute(self, name: str) -> Attribute | None:
        return _by_name(self.extended).get(name.lower())


def _text(name: str, description: str = "") -> Attribute:
    return Attribute(name=name, description=description)


def _several(name: str, description: str, kinds: tuple[str, ...] = (), value: Attribute | None = None) -> Attribute:
    """A list of values, each with a type."""
    parts = (
        value or _text("value", "The value itself."),
        _text("display", "For people."),
        Attribute(name="type", canonical=kinds, description="What it is for."),
        Attribute(name="primary", type="boolean", description="Whether it is the one that is meant first."),
    )
    return Attribute(name=name, type="complex", multi=True, parts=parts, description=description)


COMMON: Final = (
    Attribute(name="id", exact=True, mutability="readOnly", uniqueness="server"),
    Attribute(name="externalId", exact=True),
    Attribute(
        name="meta",
        type="complex",
        mutability="readOnly",
        parts=(
            Attribute(name="resourceType", exact=True, mutability="readOnly"),
            Attribute(name="created", type="dateTime", mutability="readOnly"),
            Attribute(name="lastModified", type="dateTime", mutability="readOnly"),
            Attribute(name="location", type="reference", exact=True, mutability="readOnly"),
            Attribute(name="version", exact=True, mutability="readOnly"),
        ),
    ),
)
"""RFC 7643 section 3.1: of every resource, and in no schema."""

_PHOTO = Attribute(name="value", type="reference", exact=True, references=("external",), description="Where it is.")
_ADDRESS = ("formatted", "streetAddress", "locality", "region", "postalCode", "country")
_NAME = ("formatted", "familyName", "givenName", "middleName", "honorificPrefix", "honorificSuffix")
_GROUP_OF_USER = (
    Attribute(name="value", exact=True, mutability="readOnly", description="The id of the group."),
    Attribute(name="$ref", type="reference", exact=True, mutability="readOnly", references=("Group",)),
    Attribute(name="display", mutability="readOnly"),
    Attribute(name="type", mutability="readOnly", canonical=("direct",)),
)
_MANAGER = (
    _text("value", "The id of the manager."),
    Attribute(name="$ref", type="reference", exact=True, references=("User",)),
    Attribute(name="displayName", mutability="readOnly"),
)
USER: Final = Kind(
    name="User",
    endpoint="/Users",
    urn=CORE_USER,
    description="A person whom the directory manages.",
    extension=ENTERPRISE,
    ignored=frozenset(("password", "roles", "entitlements", "x509certificates")),
    attributes=(
        Attribute(
            name="userName",
            required=True,
            uniqueness="server",
            description="What the directory tells its users apart by. Where it is an email address, it is the user's.",
        ),
        Attribute(name="name", type="complex", parts=tuple(map(_text, _NAME)), description="The parts of the name."),
        _text("displayName", "The name as it is shown."),
        _text("nickName", "What they are called by friends."),
        Attribute(name="profileUrl", type="reference", exact=True, references=("external",)),
        _text("title", "Such as `Vice President`."),
        _text("userType", "Such as `Employee`."),
        _text("preferredLanguage", "As in `Accept-Language`."),
        _text("locale", "Such as `en-US`."),
        _text("timezone", "Such as `Europe/Berlin`."),
        Attribute(name="active", type="boolean", description="Whether they may sign in."),
        _several("emails", "Email addresses.", ("work", "home", "other")),
        _several("phoneNumbers", "Phone numbers.", ("work", "home", "mobile", "fax", "pager", "other")),
        _several("ims", "Addresses for instant messages."),
        _several("photos", "Pictures.", ("photo", "thumbnail"), _PHOTO),
        Attribute(
            name="addresses",
            type="complex",
            multi=True,
            parts=(
                *map(_text, _ADDRESS),
                Attribute(name="type", canonical=("work", "home", "other")),
                Attribute(name="primary", type="boolean"),
            ),
            description="Postal addresses.",
        ),
        Attribute(
            name="groups",
            type="complex",
            multi=True,
            mutability="readOnly",
            parts=_GROUP_OF_USER,
            description="The groups of the directory that they are in.",
        ),
    ),
    extended=(
        _text("employeeNumber"),
        _text("costCenter"),
        _text("organization"),
        _text("division"),
        _text("department"),
        Attribute(name="manager", type="complex", parts=_MANAGER, description="Whom they report to."),
    ),
)
GROUP: Final = Kind(
    name="Group",
    endpoint="/Groups",
    urn=CORE_GROUP,
    description="A group whose members the directory chooses.",
    attributes=(
        Attribute(name="displayName", required=True, uniqueness="server", description="The name of the group."),
        Attribute(
            name="members",
            type="complex",
            multi=True,
            description="Users of the directory. A group in a group is refused.",
            parts=(
                Attribute(name="value", exact=True, mutability="immutable", description="The id of the user."),
                Attribute(name="$ref", type="reference", exact=True, mutability="immutable", references=("User",)),
                Attribute(name="type", mutability="immutable", canonical=("User",)),
            ),
        ),
    ),
)
KINDS: Final = (USER, GROUP)


def schemas(base: str) -> list[dict[str, Any]]:
    """RFC 7643 section 7; `base` is where clients find `/scim/v2`."""
    shown = [(kind.urn, kind.name, kind.description, kind.attributes) for kind in KINDS]
    shown.append((ENTERPRISE, "EnterpriseUser", "A person within an organisation.", USER.extended))
    return [
        {
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Schema"],
            "id": urn,
            "name": name,
            "description": description,
            "attributes": [attribute.shown() for attribute in attributes],
            "meta": {"resourceType": "Schema", "location": f"{base}/Schemas/{urn}"},
        }
        for urn, name, description, attributes in shown
    ]


def resource_types(base: str) -> list[dict[str, Any]]:
    """RFC 7643 section 6."""
    return [
        {
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ResourceType"],
            "id": kind.name,
            "name": kind.name,
            "endpoint": kind.endpoint,
            "description": kind.description,
            "schema": kind.urn,
            "schemaExtensions": [{"schema": kind.extension, "required": False}] if kind.extension else [],
            "meta": {"resourceType": "ResourceType", "location": f"{base}/ResourceTypes/{kind.name}"},
        }
        for kind in KINDS
    ]


def service_provider_config(base: str) -> dict[str, Any]:
    """RFC 7643 section 5: what there is, and what there is not."""
    bearer = {
        "type": "oauthbearertoken",
        "name": "SCIM key",
        "description": "A key of POST /api/v1/scim-keys, sent as Authorization: Bearer.",
        "specUri": "https://www.rfc-editor.org/info/rfc6750",
        "primary": True,
    }
    return {
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"],
        "documentationUri": "https://www.rfc-editor.org/info/rfc7644",
        "patch": {"supported": True},
        "bulk": {"supported": False, "maxOperations": 0, "maxPayloadSize": 0},
        "filter": {"supported": True, "maxResults": MAX_RESULTS},
        "changePassword": {"supported": False},
        "sort": {"supported": True},
        "etag": {"supported": True},
        "authenticationSchemes": [bearer],
        "meta": {"resourceType": "ServiceProviderConfig", "location": f"{base}/ServiceProviderConfig"},
    }
