"""Examples for the OpenAPI document: realistic values by Struct and field, valid against the schema beside them."""

from collections.abc import Callable, Mapping
from typing import Any

from app.api.components import PLACE, Schema
from app.api.source_examples import example_sources

USER = "01934f6e-7c1a-7b55-9d3e-5f0c2a9b1e01"
ROLE = "01934f6e-8d20-7a10-8c44-1b7e3f6a2c02"
OWNER_ROLE = "01934f6e-8d21-7e09-a1b3-9c2d4e5f6a03"
SOURCE = "01934f70-12ab-7c3d-9e4f-0a1b2c3d4e04"
GROUP = "01934f6e-9b40-7e12-9f66-3d9051b84c0a"
DOMAIN = "01934f6e-9a30-7c21-8d55-2c8f4a7b3d08"
OTHER_DOMAIN = "01934f6e-9a31-7f0a-b2c4-ad3e5f607e09"
OBJECT = "01934f70-9f00-7d11-b222-334455667705"
JOB = "01934f71-0c0d-7e0f-8a1b-2c3d4e5f6a06"
SESSION = "01934f6f-5a5b-7c5d-9e5f-6a6b6c6d6e07"
ACCOUNT = "01934f73-1a1b-7c1d-8e1f-2a2b2c2d2e08"
ASSIGNMENT = "01934f72-3b3c-7d3e-8f4a-4b5c6d7e8f09"
ADMIN = "01934f6e-6a10-7c11-8d22-3e4f5a6b7c0a"
OAUTH_CLIENT = "01934f76-5e5f-7b6c-8d7e-8f9a0b1c2d10"
KEY = "01934f74-3a3b-7c3d-8e3f-4a4b4c4d4e09"
ROLE_REQUEST = "01934f74-2b2c-7d2e-8f3a-3b4c4d5e6f0b"
DELEGATION = "01934f74-3c3d-7f4e-8a5b-5d6e7f8a9b0d"
REVIEW = "01934f75-4d4e-7a5f-9b6c-6e7f8a9b0c0e"
ITEM = "01934f75-4d4f-7b6a-8c7d-7f8a9b0c1d0f"
ENTRY = "01934f74-2b2d-7e3f-9a4b-4c5d5e6f7a0c"
REQUEST = "01934f72aabb7ccd8eefa0b1c2d3e4f5"
LAST_ROW = "01934f72-bbcc-7dde-8ff0-a1b2c3d4e5f6"
TIME = "2025-11-22T14:53:59.120481Z"

SECRET_STATE = {"set": True, "version": 1, "updated_at": TIME, "updated_by": USER, "source": "stored", "ref": None}

BY_FIELD: Mapping[str, object] = {
    "id": USER,
    "created_by": USER,
    "updated_by": USER,
    "actor_id": USER,
    "owner_role_id": None,
    "data_domain_id": None,
    "parent_id": None,
    "managed_by": None,
    "subject_id": SOURCE,
    "resource_id": SOURCE,
    "version": 1,
    "email": "ada@example.org",
    "actor_name": "ada@example.org",
    "first_name": "Ada",
    "last_name": "Lovelace",
    "is_active": True,
    "has_password": True,
    "name": "analysts",
    "description": "People who read the sales data.",
    "permissions": ["data-sources:read", "data-sources:preview"],
    "tags": ["sales"],
    "slug": "default",
    "next_cursor": None,
    "total": None,
    "request_id": REQUEST,
    "address": "203.0.113.7",
    "device": "Mozilla/5.0 (X11; Linux x86_64)",
    "access_token": "eyJhbGciOiJFZERTQSIsInR5cCI6ImF0K2p3dCIsImtpZCI6IjEifQ.eyJzdWIiOiIuLi4ifQ.c2lnbmF0dXJl",
    "token_type": "bearer",
    "token": "eyJhbGciOiJFZERTQSIsInR5cCI6ImF0K2p3dCIsImtpZCI6IjEifQ.eyJzdWIiOiIuLi4ifQ.c2lnbmF0dXJl",
    "expires_in": 900,
    "refresh_token": "a5f1c0de4b7e4d0f9a3e2b1c0d9e8f70",
    "refresh_expires_in": 2592000,
    "category": "database",
    "type": "postgresql",
    "host": "db.example.org",
    "port": 5432,
    "database": "shop",
    "username": "reader",
    "base_url": "https://api.example.org",
    "bucket": "sales-archive",
    "region": "eu-central-1",
    "password": "a phrase that only I know",
    "current_password": "a phrase that only I know",
    "qualified_name": "shop.orders",
    "path": ["shop", "orders"],
    "kind": "table",
    "native_type": "character varying(200)",
    "duration_ms": 12.4,
    "server": {"product": "PostgreSQL", "version": "18.0"},
    "detail": None,
    "before": None,
    "after": None,
    "error": None,
    "result": None,
}
"""By the name of a field, wherever it is; a value that does not fit the field's schema is passed over."""

