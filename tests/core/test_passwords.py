"""AN1 and AN5: which passwords are refused, and how they are hashed."""

import asyncio
import threading
import time
import unicodedata
from collections.abc import Iterator

import pytest
from argon2 import PasswordHasher as Argon2
from argon2 import Type, extract_parameters
from argon2.exceptions import VerifyMismatchError
from zxcvbn.matching import L33T_TABLE, enumerate_l33t_subs, relevant_l33t_subtable

from app.core.errors import TooManyRequests
from app.core.passwords import FIRST_ESTIMATE_S, PasswordHasher, _estimable, refusal

pytestmark = pytest.mark.anyio

PERSON = ("grace.hopper@navy.example", "Grace", "Hopper")


def is_refused(password: str, personal: tuple[str, ...] = PERSON) -> bool:
    return refusal(password, min_length=15, personal=personal) is not None


@pytest.mark.parametrize(
    "password",
    [
        "velvet otter paints maps",
        "xK9#mQ2$vL7@nR4",
        "пятнадцать тихих лун",
        "静かな湖に浮かぶ十五の提灯と蛍の光",
        "🦊🎻🌋🧵🪐🛶🍋🎲🧭🪁🦉🎯🧊🥁🌵",
        "quietly\tthe\train\tpaints",
    ],
)
def test_any_composition_will_do(password: str) -> None:
    assert not is_refused(password)


@pytest.mark.parametrize("password", ["", "short", "xK9#mQ2$vL7@nR", "e\u0301" * 14])
def test_fourteen_characters_are_too_few(password: str) -> None:
    assert "at least 15" in str(refusal(password, min_length=15))


def test_a_thousand_and_twenty_four_characters_are_the_most() -> None:
    phrase = "velvet otter paints maps of the northern lakes and "
    assert not is_refused((phrase * 30)[:1024])
    assert is_refused((phrase * 30)[:1025])


@pytest.mark.parametrize(
    "password",
    [
        "passwordpassword",
        "Password12345678",
        "123456789012345",
        "qwertyuiopasdfgh",
        "aaaaaaaaaaaaaaa",
        "abcabcabcabcabcabc",
        "               ",
        "letmeinletmein123",
        "iloveyouiloveyou",
        "111111111122222222",
        "p@ssw0rdp@ssw0rd",
        "0123456789abcdef",
        "zxcvbnmasdfghjkl",
        "drowssapdrowssap",
        "ｐａｓｓｗｏｒｄｐａｓｓｗｏｒｄ",
    ],
)
def test_common_passwords_are_refused(password: str) -> None:
    assert is_refused(password)


@pytest.mark.parametrize(
    "password",
    [
        "gracehopper12345",
        "GraceHopperGraceHopper",
        "grace.hopper@navy.example",
        "Hopper-Grace-navy",
        "navy.example.1906",
        "hopperhopperhopper!",
        "ＧＲＡＣＥｈｏｐｐｅｒ１２３４５",
    ],
)
def test_passwords_made_of_ones_own_data_are_refused(password: str) -> None:
    assert is_refused(password)


def test_names_of_two_letters_rule_nothing_out() -> None:
    assert not is_refused("velvet otter paints maps", ("al@x.example", "Al", "Ox"))


@pytest.mark.parametrize(
    "password",
    [
        "a4@8({[<3369!1l|0$5+7%2" * 3,
        "({[<" * 200,
        "@$+|0123456789" * 9,
        "|!({0123456789abcdefghi" * 44,
        "1|7!469{[$5+" * 80,
    ],
)
def test_no_password_keeps_the_estimator_busy(password: str) -> None:
    """A dozen look-alike symbols took it five seconds; the ways to read what it gets are few now."""
    shown = _estimable(password)
    assert len(enumerate_l33t_subs(relevant_l33t_subtable(shown, L33T_TABLE))) <= 32
    assert len(shown) <= 40
    assert is_refused(password) in (True, False)


@pytest.fixture(scope="module")
def hasher() -> Iterator[PasswordHasher]:
    hasher = PasswordHasher(workers=1)
    yield hasher
    hasher.close()


async def test_a_hash_is_argon2id_with_the_librarys_defaults(hasher: PasswordHasher) -> None:
    made = await hasher.hash("velvet otter paints maps")
    found, wanted = extract_parameters(made), Argon2()
    assert found.type is Type.ID
    assert (found.memory_cost, found.time_cost, found.parallelism) == (
        wanted.memory_cost,
        wanted.time_cost,
        wanted.parallelism,
    )
    assert not hasher.needs_rehash(made)
    assert await hasher.verify(made, "velvet otter paints maps")
    assert not await hasher.verify(made, "velvet otter paints map")


async def test_one_password_has_one_spelling(hasher: PasswordHasher) -> None:
    made = await hasher.hash(unicodedata.normalize("NFD", "crème brûlée à l'île"))
    assert await hasher.verify(made, unicodedata.normalize("NFC", "crème brûlée à l'île"))


