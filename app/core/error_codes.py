"""The one list of codes with which a request ends badly: by status, each with the sentence that says what it means.

A raise with a code that is not in the list of its status is a type error, and so is a row that no list names; a class
of errors whose list and rows differ cannot be defined (`core.errors`). The OpenAPI document shows what stands here. The
first row of each is what a raise without a code says.
"""

from typing import Final, Literal

BadRequestCode = Literal[
    "invalid_request",
    "arrow_unavailable",
    "body_timeout",
    "client_left",
    "constraint_violation",
    "duplicate_field",
    "invalid_cursor",
    "invalid_idempotency_key",
    "invalid_parameter",
    "malformed_body",
    "missing_body",
    "repeated_header",
    "repeated_parameter",
    "too_complex",
    "too_many_values",
    "type_unavailable",
    "unknown_host",
    "value_not_storable",
    "weak_password",
    "wrong_password",
]
UnauthenticatedCode = Literal[
    "unauthenticated",
    "invalid_credentials",
    "invalid_refresh_token",
    "invalid_token",
    "repeated_header",
    "session_ended",
    "token_expired",
]
RightCode = Literal["exceeds_own_permissions", "permission_missing"]
"""Of a 403 and of the field that is at fault, alike: where what is asked for goes beyond one's rights."""
ForbiddenCode = Literal[
    "forbidden",
    "not_an_approver",
    "not_your_request",
    "own_assignment",
    "own_request",
    "registration_closed",
    "session_required",
    RightCode,
]
NotFoundCode = Literal["not_found", "docs_not_installed", "object_not_found"]
MethodNotAllowedCode = Literal["method_not_allowed"]
SourceCode = Literal[
    "source_name_not_resolved",
    "source_egress_refused",
    "source_own_database",
    "source_connection_refused",
    "source_connect_timeout",
    "source_host_unreachable",
    "source_proxy_unreachable",
    "source_proxy_timeout",
    "source_proxy_authentication_failed",
    "source_proxy_refused",
    "source_proxy_invalid",
    "source_connection_lost",
    "source_protocol_mismatch",
    "source_tls_unavailable",
    "source_tls_required",
    "source_tls_certificate_invalid",
    "source_tls_failed",
    "source_authentication_failed",
    "source_permission_denied",
    "source_rate_limited",
    "source_server_error",
    "source_response_invalid",
    "source_response_too_large",
    "source_timeout",
    "source_invalid_configuration",
    "source_driver_missing",
    "source_unsupported",
    "source_crashed",
    "source_out_of_memory",
]
"""A data source could not be read: `source_` and the code of the connector's own list of failures."""
TakenCode = Literal["already_assigned", "email_taken", "folder_taken", "name_taken", "slug_taken"]
"""Of a 409 and of the field that is at fault, alike: where a value has to be nobody else's."""
DomainCode = Literal["domain_cycle", "domain_too_deep"]
"""Of a 409 and of the field that is at fault, alike: where a data domain would not fit into the tree."""
ConflictCode = Literal[
    "conflict",
    "admin_not_requestable",
    "already_approved",
    "already_exists",
    "approval_not_needed",
    "assignment_ended",
    "built_in_permission",
    "concurrent_change",
    "default_tenant",
    DomainCode,
    "event_gone",
    "holders_unconfirmed",
    "job_ended",
    "last_admin",
    "managed_externally",
    "no_eligible_approver",
    "not_sealed_yet",
    "request_decided",
    "request_not_approved",
    "request_pending",
    "review_closed",
    "role_is_public",
    "secret_reentry_required",
    "secret_unreadable",
    "secret_unresolved",
    "source_deleted",
    "still_in_use",
    "system_role",
    "too_many_permissions",
    "too_many_webhooks",
    "unsupported",
    "webhook_inactive",
    TakenCode,
    SourceCode,
]
PreconditionFailedCode = Literal["stale_version"]
TooLargeCode = Literal["too_large"]
UnsupportedMediaTypeCode = Literal["unsupported_media_type"]
IdempotencyMismatchCode = Literal["idempotency_key_reused"]
PreconditionRequiredCode = Literal["precondition_required"]
TooManyRequestsCode = Literal["rate_limited", "login_busy", "too_many_connector_runs", "too_many_streams"]
InternalErrorCode = Literal["internal_error"]
UnavailableCode = Literal[
    "unavailable",
    "connectors_busy",
    "database_busy",
    "database_full",
    "database_migrated",
    "schema_outdated",
    "schema_too_new",
    "database_read_only",
    "database_timeout",
    "database_unavailable",
    "deadline_exceeded",
    "search_busy",
    "server_busy",
    "stopping",
]

