"""What an exchange says of its request: the client behind proxies (RL3), the form of the answer, headers that come twice."""

from ipaddress import ip_network
from typing import Any

import pytest

from app.core.errors import BadRequest, Unauthenticated
from app.core.exchange import Exchange, refuse_repeated

PROXIES = tuple(ip_network(text) for text in ("10.0.0.0/8", "fd00::/8", "192.0.2.7/32"))


def exchange_of(*headers: tuple[bytes, bytes], client: str | None = "10.1.2.3") -> Exchange:
    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/", "headers": list(headers)}
    return Exchange(scope | {"client": (client, 1) if client else None})


@pytest.mark.parametrize(
    ("client", "forwarded", "found"),
    [
        ("203.0.113.5", b"198.51.100.1", "203.0.113.5"),
        ("10.1.2.3", b"198.51.100.1", "198.51.100.1"),
        ("10.1.2.3", b"1.1.1.1, 198.51.100.1", "198.51.100.1"),
        ("10.1.2.3", b"1.1.1.1, 198.51.100.1, 10.9.9.9, 192.0.2.7", "198.51.100.1"),
        ("10.1.2.3", b"10.0.0.1, 10.0.0.2", "10.0.0.1"),
        ("fd00::1", b"2001:db8::5", "2001:db8::5"),
        ("10.1.2.3", b"unknown", None),
        ("10.1.2.3", b"198.51.100.1:4711", None),
        ("10.1.2.3", b"\xff\xfe", None),
        ("10.1.2.3", b"", None),
        ("10.1.2.3", b"<script>, 198.51.100.1", "198.51.100.1"),
        ("10.1.2.3", b"198.51.100.1, <script>", None),
        (None, b"198.51.100.1", None),
    ],
)
def test_the_client_is_the_last_address_that_no_proxy_of_ours_has(
    client: str | None, forwarded: bytes, found: str | None
) -> None:
    assert exchange_of((b"x-forwarded-for", forwarded), client=client).client_address(PROXIES) == found


@pytest.mark.parametrize(
    "name", [b"x-forwarded-for", b"x-real-ip", b"forwarded", b"client-ip", b"true-client-ip", b"cf-connecting-ip"]
)
def test_without_trusted_proxies_no_header_says_who_the_client_is(name: bytes) -> None:
    assert exchange_of((name, b"198.51.100.1"), client="203.0.113.5").client_address(()) == "203.0.113.5"


def test_a_scope_id_brings_no_text_of_its_own() -> None:
    """Python reads anything behind the `%` of an address as its scope."""
    found = exchange_of((b"x-forwarded-for", b"fe80::1%\x1b[2J\nlevel=error")).client_address(PROXIES)
    assert found is None or found.isprintable()


@pytest.mark.parametrize(
    "name", [b"authorization", b"host", b"content-length", b"content-type", b"idempotency-key", b"if-match"]
)
def test_what_decides_something_comes_once(name: bytes) -> None:
    with pytest.raises(Unauthenticated if name == b"authorization" else BadRequest) as caught:
        refuse_repeated(exchange_of((name, b"a"), (b"x", b"y"), (name, b"a")))
    assert caught.value.code == "repeated_header"


@pytest.mark.parametrize("name", [b"accept", b"cookie", b"x-forwarded-for", b"x", b"if-none-match"])
def test_other_headers_may_come_as_often_as_they_like(name: bytes) -> None:
    refuse_repeated(exchange_of((name, b"a"), (name, b"b")))


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (b"text/csv", True),
        (b"application/json;q=0.5, text/csv", True),
        (b"application/json, text/csv", True),
        (b"application/json, text/csv;q=0.5", False),
        (b"text/csv;q=0", False),
        (b"text/csv; header=present", True),
        (b"text/csv;Q=0.9; header=present", True),
        (b"text/csv;q=high", False),
        (b"TEXT/CSV", True),
        (b"text/*", False),
        (b"*/*", False),
        (b"text/csvx", False),
        (b"", False),
    ],
)
def test_a_special_form_is_asked_for_by_name(accept: bytes, wanted: bool) -> None:
    assert exchange_of((b"accept", accept)).accepts("text/csv") is wanted
