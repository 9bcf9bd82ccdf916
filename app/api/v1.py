"""The route table: every controller of the API, on one page."""

from litestar import Router
from litestar.types import ControllerRouterHandler

from app.api.asyncapi import asyncapi_json
from app.api.docs import DOCS
from app.api.openapi import openapi_json
from app.api.options import complete_options
from app.api.sign_in import fill_page
from app.domain.access_reviews.controllers import AccessReviewController
from app.domain.api_keys.controllers import ApiKeyController
from app.domain.assignments.controllers import AssignmentController
from app.domain.audit.controllers import list_audit_events
from app.domain.auth.controllers import AuthController, get_jwks
from app.domain.authz.controllers import (
    AuthzController,
    list_access_to_domain,
    list_access_to_source,
    list_effective_permissions,
)
from app.domain.delegations.controllers import DelegationController
from app.domain.domains.controllers import DataDomainController
from app.domain.events.controllers import list_events
from app.domain.factors.controllers import (
    FactorController,
    LoginController,
    PasskeyPageController,
    renew_recovery_codes,
    reset_factors,
)
from app.domain.factors.pages import FactorStep
from app.domain.groups.controllers import GroupController
from app.domain.health.controllers import get_live, get_metrics, get_ready
from app.domain.identity_providers.controllers import IdentityProviderController, list_providers
from app.domain.invitations.controllers import InvitationController
from app.domain.invitations.controllers import accept as accept_invitation
from app.domain.jobs.controllers import JobController
from app.domain.letter_pages.controllers import LetterPageController
from app.domain.oauth.controllers import (
    OAuthClientController,
    OAuthController,
    get_resource_metadata,
    get_server_metadata,
)
from app.domain.oidc.controllers import IdentityController, OidcController
from app.domain.recovery.controllers import RecoveryController
from app.domain.redelivery.controllers import redeliver_events
from app.domain.role_requests.controllers import RoleRequestController
from app.domain.roles.controllers import PermissionController, RoleController
from app.domain.saml.controllers import SamlController
from app.domain.scim.controllers import ScimController, ScimGroupController, ScimKeyController, ScimUserController
from app.domain.seals.controllers import get_audit_proof, get_audit_seal, list_audit_seals
from app.domain.service_accounts.controllers import ServiceAccountController
from app.domain.sign_in.controllers import SignInController
from app.domain.sign_in.texts import TEXTS
from app.domain.sign_in.ways import WAYS, PageLink
from app.domain.source_work.controllers import SourceWorkController
from app.domain.sources.controllers import DataSourceController, DataSourceTypeController
from app.domain.tenants.controllers import TenantController, TenantSettingsController
from app.domain.users.controllers import UserController
from app.domain.webhooks.controllers import DeliveryController, WebhookController

WAYS.offer_step(FactorStep())
WAYS.links += [
    PageLink(TEXTS["forgotten_link"], "/sign-in/forgotten"),
    PageLink(TEXTS["passkey_sign_in"], "/sign-in/passkey"),
]
fill_page()

VERSIONED: list[ControllerRouterHandler] = [
    LoginController,
    AuthController,
    RecoveryController,
    OAuthController,
    FactorController,
    renew_recovery_codes,
    reset_factors,
    SamlController,
    list_providers,
    OidcController,
    IdentityController,
    UserController,
    InvitationController,
    accept_invitation,
    GroupController,
    RoleController,
    AssignmentController,
    PermissionController,
    AuthzController,
    list_effective_permissions,
    list_access_to_source,
    list_access_to_domain,
    RoleRequestController,
    DelegationController,
    AccessReviewController,
    ServiceAccountController,
    TenantController,
    TenantSettingsController,
    IdentityProviderController,
    DataDomainController,
    ApiKeyController,
    OAuthClientController,
    ScimKeyController,
    DataSourceTypeController,
    DataSourceController,
    SourceWorkController,
    JobController,
    WebhookController,
    DeliveryController,
    list_audit_events,
    get_audit_proof,
    list_audit_seals,
    get_audit_seal,
    redeliver_events,
    list_events,
]

OUTSIDE_OF_VERSIONS: list[ControllerRouterHandler] = [
    get_live,
    get_ready,
    get_metrics,
    get_jwks,
    get_server_metadata,
    get_resource_metadata,
    ScimController,
    ScimUserController,
    ScimGroupController,
    openapi_json,
    asyncapi_json,
    SignInController,
    PasskeyPageController,
    LetterPageController,
    *DOCS,
]


class _Whole(Router):
    """Made for one application, which would copy it otherwise, with all that is in it."""

    def __deepcopy__(self, _: object) -> "_Whole":
        return self


def routes() -> list[ControllerRouterHandler]:
    """Of one application: another one needs its own."""
    whole = [_Whole("/api/v1", route_handlers=VERSIONED), _Whole("/", route_handlers=OUTSIDE_OF_VERSIONS)]
    for router in whole:
        complete_options(router)
    return [*whole]
