"""A passkey of a program: what a browser and its authenticator answer (WebAuthn level 3), right or wrong on demand."""

import secrets
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from fido2.cose import ES256
from fido2.utils import websafe_decode, websafe_encode
from fido2.webauthn import Aaguid, AttestationObject, AttestedCredentialData, AuthenticatorData, CollectedClientData

PRESENT_AND_VERIFIED = AuthenticatorData.FLAG.UP | AuthenticatorData.FLAG.UV
PRESENT = AuthenticatorData.FLAG.UP


class Passkey:
    def __init__(self, origin: str, rp_id: str) -> None:
        self.origin, self.rp_id = origin, rp_id
        self.id = secrets.token_bytes(16)
        self.counter = 0
        self.user_handle = b""
        self._key = ec.generate_private_key(ec.SECP256R1())

    def create(self, options: dict[str, Any], **wrong: Any) -> dict[str, Any]:
        """Of `PublicKeyCredentialCreationOptions` in JSON."""
        self.user_handle = websafe_decode(options["user"]["id"])
        public = ES256.from_cryptography_key(self._key.public_key())  # type: ignore[no-untyped-call]
        made = AttestedCredentialData.create(Aaguid(bytes(16)), self.id, public)
        data = self._data(wrong, made)
        client = self._client("webauthn.create", options, wrong)
        attestation = AttestationObject.create("none", data, {})
        return self._answer({"clientDataJSON": client, "attestationObject": attestation})

    def get(self, options: dict[str, Any], **wrong: Any) -> dict[str, Any]:
        """Of `PublicKeyCredentialRequestOptions` in JSON."""
        self.counter += 1
        data, client = self._data(wrong), self._client("webauthn.get", options, wrong)
        signature = self._key.sign(data + client.hash, ec.ECDSA(hashes.SHA256()))
        handle = wrong.get("user_handle", self.user_handle)
        said = {"clientDataJSON": client, "authenticatorData": data, "signature": signature, "userHandle": handle}
        return self._answer({name: value for name, value in said.items() if value is not None})

    def _data(self, wrong: dict[str, Any], made: AttestedCredentialData | None = None) -> AuthenticatorData:
        flags = wrong.get("flags", PRESENT_AND_VERIFIED)
        if made is not None:
            flags |= AuthenticatorData.FLAG.AT
        rp_id = wrong.get("rp_id", self.rp_id)
        counter = wrong.get("counter", self.counter)
        hashed = sha256(rp_id.encode()).digest()
        data: AuthenticatorData = AuthenticatorData.create(hashed, flags, counter, made or b"")
        return data

    def _client(self, kind: str, options: dict[str, Any], wrong: dict[str, Any]) -> CollectedClientData:
        challenge = wrong.get("challenge", options["challenge"])
        kind = wrong.get("type", kind)
        origin = wrong.get("origin", self.origin)
        return CollectedClientData.create(kind, challenge, origin, wrong.get("cross_origin", False))

    def _answer(self, response: dict[str, Any]) -> dict[str, Any]:
        name = websafe_encode(self.id)
        encoded = {key: websafe_encode(bytes(value)) for key, value in response.items()}
        return {"id": name, "rawId": name, "type": "public-key", "response": encoded, "clientExtensionResults": {}}