SHOP: Mapping[str, object] = {
    "id": SOURCE,
    "name": "Shop",
    "description": "The shop's own database, read only.",
    "config": {"host": "db.example.org", "port": 5432, "database": "shop", "username": "reader"},
    "secrets": {"password": SECRET_STATE},
    "status": "passed",
    "is_paused": False,
    "test_interval_s": 3600,
    "discover_schedule": "0 3 * * *",
    "discover_time_zone": "Europe/Berlin",
}

STEPS = [
    {"code": "ok", "fault": "none", "can_retry": False} | step
    for step in (
        {"name": "resolve", "status": "passed", "message": "db.example.org is 203.0.113.7.", "duration_ms": 1.2},
        {"name": "connect", "status": "passed", "message": "PostgreSQL answers on port 5432.", "duration_ms": 3.1},
        {"name": "tls", "status": "passed", "message": "Encrypted with TLSv1.3.", "duration_ms": 5.8},
        {
            "name": "authenticate",
            "status": "failed",
            "code": "authentication_failed",
            "message": "db.example.org did not let reader sign in. Check the user and the secret.",
            "duration_ms": 2.3,
            "fault": "configuration",
        },
        {
            "name": "list",
            "status": "skipped",
            "code": "not_reached",
            "message": "Not reached: an earlier step failed.",
            "duration_ms": 0,
        },
    )
]

ASSIGNED: Mapping[str, object] = {
    "role_id": ROLE,
    "expires_at": "2030-06-30T18:00:00Z",
    "reason": "For the audit of the first half year.",
}
GROUND: dict[str, object] = {
    "type": "assignment",
    "role_id": ROLE,
    "assignment_id": "01934f72-3a4b-7c5d-8e6f-7a8b9c0d1e08",
    "group_id": None,
    "scope": {"type": "data_source", "id": SOURCE},
    "request_id": None,
}
REGISTERED: Mapping[str, object] = {
    "name": "Reports",
    "redirect_uris": ["https://reports.example.org/signed-in"],
    "is_confidential": True,
}
CLIENT: Mapping[str, object] = {
    **REGISTERED,
    "id": OAUTH_CLIENT,
    "client_id": "dfo_AAAAAAAAcACAAAAAAAAAAQGTT3ZeX3tsjX6PmgscLRA",
}
JWK = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "2026"}
API_KEY: Mapping[str, object] = {
    "id": KEY,
    "name": "report on host 7",
    "prefix": "dfh_02yJQWmpMLyO9gTehLb42r",
    "owner": {"type": "service_account", "id": ACCOUNT},
    "permissions": ["data-sources:read"],
    "expires_at": "2026-02-20T14:53:59.120481Z",
    "last_used_at": "2025-11-23T04:00:00Z",
}

ASKED: Mapping[str, object] = {
    "role_id": ROLE,
    "justification": "For the audit of the first half year.",
    "scope": {"type": "data_source", "id": SOURCE},
    "expires_at": "2030-06-30T18:00:00Z",
}

DELEGATED: Mapping[str, object] = {
    "to_user_id": ADMIN,
    "starts_at": "2030-07-01T08:00:00Z",
    "ends_at": "2030-07-15T18:00:00Z",
}

REVIEWED: Mapping[str, object] = {
    "name": "Analysts, first half of the year",
    "role_id": ROLE,
    "scope": None,
    "due_at": "2030-06-30T18:00:00Z",
    "on_no_answer": "end",
}

