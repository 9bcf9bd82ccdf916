"""Passwords: argon2id at argon2-cffi's defaults, off the event loop, in a small bounded pool; and which are refused.

The rules follow NIST SP 800-63B section 5.1.1.2: length counts, composition does not, common and personal ones are
refused.
"""

import asyncio
import os
import sys
import threading
import unicodedata
from base64 import b64encode
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from math import ceil
from time import perf_counter
from typing import TypeVar

from argon2 import PasswordHasher as Argon2
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.low_level import ARGON2_VERSION

from app.core.deadlines import Deadlines
from app.core.errors import TooManyRequests

T = TypeVar("T")

LONGEST_WAIT_S = 5.0
"""For a place in the pool; a sign-in that took longer would be tried again by its user, and make the queue longer."""
FIRST_ESTIMATE_S = 0.1
WEIGHT_OF_LATEST = 0.2
"""Of the latest call in the estimate of the next one's time."""
MAX_LENGTH = 1024
GUESSABLE_BELOW = 10**9
"""zxcvbn's estimate of guesses; less falls within hours even to throttled online guessing by a botnet."""
SERVICE_NAMES = ("Data Fusion Hub", "DataFusionHub")
"""What a guesser tries first at this service's door (NIST SP 800-63B section 5.1.1.2: context-specific words)."""
ESTIMATED_PREFIX = 40
"""Characters that the estimator sees: its work grows with the square of the length."""
LOOKALIKES = str.maketrans("@({[<!|$+%", "accccilstx")
MAX_LOOKALIKES = 3
"""Different look-alike symbols that the estimator sees: its work grows with the ways to read them, to seconds for a
dozen.
"""


class PasswordHasher:
    """Hashes and verifies in `workers` threads (argon2 releases the GIL; each call takes 64 MiB for its time).

    The threads run at a lower priority, so that a flood of logins leaves the event loop its share of the processor.
    Nobody waits longer than `longest_wait_s` for a thread. Who would, as long as the latest calls took, is refused at
    once with TooManyRequests; who was expected to wait less is refused when the time is over.
    """

    def __init__(
        self, workers: int = 2, *, longest_wait_s: float = LONGEST_WAIT_S, argon2: Argon2 | None = None
    ) -> None:
        """`argon2` has the cost of a hash; another one than the library's is for tests of other things."""
        self._argon2 = argon2 or Argon2()
        self._pool = ThreadPoolExecutor(workers, "argon2", initializer=_lower_priority)
        self._workers = workers
        self._threads = asyncio.Semaphore(workers)
        self._longest_wait_s = longest_wait_s
        self._waits = Deadlines(longest_wait_s)
        self._under_way = 0
        self._usual_s = FIRST_ESTIMATE_S
        self._decoy = _decoy(self._argon2)

    @property
    def waiting(self) -> int:
        """Calls that no thread works on yet."""
        return max(self._under_way - self._workers, 0)

    @property
    def expected_wait_s(self) -> float:
        """Of one more call, until it has a thread."""
        return max(self._under_way - self._workers + 1, 0) * self._usual_s / self._workers

    async def hash(self, password: str) -> str:
        return await self._run(self._argon2.hash, _canonical(password))

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """Whether the password fits. Without a hash it costs the same time and is False: absence must not show."""
        fits = await self._run(self._fits, password_hash or self._decoy, _canonical(password))
        return fits and password_hash is not None

    def needs_rehash(self, password_hash: str) -> bool:
        return self._argon2.check_needs_rehash(password_hash)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _fits(self, password_hash: str, password: str) -> bool:
        try:
            return self._argon2.verify(password_hash, password)
        except (VerificationError, InvalidHashError):
            return False

    async def _run(self, call: Callable[..., T], *args: str) -> T:
        if self.expected_wait_s > self._longest_wait_s:
            raise _busy(self.expected_wait_s)
        self._under_way += 1
        try:
            await self._wait_for_thread()
            try:
                took_s, result = await asyncio.get_running_loop().run_in_executor(self._pool, _timed, call, *args)
            finally:
                self._threads.release()
        finally:
            self._under_way -= 1
        self._usual_s += (took_s - self._usual_s) * WEIGHT_OF_LATEST
        return result

    async def _wait_for_thread(self) -> None:
        try:
            with self._waits.start():
                await self._threads.acquire()
        except TimeoutError:
            raise _busy(self.expected_wait_s) from None


