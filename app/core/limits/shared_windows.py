"""The sliding window of `windows.py` in Redis, for all processes together: one script for each request, by Redis' own
clock.

A key's value is a list: first the units in all, then a text for each note: when its first and its last request came,
in microseconds, and its units. Redis forgets it one window after the last request.
"""

from collections.abc import Hashable

from app.core.limits.rates import Policy, Standing
from app.core.limits.windows import NOTES
from app.core.redis_link import RedisLink, Script

PREFIX = "hub:limit"

CHARGE = Script(
    """
    local key, quota, window, length, units = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]),
      tonumber(ARGV[4])
    local clock = redis.call('TIME')
    local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
    local function note_at(place)
      local text = redis.call('LINDEX', key, place)
      if not text then return nil end
      local first, last, spent = string.match(text, '^(%d+) (%d+) (%d+)$')
      return tonumber(first), tonumber(last), tonumber(spent)
    end
    local notes = math.max(redis.call('LLEN', key) - 1, 0)
    if notes > 0 then
      local _, latest = note_at(-1)
      if latest - now > window then  -- the clock was set back by more than a window: what is noted says nothing
        redis.call('DEL', key)
        notes = 0
      end
      now = math.max(now, notes > 0 and latest or 0)
    end
    local used = tonumber(redis.call('LINDEX', key, 0) or 0)
    while notes > 0 do
      local _, last, spent = note_at(1)
      if last > now - window then break end
      used = used - spent
      notes = notes - 1
      redis.call('LPOP', key)
      redis.call('LSET', key, 0, used)
    end
    units = math.min(units, quota)
    if used + units > quota then
      local missing, place = used + units - quota, 1
      local _, last, spent = note_at(place)
      while missing > spent do
        missing = missing - spent
        place = place + 1
        _, last, spent = note_at(place)
      end
      return {0, quota - used, last + window - now}
    end
    used = used + units
    local first, last, spent
    if notes > 0 then first, last, spent = note_at(-1) end
    if first and now - first < length then
      redis.call('LSET', key, -1, string.format('%.0f %.0f %.0f', first, now, spent + units))
    else
      if redis.call('EXISTS', key) == 0 then redis.call('RPUSH', key, 0) end
      redis.call('RPUSH', key, string.format('%.0f %.0f %.0f', now, now, units))
    end
    redis.call('LSET', key, 0, used)
    redis.call('PEXPIRE', key, math.ceil(window / 1000))
    local _, oldest = note_at(1)
    return {1, quota - used, oldest + window - now}
    """,
    numbers=3,
)


class SharedWindows:
    def __init__(self, link: RedisLink) -> None:
        self._link = link

    @property
    def is_up(self) -> bool:
        return self._link.is_up

    async def charge(self, policy: Policy, key: Hashable, units: int) -> Standing:
        """As `SlidingWindows.charge`, by the count of all. Raises RedisAway."""
        rate = policy.rate
        window_us = rate.window_s * 1_000_000
        name = f"{PREFIX}:{policy.name}:{rate.window_s}:{key}"
        found = await self._link.call(CHARGE, name, rate.quota, window_us, window_us // NOTES, units)
        is_admitted, remaining, resets_in_us = found
        return Standing(policy, max(0, remaining), resets_in_us / 1_000_000, is_admitted=bool(is_admitted))
