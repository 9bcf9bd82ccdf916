"""Second factors on the wire."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import Meta

from app.core.errors import ErrorBody
from app.core.lookalikes import well_named
from app.core.schemas import EntityOut, Input, Name, Output, Rule
from app.domain.auth.schemas import GivenPassword

FactorType = Literal["totp", "passkey"]
FactorMethod = Literal["totp", "webauthn", "recovery"]
"""How a factor is shown."""
Code = Annotated[str, Meta(min_length=1, max_length=64, examples=["492039"], extra_json_schema={"writeOnly": True})]
"""Of an authenticator app, or a recovery code; spaces, dashes and capitals mean nothing."""
SealedToken = Annotated[str, Meta(min_length=1, max_length=4096, extra_json_schema={"writeOnly": True})]
Credential = dict[str, Any]
"""What the browser's `PublicKeyCredential.toJSON()` gives (WebAuthn level 3, section 5.1)."""
Options = dict[str, Any]
"""For `PublicKeyCredential.parseCreationOptionsFromJSON`, or `parseRequestOptionsFromJSON`."""
RULES: Mapping[str, Rule] = {"name": well_named}


class FactorCreate(Input):
    rules = RULES

    type: FactorType
    name: Name
    """For oneself: which phone or key it is."""


class FactorOut(EntityOut):
    type: FactorType
    name: str
    is_confirmed: bool
    """Whether it counts. One that is not confirmed within an hour is gone."""
    last_used_at: datetime | None


class FactorCreated(FactorOut):
    secret: str | None
    """Of one-time passwords (RFC 6238), in base 32. Shown now and never again."""
    otpauth_uri: str | None
    """The same for an authenticator app, most often as a QR code."""
    options: Options | None
    """Of a passkey: what `PublicKeyCredential.parseCreationOptionsFromJSON` takes."""


class FactorConfirm(Input):
    code: Code | None = None
    """Of the authenticator app."""
    credential: Credential | None = None
    """Of the new passkey: what `navigator.credentials.create` gave, by its `toJSON()`."""


class RecoveryCodes(Output):
    codes: list[str]
    """Shown now and never again. Each works once, and those of before are worth nothing any more."""


class Mfa(Output, omit_defaults=True):
    token: str
    """For `POST /api/v1/auth/mfa`, within five minutes."""
    methods: list[FactorMethod]
    """Of which any one will do."""
    options: Options | None = None
    """For `webauthn`: what `PublicKeyCredential.parseRequestOptionsFromJSON` takes."""


class MfaErrorBody(ErrorBody, kw_only=True, omit_defaults=True):
    """The password was right, and is not enough."""

    mfa: Mfa


class MfaSignIn(Input):
    mfa_token: SealedToken
    method: FactorMethod
    code: Code | None = None
    credential: Credential | None = None
    """For `webauthn`: what `navigator.credentials.get` gave, by its `toJSON()`."""


class PasskeyOptions(Output):
    token: str
    """To be sent with the passkey's answer, within five minutes."""
    options: Options
    """What `PublicKeyCredential.parseRequestOptionsFromJSON` takes."""


class PasskeySignIn(Input):
    token: SealedToken
    credential: Credential


class StepUp(Input):
    """Either the password, or a method with what belongs to it."""

    password: GivenPassword | None = None
    method: FactorMethod | None = None
    code: Code | None = None
    token: SealedToken | None = None
    """For `webauthn`: of `POST /api/v1/auth/step-up/options`."""
    credential: Credential | None = None