Code = Literal[
    BadRequestCode,
    UnauthenticatedCode,
    ForbiddenCode,
    NotFoundCode,
    MethodNotAllowedCode,
    ConflictCode,
    PreconditionFailedCode,
    TooLargeCode,
    UnsupportedMediaTypeCode,
    IdempotencyMismatchCode,
    PreconditionRequiredCode,
    TooManyRequestsCode,
    InternalErrorCode,
    UnavailableCode,
]

FaultCode = Literal[
    "ambiguous_name",
    "blank",
    "duplicate",
    "forbidden_character",
    "holders_unconfirmed",
    "invalid",
    "invalid_email",
    "invalid_schedule",
    "masked_secret",
    "mixed_scripts",
    "not_allowed",
    "not_finite",
    "reference_not_allowed",
    "required",
    "too_large",
    "too_long",
    "too_short",
    "too_small",
    "type_differs",
    "unknown_assignment",
    "unknown_column",
    "unknown_domain",
    "unknown_event_type",
    "unknown_field",
    "unknown_group",
    "unknown_permission",
    "unknown_role",
    "unknown_service_account",
    "unknown_source",
    "unknown_time_zone",
    "unknown_user",
    "wrong_form",
    "wrong_type",
    "secret_reentry_required",
    "secret_unreadable",
    "secret_unresolved",
    DomainCode,
    RightCode,
    TakenCode,
    BadRequestCode,
]
"""What is wrong with one field. An item of a bulk request is a body of its own, so any code of a 400 may be its."""