AUTHENTICATION = ["client_secret_basic", "client_secret_post", "private_key_jwt", "none"]
SERVER: Mapping[str, object] = {
    "issuer": "https://hub.example.org",
    "authorization_endpoint": "https://hub.example.org/api/v1/auth/authorize",
    "token_endpoint": "https://hub.example.org/api/v1/auth/token",
    "revocation_endpoint": "https://hub.example.org/api/v1/auth/revoke",
    "introspection_endpoint": "https://hub.example.org/api/v1/auth/introspect",
    "jwks_uri": "https://hub.example.org/.well-known/jwks.json",
    "service_documentation": "https://hub.example.org/docs",
    "scopes_supported": ["api"],
    "response_types_supported": ["code"],
    "response_modes_supported": ["query"],
    "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials"],
    "code_challenge_methods_supported": ["S256"],
    "token_endpoint_auth_methods_supported": AUTHENTICATION,
    "token_endpoint_auth_signing_alg_values_supported": ["EdDSA", "Ed25519", "ES256", "RS256", "PS256"],
    "revocation_endpoint_auth_methods_supported": AUTHENTICATION,
    "revocation_endpoint_auth_signing_alg_values_supported": ["EdDSA", "Ed25519", "ES256", "RS256", "PS256"],
    "introspection_endpoint_auth_methods_supported": ["Bearer"],
    "authorization_response_iss_parameter_supported": True,
}
FACTOR: Mapping[str, object] = {
    "id": "01934f76-5e5f-7a6b-8c7d-8e9f0a1b2c10",
    "type": "totp",
    "name": "my phone",
    "is_confirmed": True,
    "last_used_at": TIME,
}
SEALED = "AQJrMZ3vM0Rk9l1c7bq3m0pXyQ4kq2Vb0nTt8hF5uWwYzA"
CHALLENGE = "tH1sIsThirtyTwoRandomBytesInBase64urlXXXXXX"
REQUEST_OPTIONS: Mapping[str, object] = {
    "challenge": CHALLENGE,
    "timeout": 300000,
    "rpId": "hub.example.org",
    "userVerification": "required",
}
ASSERTION: Mapping[str, object] = {
    "id": "q1Wd8f0mT2k",
    "rawId": "q1Wd8f0mT2k",
    "type": "public-key",
    "response": {"clientDataJSON": "e30", "authenticatorData": "AA", "signature": "AA", "userHandle": "AA"},
    "clientExtensionResults": {},
}

