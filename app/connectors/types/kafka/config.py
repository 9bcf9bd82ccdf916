"""What a Kafka source is told: its config and its secrets."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from msgspec import Meta

from app.connectors.contract.config import ConnectTimeoutS, InvalidField, Pem, SecretText, TimeoutS
from app.connectors.network.http import check_url
from app.connectors.network.tls_fields import ClientKeySecrets, TlsModeConfig

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
KafkaTlsMode = Literal["require", "verify-ca", "verify-full"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]
HostPort = Annotated[str, Meta(min_length=1, max_length=260)]
TopicPattern = Annotated[str, Meta(min_length=1, max_length=249)]
Word = Annotated[str, Meta(min_length=1, max_length=256)]

DEFAULT_PORT: Final = 9092


def host_and_port(place: str) -> tuple[str, int] | None:
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:/@\[\]]+))(?::([0-9]{1,5}))?", place)
    port = int(found[3] or DEFAULT_PORT) if found else 0
    return (found[1] or found[2], port) if found and 1 <= port <= 65_535 else None


class KafkaConfig(TlsModeConfig, frozen=True, kw_only=True):
    tls_needs = "the security_protocol SSL or SASL_SSL"

    bootstrap_servers: Annotated[
        tuple[HostPort, ...],
        Meta(
            min_length=1,
            max_length=20,
            description="Brokers to ask first, as host:port; without a port, 9092. All are tried at once.",
            examples=[["kafka-1.example.org:9092"]],
        ),
    ]
    security_protocol: Annotated[
        SecurityProtocol,
        Meta(description="What the listener speaks, by Kafka's names: TLS or not, SASL or not.", examples=["SASL_SSL"]),
    ] = "PLAINTEXT"
    tls_mode: Annotated[
        KafkaTlsMode,
        Meta(
            description="For SSL and SASL_SSL: `require` checks no certificate, `verify-ca` its signature, "
            "`verify-full` the host name as well, for every broker by the name that it is advertised under."
        ),
    ] = "verify-full"
    sasl_mechanism: Annotated[SaslMechanism | None, Meta(description="For SASL_PLAINTEXT and SASL_SSL.")] = None
    username: Annotated[Word | None, Meta(description="For PLAIN and SCRAM.", examples=["reader"])] = None
    token_url: Annotated[
        Annotated[str, Meta(min_length=1, max_length=2048)] | None,
        Meta(description="For OAUTHBEARER by client credentials: where tokens are given out."),
    ] = None
    token_ca_certificate: Annotated[
        Pem | None, Meta(description="CA of the token server, to trust instead of the system's.")
    ] = None
    client_id: Annotated[Word | None, Meta(description="For OAUTHBEARER by client credentials.")] = None
    scope: Annotated[
        Annotated[str, Meta(max_length=1024)] | None, Meta(description="For OAUTHBEARER by client credentials.")
    ] = None
    include_topics: Annotated[
        tuple[TopicPattern, ...],
        Meta(max_length=200, description="Topics to show; `*` stands for any characters. Empty: all."),
    ] = ()
    exclude_topics: Annotated[
        tuple[TopicPattern, ...], Meta(max_length=200, description="Topics to leave out; wins over the included.")
    ] = ()
    sample_messages: Annotated[
        int,
        Meta(
            ge=0,
            le=100,
            description="Newest messages of each topic that are read to learn what keys and values hold. 0: none.",
        ),
    ] = 10
    connect_timeout_s: ConnectTimeoutS = 5.0
    read_timeout_s: Annotated[TimeoutS, Meta(description="Seconds for each answer of a broker.")] = 8.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for place in self.bootstrap_servers:
            if host_and_port(place) is None:
                raise InvalidField(("bootstrap_servers",), "A bootstrap server is written as host:port.")
        self._check_sasl()

    def _check_sasl(self) -> None:
        if self.signs_in != (self.sasl_mechanism is not None):
            raise InvalidField(("sasl_mechanism",), "A sasl_mechanism and a SASL security_protocol need each other.")
        if self.signs_in and self.sasl_mechanism != "OAUTHBEARER" and self.username is None:
            raise InvalidField(("username",), f"username is needed for {self.sasl_mechanism}.")
        if self.token_url is not None:
            check_url("token_url", self.token_url)
            if self.client_id is None:
                raise InvalidField(("client_id",), "client_id is needed for token_url.")

    @property
    def requires_tls(self) -> bool:
        return self.security_protocol in {"SSL", "SASL_SSL"}

    @property
    def signs_in(self) -> bool:
        return self.security_protocol in {"SASL_PLAINTEXT", "SASL_SSL"}


class KafkaSecrets(ClientKeySecrets, frozen=True, kw_only=True):
    password: Annotated[SecretText | None, Meta(description="For PLAIN and SCRAM.")] = None
    token: Annotated[SecretText | None, Meta(description="For OAUTHBEARER without a token_url.")] = None
    client_secret: Annotated[SecretText | None, Meta(description="For OAUTHBEARER by client credentials.")] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all("\x21" <= character <= "\x7e" for character in self.token or ""):
            raise InvalidField(("token",), "token holds a character that no bearer token has.")
