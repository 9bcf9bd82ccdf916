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
from typing import TypeVar

from argon2 import PasswordHasher as Argon2
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.low_level import ARGON2_VERSION

from app.core.errors import TooManyRequests

T = TypeVar("T")

MAX_LENGTH = 1024
GUESSABLE_BELOW = 10**8
"""zxcvbn's estimate of guesses; less falls within minutes even to throttled online guessing by a botnet."""
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
    At most `max_waiting` calls wait for a thread; one more is refused with TooManyRequests.
    """

    def __init__(self, workers: int = 2, max_waiting: int = 256) -> None:
        self._argon2 = Argon2()
        self._pool = ThreadPoolExecutor(workers, "argon2", initializer=_lower_priority)
        self._limit = workers + max_waiting
        self._running = 0
        self._decoy = _decoy(self._argon2)

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
        if self._running >= self._limit:
            raise TooManyRequests(
                "Too many people are signing in at this moment. Try again shortly.", code="login_busy"
            )
        self._running += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, call, *args)
        finally:
            self._running -= 1


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
    plain = unicodedata.normalize("NFKC", password)  # full-width letters make a common password no better
    if _is_made_of(plain.casefold(), own):
        return "Do not build the password from your own name or email address."
    if _is_guessable(plain, own):
        return "This password is common or follows a well-known pattern. Choose one that nobody would guess."
    return None


def _is_made_of(password: str, parts: list[str]) -> bool:
    """Whether little is left once the person's own data is taken away (longest first)."""
    left = password
    for part in sorted(parts, key=len, reverse=True):
        left = left.replace(part, "")
    return len(left) < min(8, len(password))


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
