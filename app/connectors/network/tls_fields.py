"""What a source says of TLS: the fields, the rules between them, and the context that they make.

Servers that have TLS beside plain connections take a `tls_mode` (`TlsModeConfig`); those at a URL say by its scheme
whether there is TLS, and `verify_tls` whether the certificate is checked (`TlsConfig`).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal

from msgspec import Meta

from app.connectors.contract.config import ConnectorConfig, ConnectorSecrets, InvalidField, Pem, SecretText
from app.connectors.network.tls import NamedContext, tls_context

ClientCertificate = Annotated[Pem | None, Meta(description="Certificate to show; its key is the secret `client_key`.")]
TlsMode = Literal["disable", "prefer", "require", "verify-ca", "verify-full"]

_UNSURE: Final = frozenset({"disable", "prefer"})
_CHECKED: Final = frozenset({"verify-ca", "verify-full"})


class ClientKeySecrets(ConnectorSecrets, frozen=True, kw_only=True):
    """Beside the `client_certificate` of a config."""

    client_key: Annotated[SecretText | None, Meta(description="Private key in PEM form.")] = None
    client_key_passphrase: Annotated[SecretText | None, Meta(description="Passphrase of the private key.")] = None


class TlsModeConfig(ConnectorConfig, frozen=True, kw_only=True):
    """A type may narrow `tls_mode`, choose another default, and describe all three in its own words."""

    tls_needs: ClassVar[str] = "a tls_mode that requires TLS"
    """What a client certificate is refused without."""

    tls_mode: Annotated[
        TlsMode,
        Meta(
            description="`prefer` uses TLS where the server offers it and `require` always; neither checks the "
            "certificate. `verify-ca` checks who signed it, `verify-full` the host name as well."
        ),
    ] = "prefer"
    ca_certificate: Annotated[
        Pem | None, Meta(description="CA to trust instead of the system's, for `verify-ca` and `verify-full`.")
    ] = None
    client_certificate: ClientCertificate = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ca_certificate is not None and self.tls_mode not in _CHECKED:
            raise InvalidField(("ca_certificate",), "ca_certificate needs tls_mode verify-ca or verify-full.")
        for name in ("ca_certificate", "client_certificate"):
            if getattr(self, name) is not None and not self.requires_tls:
                raise InvalidField((name,), f"{name} needs {self.tls_needs}.")

    @property
    def requires_tls(self) -> bool:
        """Whether nothing, a secret least of all, goes over a connection that is not encrypted."""
        return self.tls_mode not in _UNSURE

    def tls_context(self, server_name: str, secrets: ClientKeySecrets) -> NamedContext:
        """Raises `ConnectorError`, see `network.tls`."""
        return tls_context(
            server_name,
            verify_certificate=self.tls_mode in _CHECKED,
            verify_name=self.tls_mode == "verify-full",
            ca_certificate=self.ca_certificate,
            client_certificate=self.client_certificate,
            client_key=secrets.client_key,
            client_key_passphrase=secrets.client_key_passphrase,
        )


class TlsConfig(ConnectorConfig, frozen=True, kw_only=True):
    verify_tls: Annotated[bool, Meta(description="Whether the server's certificate is checked.")] = True
    ca_certificate: Annotated[Pem | None, Meta(description="CA to trust instead of the system's.")] = None


def refuse_half_an_identity(client_certificate: str | None, secrets: ClientKeySecrets) -> None:
    """Raises `InvalidField` for a certificate without its key, or a key without its certificate."""
    if (client_certificate is None) != (secrets.client_key is None):
        raise InvalidField(("secrets", "client_key"), "client_certificate and client_key are given together.")