@pytest.mark.parametrize("stored", [None, "", "not a hash", "$argon2id$v=19$m=65536,t=3,p=4$", "$2b$12$" + "a" * 53])
async def test_without_a_usable_hash_nothing_fits(hasher: PasswordHasher, stored: str | None) -> None:
    assert not await hasher.verify(stored, "velvet otter paints maps")
    assert not await hasher.verify(stored, "")


def test_weaker_hashes_are_to_be_replaced(hasher: PasswordHasher) -> None:
    assert hasher.needs_rehash(Argon2(time_cost=1, memory_cost=1024).hash("x"))


async def test_who_has_no_hash_is_checked_at_the_same_cost(hasher: PasswordHasher) -> None:
    """AN4: a decoy that the library could not read would be refused at once."""
    decoy, real = hasher._decoy, await hasher.hash("velvet otter paints maps")
    assert extract_parameters(decoy) == extract_parameters(real)
    assert (len(decoy), hasher.needs_rehash(decoy)) == (len(real), False)
    with pytest.raises(VerifyMismatchError):
        Argon2().verify(decoy, "velvet otter paints maps")
    assert not await hasher.verify(None, "velvet otter paints maps")


async def test_hashing_leaves_the_event_loop_alone(hasher: PasswordHasher, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def look(*_: object) -> bool:
        seen.append(threading.current_thread().name)
        return False

    monkeypatch.setattr(hasher, "_fits", look)
    await hasher.verify(None, "x")
    assert seen[0].startswith("argon2")


# --- A6: the queue is bounded by the time that it will take ---


def take(hasher: PasswordHasher, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call, whatever the machine."""

    def fits(*_: object) -> bool:
        time.sleep(seconds)
        return False

    monkeypatch.setattr(hasher, "_fits", fits)


async def many(hasher: PasswordHasher, count: int) -> list[bool | BaseException]:
    return await asyncio.gather(*(hasher.verify(None, "x") for _ in range(count)), return_exceptions=True)


@pytest.mark.found("A6")
async def test_who_would_wait_too_long_is_refused_at_once_and_told_when_to_come_back() -> None:
    hasher = PasswordHasher(workers=1, longest_wait_s=5 * FIRST_ESTIMATE_S)
    refused: list[TooManyRequests] = []

    async def verify() -> None:
        try:
            await hasher.verify(None, "x")
        except TooManyRequests as error:
            refused.append(error)

    tasks = [asyncio.create_task(verify()) for _ in range(20)]
    await asyncio.sleep(0)
    assert len(refused) == 20 - 6, "one has the thread, five wait"
    assert hasher.waiting == 5
    await asyncio.gather(*tasks)
    assert {error.code for error in refused} == {"login_busy"}
    assert all(int(error.headers["Retry-After"]) >= 1 for error in refused)
    assert not await hasher.verify(None, "room again")
    hasher.close()


@pytest.mark.found("A6")
async def test_the_estimate_follows_the_time_that_calls_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy or weaker machine fewer may wait."""
    hasher = PasswordHasher(workers=1, longest_wait_s=2 * FIRST_ESTIMATE_S)
    take(hasher, 3 * FIRST_ESTIMATE_S, monkeypatch)
    for _ in range(4):
        await hasher.verify(None, "x")
    results = await many(hasher, 3)
    assert [type(result) for result in results] == [bool, TooManyRequests, TooManyRequests]
    hasher.close()


@pytest.mark.found("A6")
async def test_nobody_waits_longer_than_is_allowed_whatever_was_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    hasher = PasswordHasher(workers=1, longest_wait_s=3 * FIRST_ESTIMATE_S)
    take(hasher, 5 * FIRST_ESTIMATE_S, monkeypatch)
    results = await many(hasher, 4)
    assert [type(result) for result in results] == [bool, TooManyRequests, TooManyRequests, TooManyRequests]
    assert hasher.waiting == 0
    hasher.close()


@pytest.mark.found("U12")
@pytest.mark.parametrize(
    "password",
    [
        "password password",
        "Password1 Password1",
        "iloveyou-iloveyou",
        "changeme, changeme",
        "football baseball",
        "admin_admin_admin",
        "change me please",
        "Winter 2026 Winter",
        "2026-11-30 2026-11-30",
        "ｐａｓｓｗｏｒｄ password",
    ],
)
def test_blanks_and_repetition_make_a_common_password_no_better(password: str) -> None:
    assert "common" in str(refusal(password, min_length=15))


@pytest.mark.found("U12")
@pytest.mark.parametrize(
    "password",
    ["Data Fusion Hub", "data-fusion-hub-2026", "DataFusionHub!!", "hub hub hub hub hub", "FUSION fusion 123"],
)
def test_the_name_of_the_service_makes_no_password(password: str) -> None:
    assert "name of this service" in str(refusal(password, min_length=15))


def test_words_of_the_service_may_be_part_of_a_sentence() -> None:
    assert refusal("the data on my desk hums at night", min_length=15) is None
