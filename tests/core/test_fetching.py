"""Documents of others: fetched by the egress policy's way, to an end, or not at all."""

import pytest

from app.core.egress import EgressPolicy, system_lookup
from app.core.fetching import MAX_DOCUMENT_BYTES, FetchFailed, fetch, fetch_object
from tests.receivers import answers, receiving, trusting_the_tests

pytestmark = pytest.mark.anyio

OPEN, SHUT = EgressPolicy(loopback_allowed=True), EgressPolicy()
JSON = "application/json"


async def refused(url: str, policy: EgressPolicy = OPEN) -> str:
    with pytest.raises(FetchFailed) as caught:
        await fetch_object(url, policy, system_lookup)
    return caught.value.reason


async def test_an_object_is_read_with_its_status() -> None:
    async with receiving(answers(400, b'{"error": "no"}', content_type=JSON)) as there:
        assert await fetch_object(there.url, OPEN, system_lookup, form={"a": "b c"}) == (400, {"error": "no"})
    (asked,) = there.received
    assert (asked.body, asked.headers["accept"]) == (b"a=b+c", JSON)


async def test_nothing_is_fetched_where_the_policy_says_no() -> None:
    async with receiving(answers(200, b"{}", content_type=JSON)) as there:
        assert await refused(there.url, SHUT) == "egress_refused"
    assert there.received == []


async def test_a_redirect_is_followed_nowhere_and_too_much_is_not_read() -> None:
    async with receiving(answers(307, location="http://127.0.0.1:1/")) as there:
        assert await refused(there.url) == "redirected"
    async with receiving(answers(200, b" " * (MAX_DOCUMENT_BYTES + 1), content_type=JSON)) as there:
        assert await refused(there.url) == "too_large"
    async with receiving(answers(200, b"{}", content_type=JSON, content_encoding="gzip")) as there:
        assert await refused(there.url) == "wrong_media_type"


async def test_a_certificate_has_to_be_for_the_name() -> None:
    async with receiving(answers(200, b"{}", content_type=JSON), certificate_for="127.0.0.1") as there:
        assert (await fetch(there.url, OPEN, system_lookup, authorities=trusting_the_tests())).body == b"{}"
        assert await refused(there.url) == "certificate_invalid"
