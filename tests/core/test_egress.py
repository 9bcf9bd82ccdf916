"""Which addresses may be dialled, in every spelling that an attacker may think of."""

from __future__ import annotations

import msgspec
import pytest

from app.core.egress import EgressPolicy, EgressRefused, NameNotResolved, Pinned, canonical_host, resolve

pytestmark = pytest.mark.anyio

CLOSED = EgressPolicy()
DEVELOPMENT = EgressPolicy(loopback_allowed=True)
OPEN_TO_ALL_THAT_CAN_BE = EgressPolicy(loopback_allowed=True, allow=("0.0.0.0/0", "::/0"))

LOOPBACK_SPELLINGS = [
    "127.0.0.1",
    "127.0.0.1.",
    "2130706433",
    "0x7f000001",
    "0x7F.1",
    "0177.0.0.1",
    "017700000001",
    "127.1",
    "127.0.1",
    "0x7f.0.0.0x1",
    "127.255.255.254",
    "::1",
    "[::1]",
    "0:0:0:0:0:0:0:1",
    "::ffff:127.0.0.1",
    "[::ffff:7f00:1]",
    "１２７.０.０.１",
    "127。0。0。1",
    "127．0．0．1",
    "127｡0｡0｡1",
    "①②⑦.⓪.⓪.①",
    "𝟏𝟐𝟕.𝟎.𝟎.𝟏",
]
NEVER = [
    *("169.254.169.254", "2852039166", "0xA9FEA9FE", "0251.0376.0251.0376", "169.254.43518", "::ffff:169.254.169.254"),
    *("fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd20:ce::254", "169.254.170.2"),
    *("0.0.0.0", "0", "0.1.2.3", "::", "224.0.0.1", "239.255.255.255", "255.255.255.255", "240.0.0.1", "ff02::1"),
    *("fe80::1", "febf::1", "fec0::1", "192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1", "192.88.99.1"),
    *("2001:db8::1", "3fff::1", "100::1", "5f00::1", "4000::1", "2001:20::1"),
    *(
        "::127.0.0.1",
        "::10.0.0.1",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "2001::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    ),
    *("64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b::10.0.0.1", "64:ff9b:1::1", "::ffff:0:127.0.0.1"),
    *("2606:4700::5efe:169.254.169.254", "2606:4700::200:5efe:7f00:1"),
]
PRIVATE = ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "fc00::1", "fd12::1", "167772161"]
PUBLIC = ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8", "134744072"]
NO_HOSTS = [
    *(
        "",
        ".",
        "..",
        "a..b",
        "-a.example",
        "a b",
        "a\tb",
        "a\nb",
        "a\x00b",
        "127.0.0.1 ",
        " 127.0.0.1",
        "user@127.0.0.1",
    ),
    *("127.0.0.1@example.org", "example.org#@127.0.0.1", "example.org/..", "example.org\\@x", "example.org?x", "a:b"),
    *("fe80::1%eth0", "[fe80::1%25eth0]", "127.0.0.1%lo", "1.2.3.4.5", "256.256.256.256", "0x1ffffffff", "08.0.0.1"),
    *(
        "example.0x1.0x",
        "[127.0.0.1]",
        "[::1",
        "*.example.org",
        "a" * 64 + ".example",
        "127.0.0.1\u00ad",
        "/tmp/.s.PGSQL",
    ),
]


async def addresses(host: str, policy: EgressPolicy) -> tuple[str, ...]:
    return (await resolve(host, 80, policy, 1, never_asked)).addresses


async def never_asked(host: str, port: int) -> list[str]:
    raise AssertionError(f"{host} is an address and was looked up")


@pytest.mark.parametrize("spelling", LOOPBACK_SPELLINGS)
async def test_loopback_is_seen_in_every_spelling(spelling: str) -> None:
    assert (await addresses(spelling, DEVELOPMENT))[0] in {"127.0.0.1", "127.255.255.254", "::1"}
    with pytest.raises(EgressRefused):
        await addresses(spelling, CLOSED)
    denying = EgressPolicy(loopback_allowed=True, deny=("127.0.0.0/8", "::1"))
    with pytest.raises(EgressRefused):
        await addresses(spelling, denying)


