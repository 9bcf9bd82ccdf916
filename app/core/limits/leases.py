"""Places that all processes share, such as a tenant's connector runs: in Redis, for as long as whoever has one says so.

A place is a lease of some seconds, renewed again and again. A process that is killed renews nothing, and its places are
free when their leases end. While Redis is away there is a place for everybody, and what else limits them, in each
process, goes on to do so; what began meanwhile counts again when Redis is back.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Final
from uuid import uuid4

from app.core.redis_link import RedisAway, RedisLink, Script

LEASE_S: Final = 15.0
RENEW_S: Final = 4.0

_NOW = """
    local clock = redis.call('TIME')
    local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
"""
TAKE = Script(
    _NOW
    + """
    redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
    if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[1]) then return {0} end
    redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[3])
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
    return {1}
    """,
    numbers=1,
)
RENEW = Script(
    _NOW
    + """
    for place = 2, #ARGV do redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[1]), ARGV[place]) end
    redis.call('PEXPIRE', KEYS[1], ARGV[1])
    return {1}
    """,
    numbers=1,
)
GIVE_BACK = Script("redis.call('ZREM', KEYS[1], ARGV[1]) return {1}", numbers=1)


class Leases:
    def __init__(self, link: RedisLink, kind: str, *, lease_s: float = LEASE_S, renew_s: float = RENEW_S) -> None:
        self._link = link
        self._kind = kind
        self._lease_ms = round(lease_s * 1000)
        self._renew_s = renew_s
        self._held: defaultdict[str, set[str]] = defaultdict(set)
        """By whose places they are."""
        self._renewing: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def place(self, owner: str, most: int) -> AsyncIterator[bool]:
        """One of the owner's, of which there are at most so many; False where all are taken."""
        lease = uuid4().hex
        if not await self._take(owner, lease, most):
            yield False
            return
        self._held[owner].add(lease)
        self._renew_from_now_on()
        try:
            yield True
        finally:
            self._held[owner].discard(lease)
            if not self._held[owner]:
                del self._held[owner]
            await asyncio.shield(self._give_back(owner, lease))

    async def stop(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)

    async def _take(self, owner: str, lease: str, most: int) -> bool:
        try:
            (is_taken,) = await self._link.call(TAKE, self._key(owner), most, self._lease_ms, lease)
        except RedisAway:
            return True
        return bool(is_taken)

    async def _give_back(self, owner: str, lease: str) -> None:
        with contextlib.suppress(RedisAway):
            await self._link.call(GIVE_BACK, self._key(owner), lease)

    def _renew_from_now_on(self) -> None:
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._renew_while_held(), name=f"leases of {self._kind}")

    async def _renew_while_held(self) -> None:
        while self._held:
            await asyncio.sleep(self._renew_s)
            for owner, leases in [(owner, list(leases)) for owner, leases in self._held.items()]:
                await self._renew(owner, leases)

    async def _renew(self, owner: str, leases: list[str]) -> None:
        with contextlib.suppress(RedisAway):
            await self._link.call(RENEW, self._key(owner), self._lease_ms, *leases)
        for lease in leases:
            if lease not in self._held.get(owner, ()):  # given back meanwhile, and perhaps renewed after that
                await self._give_back(owner, lease)

    def _key(self, owner: str) -> str:
        return f"hub:lease:{self._kind}:{owner}"
