"""Who has how much left: every request that a quota is taken from comes through here.

Without Redis each process counts for itself. With it the shared windows judge, and each process notes what was admitted
through it, so that where Redis is away, and the processes go on by themselves, nobody begins anew.
"""

import hmac
from collections.abc import Hashable
from functools import lru_cache
from hashlib import sha256
from ipaddress import IPv6Address

from msgspec import structs
from prometheus_client import Counter

from app.core.errors import TooManyRequests
from app.core.exchange import Exchange
from app.core.limits.prices import Price
from app.core.limits.rates import Policy, PolicyName, Rate, Standing
from app.core.limits.shared_windows import SharedWindows
from app.core.limits.windows import SlidingWindows
from app.core.redis_link import RedisAway

DIRECTORY_SHARE = 10
"""Of a directory, which brings a whole organisation when it begins: so many times what a principal has."""
MOST_PRINCIPALS = 100_000
MOST_ADDRESSES = 65_536
MOST_ACCOUNTS = 65_536
MOST_RECIPIENTS = 65_536
"""Each at some 400 bytes while it is asked from; 60 notes are another 6 kB."""
NOWHERE = "unknown"
"""The address of all whom a proxy names in a way that is none."""

ONE_TRY = Price(1, "login-account")
ONE_LETTER = Price(1, "recipient")
LETTERS_TO_ONE = Rate(15, 3600)
"""Of one kind, to one address, by one tenant: more than one account brings, so that none of them alone keeps letters
from others."""

_refused = Counter("hub_limits_refused_total", "Requests over a limit, by whose it is.", ("policy",))


class Limits:
    def __init__(self, rate: Rate, login_rate: Rate, *, key: bytes, shared: SharedWindows | None = None) -> None:
        """`key` is for digests of what was typed as somebody's address."""
        policies: tuple[tuple[PolicyName, Rate, int], ...] = (
            ("principal", rate, MOST_PRINCIPALS),
            ("directory", structs.replace(rate, quota=rate.quota * DIRECTORY_SHARE), MOST_PRINCIPALS),
            ("address", rate, MOST_ADDRESSES),
            ("login-address", login_rate, MOST_ADDRESSES),
            ("login-account", login_rate, MOST_ACCOUNTS),
            ("recipient", LETTERS_TO_ONE, MOST_RECIPIENTS),
        )
        self._windows = {name: SlidingWindows(Policy(name, of), most_keys=most) for name, of, most in policies}
        self._key = key
        self._shared = shared

    @property
    def are_shared(self) -> bool:
        """Whether Redis is asked, at this moment."""
        shared = self._shared
        return shared is not None and shared.is_up

    def charge_here(self, exchange: Exchange, price: Price, key: Hashable) -> None:
        """By the count of this process. Raises TooManyRequests."""
        exchange.standing = standing = self._windows[price.policy].charge(key, price.units)
        if not standing.is_admitted:
            raise _refusal(standing)

    async def charge(self, exchange: Exchange, price: Price, key: Hashable) -> None:
        """By the count of all, where it is shared. Raises TooManyRequests."""
        exchange.standing = standing = await self._taken(price, key)
        if not standing.is_admitted:
            raise _refusal(standing)

    async def charge_account(self, exchange: Exchange, tenant: str | None, name: str) -> None:
        """One try at an account, known by `account_key`. What is left of it is shown to nobody who is admitted: it is
        the account's, not the caller's. Raises TooManyRequests."""
        of_caller = exchange.standing
        await self.charge(exchange, ONE_TRY, self.account_key(tenant, name))
        exchange.standing = of_caller

    async def charge_recipient(self, exchange: Exchange | None, tenant: str, kind: str, email_key: str) -> None:
        """One letter of a kind. Who is refused is shown when there is room again; who is not, nothing: it is the
        mailbox's. Raises TooManyRequests."""
        standing = await self._taken(ONE_LETTER, self.account_key(tenant, f"{kind} {email_key}"))
        if not standing.is_admitted:
            if exchange is not None:
                exchange.standing = standing
            raise _refusal(standing)

    async def _taken(self, price: Price, key: Hashable) -> Standing:
        units, policy = price
        here = self._windows[policy]
        if self._shared is None or not self._shared.is_up:
            return here.charge(key, units)
        try:
            standing = await self._shared.charge(here.policy, key, units)
        except RedisAway:
            return here.charge(key, units)
        if standing.is_admitted:
            here.note(key, units)
        return standing

    def account_key(self, tenant: str | None, email_key: str) -> str:
        """Of a login or a mailbox, by what was typed: the count says nothing about who exists, and Redis holds no
        addresses (what was typed as one is at times a password)."""
        return hmac.new(self._key, f"{tenant or ''}\0{email_key}".encode(), sha256).hexdigest()[:32]


def _refusal(standing: Standing) -> TooManyRequests:
    _refused.labels(standing.policy.name).inc()
    return TooManyRequests(code="rate_limited", retry_after_s=standing.retry_after_s)


@lru_cache(4096)
def address_key(address: str | None) -> str:
    """Whose quota a call from there is taken from. Of IPv6 whoever has one address has the 2^64 around it; what carries
    an address of IPv4 is that."""
    if address is None:
        return NOWHERE
    if ":" not in address:
        return address
    try:
        parsed = IPv6Address(address.partition("%")[0])
    except ValueError:
        return NOWHERE
    return str(parsed.ipv4_mapped or f"{int(parsed) >> 64:016x}")