@pytest.mark.parametrize("spelling", NEVER)
async def test_what_is_never_dialled_cannot_be_allowed(spelling: str) -> None:
    with pytest.raises(EgressRefused):
        await addresses(spelling, OPEN_TO_ALL_THAT_CAN_BE)


@pytest.mark.parametrize("spelling", PRIVATE)
async def test_private_addresses_ask_for_an_allowance(spelling: str) -> None:
    for policy in (CLOSED, DEVELOPMENT):
        with pytest.raises(EgressRefused):
            await addresses(spelling, policy)
    assert await addresses(spelling, OPEN_TO_ALL_THAT_CAN_BE)


@pytest.mark.parametrize("spelling", PUBLIC)
async def test_public_addresses_are_dialled_unless_denied(spelling: str) -> None:
    assert await addresses(spelling, CLOSED)
    with pytest.raises(EgressRefused):
        await addresses(spelling, EgressPolicy(allow=("0.0.0.0/0", "::/0"), deny=("0.0.0.0/0", "::/0")))


@pytest.mark.parametrize("text", NO_HOSTS)
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(EgressRefused):
        canonical_host(text)


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("Example.ORG.", "example.org"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("ＥＸＡＭＰＬＥ。org", "example.org"),
    ],
)
def test_a_name_has_one_form(text: str, meaning: str) -> None:
    assert canonical_host(text) == meaning


async def test_a_name_is_looked_up_once_and_keeps_only_what_is_allowed() -> None:
    asked = []

    async def lookup(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["169.254.169.254", "8.8.8.8", "10.0.0.1", "fe80::1%eth0"] if len(asked) == 1 else ["127.0.0.1"]

    assert await resolve("Mixed.example", 80, CLOSED, 1, lookup) == Pinned("mixed.example", ("8.8.8.8",))
    assert asked == ["mixed.example"]


async def test_a_name_that_leads_only_to_refused_addresses_is_refused() -> None:
    async def lookup(host: str, port: int) -> list[str]:
        return ["::ffff:169.254.169.254", "64:ff9b::7f00:1"]

    with pytest.raises(EgressRefused) as caught:
        await resolve("rebind.example", 80, OPEN_TO_ALL_THAT_CAN_BE, 1, lookup)
    assert "169.254" not in caught.value.reason


async def test_names_can_be_allowed_and_denied() -> None:
    async def lookup(host: str, port: int) -> list[str]:
        return ["10.0.0.7"]

    policy = EgressPolicy(allow=("*.corp.example", "db.example"), deny=("secret.corp.example",))
    for allowed in ("a.corp.example", "a.b.CORP.example.", "db.example"):
        assert (await resolve(allowed, 80, policy, 1, lookup)).addresses == ("10.0.0.7",)
    for refused in ("corp.example", "evilcorp.example", "x.db.example", "secret.corp.example", "Secret.Corp.Example."):
        with pytest.raises(EgressRefused):
            await resolve(refused, 80, policy, 1, lookup)


async def test_a_denied_range_is_denied_inside_tunnels() -> None:
    assert not EgressPolicy(deny=("8.8.8.0/24",)).decide("64:ff9b::808:808").is_allowed
    assert not EgressPolicy(deny=("8.8.8.0/24",)).decide("::ffff:8.8.8.8").is_allowed
    assert not EgressPolicy(deny=("::ffff:8.8.8.0/120",)).decide("8.8.8.8").is_allowed


async def test_a_name_without_an_answer_is_not_resolved() -> None:
    async def fails(host: str, port: int) -> list[str]:
        raise OSError

    async def hangs(host: str, port: int) -> list[str]:
        import asyncio

        await asyncio.sleep(60)
        return []

    for lookup in (fails, hangs):
        with pytest.raises(NameNotResolved):
            await resolve("nowhere.example", 80, CLOSED, 0.05, lookup)


@pytest.mark.parametrize("entry", ["10.0.0.0/33", "*", "a b", "http://x", "10.0.0.0/8/8", "", "*.*.example"])
def test_an_entry_that_means_nothing_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="neither a CIDR range nor a host"):
        EgressPolicy(allow=(entry,))


def test_a_policy_travels_as_data() -> None:
    policy = EgressPolicy(allow=("10.0.0.0/8",), deny=("*.x.example",), loopback_allowed=True)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(policy), type=EgressPolicy) == policy