BAD_REQUEST: Final[dict[BadRequestCode, str]] = {
    "invalid_request": "The request is not valid.",
    "arrow_unavailable": "This hub cannot write Arrow. Ask its operator to install the extra `arrow`, or ask for JSON "
    "or CSV.",
    "body_timeout": "The request body did not arrive in time.",
    "client_left": "The client left before its body was here.",
    "constraint_violation": "A value breaks a rule of the database.",
    "duplicate_field": "A field is given more than once.",
    "invalid_cursor": "The cursor is not valid.",
    "invalid_idempotency_key": "The Idempotency-Key must be 1 to 255 printable ASCII characters.",
    "invalid_parameter": "A query parameter is not valid.",
    "malformed_body": "The body could not be read: it is malformed or cut off.",
    "missing_body": "This call needs a body, and none came.",
    "repeated_header": "A header that may come once was sent twice.",
    "repeated_parameter": "A query parameter is given more than once.",
    "too_complex": "The request is too complex for the database.",
    "too_many_values": "The body holds more values than this service takes.",
    "type_unavailable": "This type is for development only.",
    "unknown_host": "This service does not answer under that host name.",
    "value_not_storable": "A value is out of range or cannot be stored.",
    "weak_password": "The password is not accepted.",
    "wrong_password": "The current password is wrong.",
}
UNAUTHENTICATED: Final[dict[UnauthenticatedCode, str]] = {
    "unauthenticated": "Sign in first: send an access token or an API key as `Authorization: Bearer <token>`.",
    "invalid_credentials": "Email address or password is wrong.",
    "invalid_refresh_token": "The refresh token is not valid. Sign in again.",
    "invalid_token": "The access token or API key is not valid. It may be mistyped, ended or revoked.",
    "repeated_header": "The header `Authorization` was sent twice.",
    "session_ended": "The session has ended. Sign in again.",
    "token_expired": "The access token has expired. Refresh it.",
}
FORBIDDEN: Final[dict[ForbiddenCode, str]] = {
    "forbidden": "You may not do this.",
    "exceeds_own_permissions": "Nobody gives, or changes, more than they may do themselves.",
    "permission_missing": "This needs a permission that you do not have.",
    "not_an_approver": "You are not among those who decide on this request.",
    "not_your_request": "Only who made the request can do this.",
    "own_assignment": "Nobody keeps a right of their own in a review.",
    "own_request": "Nobody decides on their own request.",
    "registration_closed": "Registration is closed here. Ask an administrator for an account.",
    "session_required": "This is about a session, and an API key has none. Sign in.",
}
NOT_FOUND: Final[dict[NotFoundCode, str]] = {
    "not_found": "There is nothing here, or nothing that you may see.",
    "docs_not_installed": "The documentation pages are not installed with this hub.",
    "object_not_found": "The data source has no such object.",
}
METHOD_NOT_ALLOWED: Final[dict[MethodNotAllowedCode, str]] = {
    "method_not_allowed": "This path does not take that method.",
}
CONFLICT: Final[dict[ConflictCode, str]] = {
    "conflict": "The change does not fit the present state.",
    "admin_not_requestable": "The role `admin` may not be asked for here.",
    "already_approved": "You have approved this request already. Somebody else has to be the next.",
    "already_exists": "This already exists.",
    "approval_not_needed": "Another approval of this kind would not bring the request further.",
    "assignment_ended": "The assignment has ended. Give the role anew.",
    "built_in_permission": "Permissions of the hub itself stay as they are.",
    "concurrent_change": "Somebody changed the same thing at this moment. Try again.",
    "default_tenant": "The tenant `default` is the operators' own: it is neither suspended nor deleted.",
    "folder_taken": "HUB_FILES_ROOT holds something of this name already, which the tenant `default` may use.",
    "domain_cycle": "A data domain cannot be moved into itself, or into one that is in it.",
    "domain_too_deep": "Data domains are at most eight deep.",
    "event_gone": "The event is not kept any more.",
    "holders_unconfirmed": "Some hold this by the hand of somebody who could not give what you add. Confirm them.",
    "job_ended": "The job has ended already.",
    "no_eligible_approver": "Nobody could decide on this request. Ask an administrator.",
    "not_sealed_yet": "The row is not sealed yet. Ask again in a second.",
    "request_decided": "The request is decided, or its time is over.",
    "request_not_approved": "Nothing can be revoked: the request was not approved, or is revoked already.",
    "request_pending": "You have asked for this already, and it is not decided yet.",
    "review_closed": "The review is over: it takes no more answers.",
    "role_is_public": "Everyone holds the role `public`.",
    "last_admin": "This is the last active admin. Make somebody else admin first.",
    "managed_externally": "A directory keeps this. Change it there, or take it back from the directory first.",
    "secret_reentry_required": "Where the stored secrets would be sent has changed. Give them again with the change.",
    "secret_unreadable": "A stored secret cannot be opened. Give it again.",
    "secret_unresolved": "A secret by reference cannot be read.",
    "source_deleted": "The source was deleted while it was discovered.",
    "still_in_use": "Something else still uses this, or it uses something that is gone.",
    "system_role": "Built-in roles cannot be changed.",
    "too_many_permissions": "There are as many permissions of other services as a tenant may have.",
    "too_many_webhooks": "There are as many webhooks as a tenant may have. Delete one first.",
    "unsupported": "Data sources of this type cannot do that.",
    "webhook_inactive": "The webhook is switched off. Switch it on first.",
    "already_assigned": "The role is held there already. Change the end of that assignment, or end it first.",
    "email_taken": "Somebody already uses this email address.",
    "name_taken": "This name is taken.",
    "slug_taken": "A tenant has, or had, this slug.",
    "source_name_not_resolved": "The host of the data source is not known to DNS.",
    "source_egress_refused": "The hub may not reach the data source.",
    "source_own_database": "The source is the hub's own database.",
    "source_connection_refused": "Nothing listens where the data source should be.",
    "source_connect_timeout": "The data source did not answer the call.",
    "source_host_unreachable": "There is no route to the data source.",
    "source_proxy_unreachable": "The hub's proxy cannot be reached.",
    "source_proxy_timeout": "The hub's proxy was too slow.",
    "source_proxy_authentication_failed": "The hub's proxy does not accept the hub's credentials.",
    "source_proxy_refused": "The hub's proxy does not let it through to the data source.",
    "source_proxy_invalid": "What answers as the hub's proxy is none.",
    "source_connection_lost": "The data source hung up.",
    "source_protocol_mismatch": "Something of another kind answers where the data source should be.",
    "source_tls_unavailable": "The data source does not offer TLS.",
    "source_tls_required": "The data source wants TLS.",
    "source_tls_certificate_invalid": "The certificate of the data source is not valid.",
    "source_tls_failed": "No TLS connection to the data source came about.",
    "source_authentication_failed": "The data source did not let the user in.",
    "source_permission_denied": "The data source does not let the user read this.",
    "source_rate_limited": "The data source asks for patience.",
    "source_server_error": "The data source failed.",
    "source_response_invalid": "The data source answered with something that cannot be read as data.",
    "source_response_too_large": "The data source answered with more than the hub takes.",
    "source_timeout": "The data source was too slow.",
    "source_invalid_configuration": "A setting of the data source is wrong.",
    "source_driver_missing": "The driver for data sources of this type is not installed.",
    "source_unsupported": "Data sources of this type cannot do that.",
    "source_crashed": "The connector stopped.",
    "source_out_of_memory": "The connector needed more memory than it may have.",
}
PRECONDITION_FAILED: Final[dict[PreconditionFailedCode, str]] = {
    "stale_version": "Somebody changed this since you read it. Read it again, then repeat your change.",
}
TOO_LARGE: Final[dict[TooLargeCode, str]] = {"too_large": "The request body is larger than this service takes."}
UNSUPPORTED_MEDIA_TYPE: Final[dict[UnsupportedMediaTypeCode, str]] = {
    "unsupported_media_type": "Send the body as application/json or application/msgpack.",
}
IDEMPOTENCY_MISMATCH: Final[dict[IdempotencyMismatchCode, str]] = {
    "idempotency_key_reused": "This Idempotency-Key was used with another body. Choose a new key for a new request.",
}
PRECONDITION_REQUIRED: Final[dict[PreconditionRequiredCode, str]] = {
    "precondition_required": "This deployment wants `If-Match` on every change. Read first, then send the ETag.",
}
TOO_MANY_REQUESTS: Final[dict[TooManyRequestsCode, str]] = {
    "rate_limited": "That is more than the limit allows. Wait for as long as `Retry-After` says, then try again.",
    "login_busy": "Too many people are signing in at this moment. Try again shortly.",
    "too_many_streams": "Too many streams are open. Close one, then open another.",
    "too_many_connector_runs": "Too many connector runs at once. Wait for one to end.",
}
INTERNAL_ERROR: Final[dict[InternalErrorCode, str]] = {
    "internal_error": "Something went wrong on our side. The request id helps the operators to find out what.",
}
UNAVAILABLE: Final[dict[UnavailableCode, str]] = {
    "unavailable": "The service cannot answer right now. Try again in a moment.",
    "connectors_busy": "All places for connector work are taken. Try again in a moment.",
    "database_busy": "All database connections are busy. Try again in a moment.",
    "database_full": "The database has no room left. An operator has to free disk space.",
    "database_migrated": "The database was migrated in this moment. Try again.",
    "schema_outdated": "The database has not been migrated to this release of the hub yet. Try again when it has been.",
    "schema_too_new": "The database was migrated to where this release of the hub cannot follow. This hub stops.",
    "database_read_only": "The database takes no changes right now. Try again in a moment.",
    "database_timeout": "The database took too long. Try again in a moment.",
    "database_unavailable": "The database is away. Try again in a moment.",
    "deadline_exceeded": "The answer took too long. Try again in a moment.",
    "search_busy": "Too many people search or count at this moment. Try again shortly.",
    "server_busy": "Too much is asked of this server at this moment. Try again shortly.",
    "stopping": "The hub stops. Send it again.",
}