def _timed(call: Callable[..., T], *args: str) -> tuple[float, T]:
    """With the seconds that it took."""
    began = perf_counter()
    result = call(*args)
    return perf_counter() - began, result


def _busy(wait_s: float) -> TooManyRequests:
    return TooManyRequests(code="login_busy", retry_after_s=max(1, ceil(wait_s)))


def _decoy(argon2: Argon2) -> str:
    """What a hash under these parameters looks like, and no password fits: made without the work of a real one."""
    salt, tag = (b64encode(os.urandom(length)).decode().rstrip("=") for length in (argon2.salt_len, argon2.hash_len))
    cost = f"m={argon2.memory_cost},t={argon2.time_cost},p={argon2.parallelism}"
    return f"$argon2id$v={ARGON2_VERSION}${cost}${salt}${tag}"


def refusal(password: str, *, min_length: int, personal: Iterable[str] = ()) -> str | None:
    """Why a new password is refused, as a sentence, or None. Takes a few milliseconds: call it off the event loop."""
    password = _canonical(password)
    if len(password) < min_length:
        return f"Use at least {min_length} characters; any will do, a sentence is fine."
    if len(password) > MAX_LENGTH:
        return f"Use at most {MAX_LENGTH:,} characters."
    own = [part for text in personal for part in _parts(text)]
    named = [part for text in SERVICE_NAMES for part in _parts(text)]
    plain = unicodedata.normalize("NFKC", password)  # full-width letters make a common password no better
    if _is_made_of(plain.casefold(), own):
        return "Do not build the password from your own name or email address."
    if _is_made_of(plain.casefold(), named):
        return "Do not build the password from the name of this service."
    if any(_is_guessable(text, own + named) for text in _readings(plain)):
        return "This password is common or follows a well-known pattern. Choose one that nobody would guess."
    return None


def _is_made_of(password: str, parts: list[str]) -> bool:
    """Whether little is left once the person's own data is taken away (longest first)."""
    left = password
    for part in sorted(parts, key=len, reverse=True):
        left = left.replace(part, "")
    return len(left) < min(8, len(password))


def _readings(password: str) -> set[str]:
    """As it is, without what stands between its words, and each word once: `password password` is as common as
    `password`, but the estimator takes the blank for something to guess."""
    words = "".join(character if character.isalnum() else " " for character in password).split()
    once = dict.fromkeys(word.casefold() for word in words)
    return {password, "".join(words), "".join(once)} - {""}


def _is_guessable(password: str, own: list[str]) -> bool:
    from zxcvbn import zxcvbn  # 5 MB of word lists: loaded when the first password is set

    return bool(zxcvbn(_estimable(password), user_inputs=own)["guesses"] < GUESSABLE_BELOW)


def _estimable(password: str) -> str:
    """What of a password the estimator can read quickly: a short prefix, and letters in the place of too many
    look-alikes.
    """
    text = password[:ESTIMATED_PREFIX]
    many = sum(ord(character) in LOOKALIKES for character in set(text)) > MAX_LOOKALIKES
    return text.translate(LOOKALIKES) if many else text


def _parts(text: str) -> list[str]:
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = "".join(character if character.isalnum() else " " for character in folded).split()
    return [part for part in {folded, *words} if len(part) >= 3]


def _canonical(password: str) -> str:
    """One spelling for what a person sees as one password, whatever the keyboard sent (RFC 8265 section 4.2)."""
    return unicodedata.normalize("NFC", password)


def _lower_priority() -> None:
    """Linux gives every thread a nice value of its own; elsewhere the pool stays at normal priority."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
