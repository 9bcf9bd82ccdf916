"""What a RabbitMQ source is told: its config and its secrets."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from app.connectors.contract.config import AnswerTimeoutS, ConnectTimeoutS, Host, InvalidField, Pem, Port, SecretText
from app.connectors.network.http import check_url
from app.connectors.network.tls_fields import ClientKeySecrets, TlsModeConfig

AmqpTlsMode = Literal["disable", "require", "verify-ca", "verify-full"]
AuthMechanism = Literal["PLAIN", "AMQPLAIN", "EXTERNAL"]
NamePattern = Annotated[str, Meta(min_length=1, max_length=255)]


class RabbitmqConfig(TlsModeConfig, frozen=True, kw_only=True):
    host: Host
    port: Annotated[Port, Meta(description="TCP port of AMQP: usually 5672, with TLS 5671.")] = 5672
    virtual_host: Annotated[str, Meta(min_length=1, max_length=255, description="Name of the virtual host.")] = "/"
    username: Annotated[str, Meta(min_length=1, max_length=255, description="User to sign in as.", examples=["reader"])]
    auth_mechanism: Annotated[
        AuthMechanism,
        Meta(description="How AMQP signs in. `EXTERNAL` does by client certificate; the management API never does."),
    ] = "PLAIN"
    tls_mode: Annotated[
        AmqpTlsMode,
        Meta(
            description="Whether AMQP goes over TLS: `require` checks no certificate, `verify-ca` its signature, "
            "`verify-full` the host name as well."
        ),
    ] = "disable"
    management_url: Annotated[
        Annotated[str, Meta(min_length=1, max_length=2048)] | None,
        Meta(
            description="Where the management API is. Unset: the same host, by http on port 15672, or where AMQP goes "
            "over TLS by https on port 15671.",
            examples=["https://rabbitmq.example.org:15671"],
        ),
    ] = None
    management_verify_tls: Annotated[
        bool, Meta(description="Whether the certificate of the management API is checked.")
    ] = True
    management_ca_certificate: Annotated[
        Pem | None, Meta(description="CA to trust instead of the system's, for the management API.")
    ] = None
    include_names: Annotated[
        tuple[NamePattern, ...],
        Meta(max_length=200, description="Queues and exchanges to show; `*` stands for any characters. Empty: all."),
    ] = ()
    exclude_names: Annotated[
        tuple[NamePattern, ...],
        Meta(max_length=200, description="Queues and exchanges to leave out; wins over the included."),
    ] = ()
    sample_messages: Annotated[
        int,
        Meta(
            ge=0, le=100, description="Newest messages of each stream that are read to learn what they hold. 0: none."
        ),
    ] = 10
    connect_timeout_s: ConnectTimeoutS = 5.0
    read_timeout_s: AnswerTimeoutS = 8.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.auth_mechanism == "EXTERNAL" and self.client_certificate is None:
            raise InvalidField(("client_certificate",), "client_certificate is needed for auth_mechanism EXTERNAL.")
        check_url("management_url", self.management)

    @property
    def management(self) -> str:
        """Base URL of the management API, without a slash at its end."""
        if self.management_url is not None:
            return self.management_url.rstrip("/")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:15672" if self.tls_mode == "disable" else f"https://{host}:15671"


class RabbitmqSecrets(ClientKeySecrets, frozen=True, kw_only=True):
    password: Annotated[SecretText | None, Meta(description="Of the user, for AMQP and the management API.")] = None
