"""One request and its answer, as every layer sees them: created by the frame, found again by `Exchange.of(scope)`."""

import itertools
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address
from time import perf_counter
from typing import TYPE_CHECKING, Any

from app.core.deadlines import Deadline
from app.core.errors import BadRequest, HubError, Unauthenticated
from app.core.log_context import LogContext

if TYPE_CHECKING:
    from app.core.limits.rates import Standing
    from app.core.security import Principal

_PREFIX: str
_COUNT: Iterator[int]
"""Request ids are unique, not secret: a random prefix for each process and a counter cost a tenth of a UUID."""


def _begin_request_ids() -> None:
    global _PREFIX, _COUNT
    _PREFIX, _COUNT = secrets.token_hex(8), itertools.count(secrets.randbits(40))


_begin_request_ids()
os.register_at_fork(after_in_child=_begin_request_ids)

SANE_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
Networks = tuple[IPv4Network | IPv6Network, ...]

JSON = "application/json"
MSGPACK = "application/msgpack"
MSGPACK_NAMES = ("application/msgpack", "application/x-msgpack", "application/vnd.msgpack")
SINGLE = frozenset((b"authorization", b"content-type", b"content-length", b"host", b"idempotency-key", b"if-match"))
"""Headers that may come once only: two values would let two readers see two requests."""
UNKNOWN_LENGTH = 1 << 60


class Exchange:
    __slots__ = (
        "at_end",
        "credential",
        "deadline",
        "ended_by",
        "headers",
        "method",
        "principal",
        "repeated",
        "request_id",
        "scope",
        "signed",
        "standing",
        "started",
        "status",
        "unread",
    )

    def __init__(self, scope: Mapping[str, Any]) -> None:
        self.scope = scope
        self.method: str = scope["method"]
        self.started = perf_counter()
        self.status = 0
        self.principal: Principal | None = None
        self.signed: Any = None  # what is in memory of the principal (app.domain.auth.principals.Signed)
        self.credential: Any = None  # what they came with (app.domain.auth.principals.Credential)
        self.standing: Standing | None = None  # of the quota that it was taken from; None where it was taken from none
        self.deadline: Deadline | None = None
        self.ended_by: HubError | None = None
        self.at_end: Callable[[], None] | None = None
        # `unread`: bytes of the body that nobody has read
        pairs = scope["headers"]
        self.headers: dict[bytes, bytes] = dict(pairs)
        self.repeated = _repeated(pairs) if len(self.headers) != len(pairs) else None
        has_body = b"content-length" in self.headers or b"transfer-encoding" in self.headers
        self.unread = unread_bytes(self.headers) if has_body else 0
        given = self.headers.get(b"x-request-id")
        self.request_id = (
            given.decode() if given and SANE_REQUEST_ID.fullmatch(given) else f"{_PREFIX}{next(_COUNT):012x}"
        )

    @property
    def base_path(self) -> str:
        """The path under which clients find the hub: empty, or such as `/hub`. Paths in answers begin with it."""
        base: str = self.scope.get("root_path", "")
        return base

    @staticmethod
    def of(scope: Mapping[str, Any]) -> "Exchange":
        exchange: Exchange = scope["hub.exchange"]
        return exchange

    def log_context(self) -> LogContext:
        principal = self.principal
        if principal is None:
            return LogContext(self.request_id)
        key_id = None if principal.key is None else principal.key.id
        return LogContext(self.request_id, principal.tenant_id, principal.id, key_id)

    def header(self, name: bytes) -> str | None:
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    @property
    def host_name(self) -> str:
        """What the client calls this server: in small letters, without port and trailing dot."""
        host = (self.header(b"host") or "").lower()
        before, _, port = host.rpartition(":")
        return (before if port.isascii() and port.isdigit() else host).removesuffix(".")

    @property
    def wants_msgpack(self) -> bool:
        """Whether the client asked for MessagePack by name; JSON is the answer to everything else.

        Of the two, which are forms of the same, the first is meant where they weigh alike: a client that has its list
        from the OpenAPI document names JSON first, and may not know what to do with the other.
        """
        accept = self.headers.get(b"accept")
        if accept is None or b"msgpack" not in accept.lower():
            return False
        weights = _weights(accept.decode("latin-1"))
        best = max(weights, key=lambda name: weights[name] if name in (JSON, *MSGPACK_NAMES) else -1.0)
        return best in MSGPACK_NAMES and weights[best] > 0

    def accepts(self, media_type: str) -> bool:
        """Whether `Accept` names this media type itself (not by a wildcard), and JSON not before it."""
        return _prefers(self.header(b"accept") or "", (media_type,))

    def client_address(self, trusted: Networks) -> str | None:
        """The peer's address; behind trusted proxies the last address in X-Forwarded-For that is not one of them."""
        client = self.scope.get("client")
        address: str | None = client[0] if client else None
        forwarded = self.headers.get(b"x-forwarded-for")
        if not trusted or forwarded is None or not _is_within(address, trusted):
            return address
        for hop in reversed(forwarded.decode("latin-1").split(",")):
            address = hop.strip()
            if not _is_within(address, trusted):
                break
        return address if _is_address(address) else None

    def run_without_deadline(self, *, at_end: Callable[[], None]) -> None:
        """For streams that are meant to stay open; `at_end` is called when this one is over, however that comes."""
        if self.deadline is not None:
            self.deadline.lift()
        self.at_end = at_end

    def end(self, by: HubError) -> None:
        """In whatever it is in the middle of: this is the answer. What has begun to answer breaks off."""
        self.ended_by = by
        if self.deadline is not None:
            self.deadline.expire()


def unread_bytes(headers: Mapping[bytes, bytes]) -> int:
    """How many bytes the body of a request has that has one; more than anybody reads where its head does not say."""
    length = headers.get(b"content-length")
    if length is not None:
        return int(length) if length.isdigit() and len(length) < 18 else UNKNOWN_LENGTH
    return UNKNOWN_LENGTH


def _repeated(pairs: list[tuple[bytes, bytes]]) -> bytes | None:
    seen: set[bytes] = set()
    for name, _ in pairs:
        if name in seen and name in SINGLE:
            return name
        seen.add(name)
    return None


def _prefers(accept: str, names: tuple[str, ...]) -> bool:
    """By the weights of RFC 9110 section 12.5.1; of two that weigh alike the special one is meant."""
    weights = _weights(accept)
    wanted = max(weights.get(name, 0.0) for name in names)
    return wanted > 0 and wanted >= weights.get(JSON, 0.0)


def _weights(accept: str) -> dict[str, float]:
    return dict(map(_weighed, accept.split(",")))


def _weighed(part: str) -> tuple[str, float]:
    name, *parameters = (text.strip().lower() for text in part.split(";"))
    weight = next((text.removeprefix("q=") for text in parameters if text.startswith("q=")), "1")
    try:
        return name, float(weight)
    except ValueError:
        return name, 0.0


def _is_within(address: str | None, networks: Networks) -> bool:
    return address is not None and _is_address(address) and any(ip_address(address) in network for network in networks)


def _is_address(text: str | None) -> bool:
    try:
        ip_address(text or "")
    except ValueError:
        return False
    return "%" not in (text or "")  # Python takes anything at all behind it as a scope


def refuse_repeated(exchange: Exchange) -> None:
    """Raises BadRequest where a header that decides something was sent twice, Unauthenticated for `Authorization`."""
    if exchange.repeated == b"authorization":
        raise Unauthenticated(code="repeated_header")
    if exchange.repeated is not None:
        raise BadRequest(f"The header `{exchange.repeated.decode('latin-1')}` was sent twice.", code="repeated_header")
