"""The sliding window in this process: what each key has used within the last so many seconds.

A window that ends now never holds more than the quota, wherever it begins. What a request used comes back exactly one
window later; requests that come within a sixtieth of a window after one another share a note, and come back together
with the last of them. So a key costs no more than some sixty notes, and a request the same however many there were.
"""

from collections.abc import Callable
from time import monotonic

from app.core.limits.rates import Policy, Standing

NOTES = 60
"""Of one window."""
Usage = list[float]
"""The units in all, and then by three: when the first and the last request of a note came, and its units. There is one
note at least, be it of none."""


class SlidingWindows:
    """One policy's usage, by key.

    At most `most_keys` are remembered, in two ages: a key that is used is a young one. When half of them are young, or
    a window has passed, the young become the old, and those that were old, and were not used since, are forgotten.
    Whoever wants to be forgotten early has to come as so many others in between, who have quotas of their own.
    """

    def __init__(self, policy: Policy, *, most_keys: int, clock: Callable[[], float] = monotonic) -> None:
        self.policy = policy
        self._quota = policy.rate.quota
        self._window_s = policy.rate.window_s
        self._note_s = policy.rate.window_s / NOTES
        self._most_young = most_keys // 2
        self._clock = clock
        self._young: dict[object, Usage] = {}
        self._old: dict[object, Usage] = {}
        self._aged_at = clock()

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def charge(self, key: object, units: int) -> Standing:
        """Take the units, unless that would be too many: then nothing is taken."""
        now = self._clock()
        usage = self._young.get(key) or self._remembered(key, now)
        if usage[2] <= now - self._window_s:
            self._drop_past(usage, now)
        used = usage[0] + units
        if used > self._quota:
            used = usage[0] + min(units, self._quota)  # what costs more than the whole quota takes all of it
            if used > self._quota:
                return self._refusal(usage, used, now)
        self._note(usage, used, now)
        return Standing(self.policy, int(self._quota - used), usage[2] - now + self._window_s)

    def note(self, key: object, units: int) -> None:
        """Take the units, whatever is left: somebody else has judged."""
        now = self._clock()
        usage = self._young.get(key) or self._remembered(key, now)
        if usage[2] <= now - self._window_s:
            self._drop_past(usage, now)
        self._note(usage, usage[0] + units, now)

    def _note(self, usage: Usage, used: float, now: float) -> None:
        units = used - usage[0]
        usage[0] = used
        if now - usage[-3] < self._note_s:
            usage[-2] = now
            usage[-1] += units
        else:
            usage += (now, now, units)

    def _drop_past(self, usage: Usage, now: float) -> None:
        """What a window has passed over."""
        since = now - self._window_s
        while len(usage) > 1 and usage[2] <= since:
            usage[0] -= usage[3]
            del usage[1:4]
        if len(usage) == 1:
            usage += (now, now, 0)

    def _refusal(self, usage: Usage, used: float, now: float) -> Standing:
        missing, at = used - self._quota, 1
        while missing > usage[at + 2]:
            missing -= usage[at + 2]
            at += 3
        wait_s = usage[at + 1] - now + self._window_s
        return Standing(self.policy, max(0, int(self._quota - usage[0])), wait_s, is_admitted=False)

    def _remembered(self, key: object, now: float) -> Usage:
        """A key that is not among the young ones, which it joins."""
        if len(self._young) >= self._most_young or now - self._aged_at >= self._window_s:
            self._old, self._young, self._aged_at = self._young, {}, now
        usage = self._young[key] = self._old.pop(key, [0, now, now, 0])
        return usage
