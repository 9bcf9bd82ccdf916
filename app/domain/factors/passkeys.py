"""Passkeys (WebAuthn level 3), by Yubico's `fido2`, which is imported when somebody has to do with one first.

The relying party is the host of HUB_PUBLIC_URL, the origin exactly that URL's; the user is verified by the
authenticator each time, so that a passkey is two factors by itself.
"""

import logging
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from msgspec import Struct

from app.core import base64url
from app.core.schemas import single_spaced
from app.domain.factors.schemas import Credential, Options
from app.settings import Settings

log = logging.getLogger("hub.passkeys")
TIMEOUT_MS = 300_000


class NewPasskey(Struct, frozen=True):
    credential_id: bytes
    credential: bytes
    sign_count: int


class KnownPasskey(Struct, frozen=True):
    id: UUID
    credential_id: bytes
    credential: bytes
    sign_count: int


class Shown(Struct, frozen=True):
    """A passkey that answered."""

    factor_id: UUID
    sign_count: int


def user_handle(tenant_id: UUID, user_id: UUID) -> bytes:
    """What a passkey says of whose it is: with it nobody need say who they are."""
    return tenant_id.bytes + user_id.bytes


def owner_of(credential: Credential) -> tuple[UUID, UUID] | None:
    """Tenant and user that the passkey names; None where it names none."""
    response = credential.get("response")
    handle = response.get("userHandle") if isinstance(response, dict) else None
    if not isinstance(handle, str) or len(handle) > 100:
        return None
    try:
        found = base64url.decode(handle)
    except ValueError:
        return None
    return (UUID(bytes=found[:16]), UUID(bytes=found[16:])) if len(found) == 32 else None


def creation_options(
    settings: Settings, challenge: bytes, *, handle: bytes, account: str, name: str, known: Iterable[bytes]
) -> Options:
    from fido2.webauthn import (
        PublicKeyCredentialDescriptor,
        PublicKeyCredentialType,
        PublicKeyCredentialUserEntity,
        ResidentKeyRequirement,
        UserVerificationRequirement,
    )

    kind = PublicKeyCredentialType.PUBLIC_KEY
    made, _ = _server(settings).register_begin(
        PublicKeyCredentialUserEntity(id=handle, name=account, display_name=single_spaced(name) or account),
        credentials=[PublicKeyCredentialDescriptor(type=kind, id=each) for each in known],
        resident_key_requirement=ResidentKeyRequirement.REQUIRED,
        user_verification=UserVerificationRequirement.REQUIRED,
        challenge=challenge,
    )
    return _in_json(made.public_key)


def request_options(settings: Settings, challenge: bytes, known: Iterable[bytes] | None) -> Options:
    """`known`: the ids of those that will do; None: of whoever it is."""
    from fido2.webauthn import PublicKeyCredentialDescriptor, PublicKeyCredentialType, UserVerificationRequirement

    kind = PublicKeyCredentialType.PUBLIC_KEY
    ids = None if known is None else [PublicKeyCredentialDescriptor(type=kind, id=each) for each in known]
    made, _ = _server(settings).authenticate_begin(
        credentials=ids, user_verification=UserVerificationRequirement.REQUIRED, challenge=challenge
    )
    return _in_json(made.public_key)


def registered(settings: Settings, challenge: bytes, credential: Credential) -> NewPasskey | None:
    """None where the answer is not right (WebAuthn section 7.1)."""
    from fido2.webauthn import RegistrationResponse

    try:
        answer = RegistrationResponse.from_dict(credential)
        _refuse_embedded(answer.response.client_data)
        data = _server(settings).register_complete(_state(challenge), answer)
        made = data.credential_data
    except Exception as error:
        log.info("a new passkey is not right: %s", error)
        return None
    if made is None or made.credential_id != answer.raw_id or len(made.credential_id) > 1023:
        return None
    return NewPasskey(made.credential_id, bytes(made), data.counter)


def answered(
    settings: Settings, challenge: bytes, credential: Credential, known: Iterable[KnownPasskey], handle: bytes
) -> Shown | None:
    """Which of the passkeys has answered; None where the answer is not right (WebAuthn section 7.2), where it is of
    somebody else, and where the passkey has counted less than before, as a copy does."""
    from fido2.webauthn import AttestedCredentialData, AuthenticationResponse

    by_id = {each.credential_id: each for each in known}
    try:
        answer = AuthenticationResponse.from_dict(credential)
        _refuse_embedded(answer.response.client_data)
        credentials = [AttestedCredentialData(each.credential) for each in by_id.values()]
        used = _server(settings).authenticate_complete(_state(challenge), credentials, answer)
    except Exception as error:
        log.info("a passkey's answer is not right: %s", error)
        return None
    passkey, count = by_id[used.credential_id], answer.response.authenticator_data.counter
    is_copy = (count or passkey.sign_count) and count <= passkey.sign_count
    if is_copy or answer.response.user_handle not in (None, handle):
        return None
    return Shown(passkey.id, count)


def _refuse_embedded(client_data: Any) -> None:
    """Raises ValueError for an answer that was given inside of another site's page."""
    if client_data.cross_origin:
        raise ValueError("given in a frame of another origin")


def _server(settings: Settings) -> Any:
    from fido2.server import Fido2Server
    from fido2.webauthn import AttestationConveyancePreference, PublicKeyCredentialRpEntity

    party = PublicKeyCredentialRpEntity(name="Data Fusion Hub", id=urlsplit(settings.url).hostname or "")
    made: Any = Fido2Server(
        party,
        attestation=AttestationConveyancePreference.NONE,
        verify_origin=lambda origin: origin == origin_of(settings),
    )
    made.timeout = TIMEOUT_MS
    return made


def origin_of(settings: Settings) -> str:
    """Of the hub's public URL (RFC 6454), as browsers write it."""
    parts = urlsplit(settings.url)
    default = {"https": 443, "http": 80}.get(parts.scheme)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}" + ("" if parts.port in (None, default) else f":{parts.port}")


def _state(challenge: bytes) -> dict[str, Any]:
    from fido2.utils import websafe_encode
    from fido2.webauthn import UserVerificationRequirement

    return {"challenge": websafe_encode(challenge), "user_verification": UserVerificationRequirement.REQUIRED}


def _in_json(options: Any) -> Options:
    """Plain texts, numbers and lists: the JSON form of the standard."""
    made: Options = _plain(dict(options))
    return made


def _plain(value: Any) -> Any:
    if isinstance(value, bool | int | None):
        return value
    if isinstance(value, str):
        return str.__str__(getattr(value, "value", value))
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return {name: _plain(item) for name, item in dict(value).items() if item is not None}