BY_STRUCT: Mapping[str, Mapping[str, object]] = {
    "UserOut": {"roles": [{"id": ROLE, "name": "analysts"}]},
    "RoleRef": {"id": ROLE},
    "RoleOut": {"id": ROLE, "is_system": False, "is_requestable": True},
    "RequestableRoleOut": {"id": ROLE},
    "ServiceAccountOut": {
        "id": ACCOUNT,
        "name": "nightly report",
        "description": "Reads orders at four each morning.",
        "jwks": {"keys": [JWK]},
    },
    "ServiceAccountCreate": {
        "name": "nightly report",
        "description": "Reads orders at four each morning.",
        "jwks": {"keys": [JWK]},
    },
    "ServiceAccountPatch": {"description": "Reads orders at five each morning.", "jwks": None},
    "JsonWebKey": JWK,
    "OAuthClientOut": CLIENT,
    "OAuthClientCreated": {
        **CLIENT,
        "client_secret": "dfs_AAAAAAAAcACAAAAAAAAAAQGTT3ZeX3tsjX6PmgscLRA_5wH1jUlTn2Yc3Xo9Pq4Rr8Ss7Dd6Ee2BWWUrQ0aZ1b2",
    },
    "OAuthClientCreate": REGISTERED,
    "OAuthClientPatch": {"redirect_uris": ["https://reports.example.org/signed-in"]},
    "TokenForm": {
        "grant_type": "client_credentials",
        "client_id": ACCOUNT,
        "client_secret": "dfh_02yJQWmpMLyO9gTehLb42r_5wH1jUlTn2Yc3Xo9Pq4Rr8Ss7Dd6Ee2BWWUr",
    },
    "RevocationForm": {"client_id": "hub-cli"},
    "Granted": {"token_type": "Bearer", "scope": "api"},
    "OAuthFault": {"error": "invalid_request", "error_description": "`grant_type` is missing."},
    "ServerMetadata": SERVER,
    "ResourceMetadata": {
        "resource": "https://hub.example.org",
        "resource_name": "Data Fusion Hub",
        "resource_documentation": "https://hub.example.org/docs",
        "authorization_servers": ["https://hub.example.org"],
        "scopes_supported": ["api"],
        "bearer_methods_supported": ["header"],
    },
    "AssignmentOut": {**ASSIGNED, "id": ASSIGNMENT, "ended_at": None, "ended_by": None},
    "AssignmentCreate": {**ASSIGNED, "scope": {"type": "data_source", "id": SOURCE}},
    "AssignmentPatch": {"expires_at": "2030-12-31T17:00:00Z"},
    "Subject": {"type": "user", "id": USER},
    "SubjectOut": {"type": "user", "id": USER},
    "Scope": {"type": "data_source", "id": SOURCE},
    "ScopeOut": {"type": "data_source", "id": SOURCE},
    "ViaOut": {"type": "person", "id": ADMIN},
    "GroupOut": {"id": GROUP, "name": "Sales team", "description": "Who sells."},
    "GroupCreate": {"name": "Sales team", "description": "Who sells."},
    "DataDomainOut": {
        "id": DOMAIN,
        "name": "Sales",
        "description": "What is sold, and to whom.",
        "parent_id": OTHER_DOMAIN,
        "owner_role_id": OWNER_ROLE,
        "path": ["Company", "Sales"],
    },
    "DataDomainCreate": {"name": "Sales", "description": "What is sold, and to whom.", "parent_id": OTHER_DOMAIN},
    "DataDomainPatch": {"parent_id": OTHER_DOMAIN},
    "ApiKeyOut": API_KEY,
    "ApiKeyCreated": {**API_KEY, "key": "dfh_02yJQWmpMLyO9gTehLb42r_5wH1jUlTn2Yc3Xo9Pq4Rr8Ss7Dd6Ee2BWWUr"},
    "ScimKeyOut": {"name": "Entra ID", "last_used_at": "2025-11-22T14:00:00Z"},
    "ScimKeyCreated": {"name": "Entra ID", "last_used_at": None, "key": f"dfd_{43 * 'A'}_{43 * 'B'}"},
    "ScimKeyCreate": {"name": "Entra ID"},
    "ApiKeyCreate": {"name": "report on host 7", "expires_at": None, "permissions": ["data-sources:read"]},
    "RoleRequestOut": {
        **ASKED,
        "id": ROLE_REQUEST,
        "created_by": USER,
        "user_id": USER,
        "status": "pending",
        "awaits": [OWNER_ROLE],
        "renews": None,
        "decided_at": None,
        "decided_by": None,
        "assignment_id": None,
    },
    "DelegationOut": {**DELEGATED, "id": DELEGATION, "user_id": USER, "created_by": USER},
    "DelegationCreate": DELEGATED,
    "AccessReviewOut": {**REVIEWED, "id": REVIEW, "status": "open", "closed_at": None},
    "AccessReviewCreate": REVIEWED,
    "ReviewItemOut": {"id": ITEM, "assignment_id": ASSIGNMENT, "state": "kept", "reason": "Is still on the team."},
    "ReviewSubject": {"type": "user", "id": USER, "name": "ada@example.org"},
    "ReviewRole": {"id": ROLE},
    "Report": {"totals": {"open": 0, "kept": 1, "ended": 0, "gone": 0}},
    "ReviewAnswer": {"reason": "Is still on the team."},
    "RoleRequestCreate": ASKED,
    "EntryOut": {"id": ENTRY, "kind": "approved", "text": "Until the audit is over.", "role_ids": [OWNER_ROLE]},
    "Decision": {"reason": "Until the audit is over."},
    "CommentCreate": {"text": "Until when is it needed?"},
    "ApproverRoles": {"items": [OWNER_ROLE]},
    "PermissionOut": {
        "name": "data-sources:read",
        "description": "See data sources, their tests and the objects found inside.",
    },
    "PermissionPut": {"description": "See dashboards of reports."},
    "Check": {
        "action": "data-sources:read",
        "resource_type": "data_source",
        "resource_id": SOURCE,
        "user_id": None,
        "at": None,
    },
    "RightScope": {"type": "data_source", "id": SOURCE},
    "RightVia": GROUND,
    "AccessVia": GROUND | {"permissions": ["data-sources:read"]},
    "CheckResult": {"allowed": True},
    "EffectivePermission": {"permission": "data-sources:read"},
    "AccessOut": {"subject_type": "user", "user_id": USER, "permissions": ["data-sources:read"]},
    "Me": {"permissions": ["data-sources:read"]},
    "TenantOut": {"slug": "acme", "name": "Acme Ltd"},
    "TenantCreate": {"slug": "acme", "name": "Acme Ltd"},
    "TenantPatch": {"name": "Acme Ltd"},
    "TenantSettingsOut": {"max_key_days": 366, "is_admin_requestable": False},
    "TenantSettingsPatch": {"max_key_days": 90},
    "TenantRef": {"id": "00000000-0000-7000-8000-000000000001", "name": "Default"},
    "FactorOut": FACTOR,
    "FactorCreated": {
        **FACTOR,
        "is_confirmed": False,
        "last_used_at": None,
        "secret": "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP",
        "otpauth_uri": "otpauth://totp/Data%20Fusion%20Hub:ada%40example.org"
        "?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP&issuer=Data%20Fusion%20Hub",
        "options": None,
    },
    "FactorCreate": {"type": "totp", "name": "my phone"},
    "FactorConfirm": {"code": "492039", "credential": None},
    "RecoveryCodes": {"codes": ["k7xm-2vqa-9hde-w3nb", "r4tz-8cfu-jm6y-p0sg"]},
    "Mfa": {"token": SEALED, "methods": ["totp", "recovery"]},
    "MfaErrorBody": {"detail": "The password is right. Send a second factor.", "code": "mfa_required", "errors": []},
    "MfaSignIn": {"mfa_token": SEALED, "method": "totp", "code": "492039", "credential": None},
    "PasskeyOptions": {"token": SEALED, "options": REQUEST_OPTIONS},
    "PasskeySignIn": {"token": SEALED, "credential": ASSERTION},
    "StepUp": {
        "password": "a phrase that only I know",
        "method": None,
        "code": None,
        "token": None,
        "credential": None,
    },
    "SessionOut": {"id": SESSION, "is_current": True},
    "Introspection": {
        "active": True,
        "sub": USER,
        "sid": SESSION,
        "username": "ada@example.org",
        "exp": 1763824139,
        "iat": 1763823239,
    },
    "JsonWebKeySet": {
        "keys": [
            {
                "kty": "OKP",
                "crv": "Ed25519",
                "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
                "kid": "1",
                "use": "sig",
                "alg": "EdDSA",
            }
        ]
    },
    "DataSourceOut": SHOP,
    "DataSourceSaved": {**SHOP, "status": "untested", "status_since": None, "last_tested_at": None},
    "DataSourcePatch": {"config": {"port": 5433}},
    "ConnectionPatch": {"config": {"port": 5433}, "secrets": {"password": {"ref": "env:SHOP_PASSWORD"}}},
    "SourceWarning": {
        "code": "duplicate_source",
        "message": "Another data source is of the same server and database.",
        "data_source_id": SOURCE,
    },
    "DataSourceBulk": {"atomic": True, "dry_run": False},
    "BulkOut": {"created": 1, "failed": 0, "dry_run": False},
    "BulkItem": {"index": 0, "status": "created", "errors": []},
    "TypeOut": {
        "label": "PostgreSQL",
        "description": "A PostgreSQL database.",
        "config_schema": {"type": "object"},
        "secrets_schema": {"type": "object"},
        "install_hint": None,
        "verified_with": ["PostgreSQL 18"],
    },
    "TestResult": {"status": "failed", "steps": STEPS},
    "TestOut": {"status": "failed", "steps": STEPS, "secret_versions": {"password": 1}},
    "ObjectOut": {"id": OBJECT, "name": "orders"},
    "FieldOut": {"name": "placed_at", "type": "timestamp_tz", "native_type": "timestamp with time zone", "position": 1},
    "PreviewAsk": {"object": "shop.orders", "columns": ["id", "total"], "limit": 10},
    "PreviewResult": {
        "columns": [{"name": "id", "type": "integer"}, {"name": "total", "type": "decimal"}],
        "rows": [[1, "19.90"]],
        "truncated": False,
        "notes": [],
    },
    "PreviewColumn": {"name": "id", "type": "integer"},
    "JobOut": {
        "id": JOB,
        "kind": "data_source.discover",
        "status": "running",
        "progress": {"done": 3, "total": 12},
        "priority": 0,
        "retries": 0,
        "run_after": None,
        "finished_at": None,
    },
    "JobError": {"code": "connection_refused", "message": "Nobody listens on that port.", "can_retry": True},
    "AuditEventOut": {
        "id": REQUEST[:8] + "-aabb-7ccd-8eef-a0b1c2d3e4f5",
        "action": "data_source.update",
        "resource_type": "data_source",
        "outcome": "success",
        "before": {"name": "Shop"},
        "after": {"name": "The shop"},
    },
    "AuditSealOut": {
        "id": LAST_ROW,
        "number": 42,
        "first_position": 1201,
        "last_position": 1207,
        "first_id": REQUEST[:8] + "-aabb-7ccd-8eef-a0b1c2d3e4f5",
        "last_id": LAST_ROW,
        "count": 7,
        "root": "9c1185a5c5e9fc54612808977ee8f548b2258d31ddadef707ba62c166051b9e3",
        "previous_hash": "3b1c1c2f2f3b2a0c7d0f5b7f8f2a1e6d4c3b2a190817161514131211100f0e0d",
        "kid": "gGJUVNn4e3g0m6xSkqk0m9Pm5mZrXv0h1lCzZ8Jt5wA",
        "signature": "5d" * 64,
        "hash": "b1946ac92492d2347c6235b4d2611184f8e7a1c0b3d2e5f60718293a4b5c6d7e",
    },
    "InclusionProof": {
        "seal_number": 42,
        "leaf_hash": "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "leaf_index": 6,
        "tree_size": 7,
        "path": ["3147ad6e8f9c4a7b0d1e2f30415263748596a7b8c9daebfc0d1e2f3041526374"],
        "root": "9c1185a5c5e9fc54612808977ee8f548b2258d31ddadef707ba62c166051b9e3",
    },
    "Logout": {"scope": "session"},
    "ChangePassword": {"new_password": "another phrase, longer than the first"},
    "DataSource": {
        "name": "Shop",
        "description": "The shop's own database, read only.",
        "secrets": {"password": "a phrase that only I know"},
    },
    "Connection": {"secrets": {"password": "a phrase that only I know"}},
    "Health": {"status": "ok", "detail": "Ready to serve."},
    "Fault": {"path": "config.port", "code": "wrong_type", "message": "must be integer"},
}
"""What a Struct shows differently from the table above. Variants of a union by type share a row by their ending."""
ENDINGS = ("DataSource", "Connection")

