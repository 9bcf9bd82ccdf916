"""The signature of Amazon S3, against the examples of its documentation and a second implementation."""

from __future__ import annotations

import datetime as dt
from urllib.parse import quote, urlencode

import pytest

from app.connectors.types.s3.signature_v4 import AccessKey, signed
from tests.connectors.servers.shop_bucket import ODD_CONTROLS, ODD_MARKS, ODD_PARTS

EXAMPLE = AccessKey("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
HOST = {"host": "examplebucket.s3.amazonaws.com"}
THEN = dt.datetime(2013, 5, 24, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("path", "query", "headers", "signature"),
    [
        ("/test.txt", {}, {"range": "bytes=0-9"}, "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"),
        ("/", {"lifecycle": ""}, {}, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        ("/", {"prefix": "J", "max-keys": "2"}, {}, "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
    ],
)
def test_the_examples_of_the_documentation_are_signed_alike(
    path: str, query: dict[str, str], headers: dict[str, str], signature: str
) -> None:
    sent = signed(EXAMPLE, "us-east-1", path, query, {**HOST, **headers}, THEN)
    names = ";".join(sorted((*headers, "host", "x-amz-content-sha256", "x-amz-date")))
    assert sent["x-amz-date"] == "20130524T000000Z"
    assert sent["authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
        f"SignedHeaders={names},Signature={signature}"
    )


@pytest.mark.parametrize("key", [*ODD_PARTS, *ODD_CONTROLS, *ODD_MARKS])
@pytest.mark.parametrize("token", [None, "a/session+token=="])
def test_botocore_signs_odd_keys_alike(key: str, token: str | None) -> None:
    from botocore.auth import S3SigV4Auth  # type: ignore[import-untyped]
    from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
    from botocore.credentials import Credentials  # type: ignore[import-untyped]

    path, query = f"/bucket/{quote(key)}", {"prefix": key, "empty": "", "a b": "+%/"}
    url = f"https://localhost:9000{path}?{urlencode(query, quote_via=quote)}"
    given = {"x-amz-request-payer": "requester", "range": "bytes=5-6"}
    request = AWSRequest("GET", url, headers={**given, "host": "localhost:9000"})
    S3SigV4Auth(Credentials("AKIDEXAMPLE", "secret/+", token), "s3", "eu-west-1").add_auth(request)
    now = dt.datetime.strptime(request.context["timestamp"], "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC)
    access_key = AccessKey("AKIDEXAMPLE", "secret/+", token)
    sent = signed(access_key, "eu-west-1", path, query, {**given, "host": "localhost:9000"}, now)
    assert sent["authorization"].replace(",", ", ") == request.headers["Authorization"]
    assert sent.get("x-amz-security-token") == token


def test_an_access_key_does_not_show_its_secret() -> None:
    assert EXAMPLE.secret not in repr(EXAMPLE)
