"""The one list of codes with which connector work ends, and what each asks of the reader.

    ConnectorError                 a step, a discovery or a preview cannot go on
    └── (no subclasses: the code tells them apart)

A message is always written here or in a connector, from the source's own configuration; it never quotes a driver or a
server, because their texts may repeat a password, a DSN or a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Literal

import msgspec

Fault = Literal["none", "configuration", "network", "server", "hub"]
"""Who has to act: the one who filled in the source, the network between, the server asked, or this hub."""

Code = Literal[
    "ok",
    "not_applicable",
    "not_reached",
    "name_not_resolved",
    "egress_refused",
    "own_database",
    "connection_refused",
    "connect_timeout",
    "host_unreachable",
    "proxy_unreachable",
    "proxy_timeout",
    "proxy_authentication_failed",
    "proxy_refused",
    "proxy_invalid",
    "connection_lost",
    "protocol_mismatch",
    "tls_unavailable",
    "tls_required",
    "tls_certificate_invalid",
    "tls_failed",
    "authentication_failed",
    "permission_denied",
    "not_found",
    "rate_limited",
    "server_error",
    "response_invalid",
    "response_too_large",
    "timeout",
    "invalid_configuration",
    "driver_missing",
    "unsupported",
    "crashed",
    "out_of_memory",
]


class Explanation(msgspec.Struct, frozen=True):
    """What a code means for the reader."""

    fault: Fault
    can_retry: bool
    """Whether the same call may pass later with nothing changed in the source."""
    advice: str
    """One sentence that says what to do."""


EXPLANATIONS: Final[dict[Code, Explanation]] = {
    "ok": Explanation("none", False, "Nothing to do."),
    "not_applicable": Explanation("none", False, "This step does not apply to this source."),
    "not_reached": Explanation("none", False, "Mend the failed step before this one, then test again."),
    "name_not_resolved": Explanation("configuration", True, "Check the spelling of the host and the hub's DNS."),
    "egress_refused": Explanation(
        "configuration",
        False,
        "Ask the operator to allow it if it may be reached: addresses by HUB_EGRESS_ALLOW, files by HUB_FILES_ROOT.",
    ),
    "own_database": Explanation(
        "configuration", False, "Name another one: it holds the hub's users, sessions and sealed secrets."
    ),
    "connection_refused": Explanation("network", True, "Check the port, and that the server is running."),
    "connect_timeout": Explanation("network", True, "Check the address and the firewalls between hub and server."),
    "host_unreachable": Explanation("network", True, "Check the route from the hub to the server."),
    "proxy_unreachable": Explanation(
        "network", True, "Ask the operator to see whether the proxy of HUB_EGRESS_PROXY is running and can be reached."
    ),
    "proxy_timeout": Explanation(
        "network", True, "Test again; if it stays so, ask the operator what keeps the hub's proxy, or the server busy."
    ),
    "proxy_authentication_failed": Explanation(
        "hub", False, "Ask the operator to correct user and password in HUB_EGRESS_PROXY."
    ),
    "proxy_refused": Explanation(
        "network",
        False,
        "Ask whoever runs the proxy to allow CONNECT to this host and port, or the operator to name the host in "
        "HUB_EGRESS_DIRECT if the hub may go there without the proxy.",
    ),
    "proxy_invalid": Explanation("hub", False, "Ask the operator to name an HTTP proxy in HUB_EGRESS_PROXY."),
    "connection_lost": Explanation("server", True, "The server hung up; look into its log, then test again."),
    "protocol_mismatch": Explanation(
        "configuration", False, "Check host and port, or the path: something of another kind is there."
    ),
    "tls_unavailable": Explanation("server", False, "Turn TLS on at the server, or choose a TLS mode without it."),
    "tls_required": Explanation("configuration", False, "The server asks for TLS: choose a TLS mode that uses it."),
    "tls_certificate_invalid": Explanation(
        "configuration", False, "Give the CA that signed the server's certificate, and the host name it is made for."
    ),
    "tls_failed": Explanation("server", False, "Check the TLS versions, the ciphers and the client certificate."),
    "authentication_failed": Explanation("configuration", False, "Check the user and the secret."),
    "permission_denied": Explanation("configuration", False, "Grant the user the right to read what is asked for."),
    "not_found": Explanation("configuration", False, "Check the name: the server does not have it."),
    "rate_limited": Explanation("server", True, "The server asks for patience; try again later."),
    "server_error": Explanation("server", True, "Look into the server's log, then try again."),
    "response_invalid": Explanation("server", False, "The server answered with something that cannot be read as data."),
    "response_too_large": Explanation("server", False, "Ask for less: fewer columns, or a narrower path."),
    "timeout": Explanation("server", True, "The server was too slow; see what keeps it busy, then try again."),
    "invalid_configuration": Explanation("configuration", False, "Correct the named setting."),
    "driver_missing": Explanation("hub", False, "Ask the operator to install the driver named in the message."),
    "unsupported": Explanation("hub", False, "This type of source cannot do that."),
    "crashed": Explanation("hub", True, "The connector stopped; the operator finds the reason in the hub's log."),
    "out_of_memory": Explanation(
        "hub", False, "Ask for less at once, or let the operator raise the connector's memory."
    ),
}


NOTHING_GIVEN: Final = "{host} did not let {user} sign in; no password is given."
"""Nothing that was given is wrong: what is to be done is to give one."""


@contextmanager
def reading(kind: str) -> Iterator[None]:
    """Around the reading of rows of an object of this kind: of a view that is there, what is gone lies behind it."""
    try:
        yield
    except ConnectorError as error:
        if error.code != "not_found" or "view" not in kind:
            raise
        message = "The view cannot be read: what it is made of is not there any more, or the user may not see it."
        raise ConnectorError("not_found", message) from error


class ConnectorError(Exception):
    """Why connector work ended, fit to be shown to any user who may see the source."""

    def __init__(
        self, code: Code, message: str, *, unknown_columns: Sequence[str] = (), retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.code: Code = code
        self.message = message
        self.unknown_columns = tuple(unknown_columns)
        """Names that a preview was asked for and its object does not have."""
        self.retry_after_s = retry_after_s
        """How long the server asks to be left alone, if it does."""

    @property
    def fault(self) -> Fault:
        return EXPLANATIONS[self.code].fault

    @property
    def can_retry(self) -> bool:
        return EXPLANATIONS[self.code].can_retry

    @property
    def advice(self) -> str:
        return EXPLANATIONS[self.code].advice