BY_FORMAT: Mapping[str, object] = {"uuid": USER, "date-time": TIME, "email": "ada@example.org"}
PATH_PARAMETERS: Mapping[str, object] = {
    "user_id": USER,
    "role_id": ROLE,
    "assignment_id": ASSIGNMENT,
    "request_id": ROLE_REQUEST,
    "review_id": REVIEW,
    "item_id": ITEM,
    "delegation_id": DELEGATION,
    "account_id": ACCOUNT,
    "oauth_client_id": OAUTH_CLIENT,
    "key_id": KEY,
    "source_id": SOURCE,
    "object_id": OBJECT,
    "group_id": GROUP,
    "domain_id": DOMAIN,
    "job_id": JOB,
    "session_id": SESSION,
    "event_id": LAST_ROW,
    "factor_id": "01934f76-5e5f-7a6b-8c7d-8e9f0a1b2c10",
    "number": 42,
    "permission_name": "reports.dashboards:read",
    "type_name": "postgresql",
}


def _own(struct: str) -> Mapping[str, object]:
    ending = next((ending for ending in ENDINGS if struct.endswith(ending)), struct)
    return BY_STRUCT.get(struct, BY_STRUCT.get(ending, {}))


Fits = Callable[[object, Schema], bool]


BY_TYPE_OF_SOURCE: Mapping[str, str] = {"AnyDataSource": "Shop", "AnyConnection": ""}
"""Bodies that have an example for each type of data source, and the name that they give it."""


class Examples:
    """`fits` says whether a value is valid against a schema; `schemas` are the components that references lead to."""

    def __init__(self, schemas: Mapping[str, Schema], fits: Fits) -> None:
        self._schemas = schemas
        self._fits = fits

    def media_type(self, schema: Schema) -> dict[str, object]:
        """`example` or `examples` beside the schema of a body."""
        name = schema.get("$ref", "").removeprefix(PLACE)
        if name not in BY_TYPE_OF_SOURCE:
            return {"example": self.of(schema)}
        named = BY_TYPE_OF_SOURCE[name]
        return {
            "examples": {
                each["type"]: {"summary": label, "value": {"name": f"{named}: {label}"} | each if named else each}
                for label, each in example_sources()
            }
        }

    def of(self, schema: Schema, field: str = "", struct: str = "") -> Any:
        known = _own(struct).get(field, ...)
        if known is ...:
            known = BY_FIELD.get(field, ...)
        if known is not ... and self._fits(known, schema):
            return known
        return self._made(schema, field, struct)

    def _made(self, schema: Schema, field: str, struct: str) -> object:
        if "$ref" in schema:
            return self._made(self._schemas[schema["$ref"].removeprefix(PLACE)], field, struct)
        for variants in ("oneOf", "anyOf"):
            if variants in schema:
                return self._first_variant(schema, schema[variants], field, struct)
        for stated in ("examples", "enum"):
            if schema.get(stated):
                return schema[stated][0]
        if "const" in schema:
            return schema["const"]
        return schema["default"] if schema.get("default") is not None else self._by_type(schema)

    def _first_variant(self, schema: Schema, variants: list[Schema], field: str, struct: str) -> object:
        """An object before an array before the rest; optional fields whose default is null keep it."""
        if schema.get("default", ...) is None:
            return None
        if chosen := self._by_discriminator(schema):
            return self.of(chosen, field, struct)
        meant = [variant for variant in variants if variant.get("type") != "null"]
        chosen = next((variant for variant in meant if "$ref" in variant), meant[0])
        return self.of(chosen, field, struct)

    @staticmethod
    def _by_discriminator(schema: Schema) -> Schema | None:
        """Of variants that a field tells apart, the one that the examples speak of elsewhere too."""
        told_by = schema.get("discriminator", {})
        reference = told_by.get("mapping", {}).get(BY_FIELD.get(told_by.get("propertyName", "")))
        return {"$ref": reference} if reference else None

    def _by_type(self, schema: Schema) -> object:
        match schema.get("type"):
            case "object":
                return self._object(schema)
            case "array":
                return [self.of(schema["items"])] if "items" in schema else []
            case "string":
                text = "example".ljust(schema.get("minLength", 0), "x")[: schema.get("maxLength")]
                return BY_FORMAT.get(schema.get("format", ""), text)
            case "integer" | "number":
                return schema.get("minimum", 1)
            case "boolean":
                return True
        return None

    def _object(self, schema: Schema) -> dict[str, object]:
        struct = str(schema.get("title", ""))
        properties = schema.get("properties", {})
        if schema.get("additionalProperties") is False:
            properties = {name: what for name, what in properties.items() if name in self._shown(schema, struct)}
        return {name: self.of(what, name, struct) for name, what in properties.items()}

    def _shown(self, schema: Schema, struct: str) -> set[str]:
        """Of a request body: what it needs, what the tables name, and in any case two fields."""
        properties = schema["properties"]
        named = {name for name in properties if name in _own(struct)}
        usual = {name for name in properties if name in BY_FIELD and BY_FIELD[name] is not None}
        partial = struct.endswith("Patch")
        first = set(list(properties)[:2]) if partial and not named else set()
        return set(schema.get("required", ())) | named | (first if partial else usual)
