"""Amazon S3, on moto."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import Request, urlopen

from tests.connectors.contract import CANARY, HASTY_S, Case, Kind, Ports, Start
from tests.connectors.servers.shop_bucket import (
    BUCKET,
    FORBIDDEN_BUCKET,
    MISSING_BUCKET,
    OBJECTS,
    ODD_BUCKET,
    ODD_CONTROLS,
    ODD_MARKS,
    ODD_PARTS,
    PREVIEWS,
    content,
    odd_content,
)
from tests.connectors.servers.starting import running, tls_front
from tests.ports import free_port


@dataclass(frozen=True)
class ObjectStore:
    port: int
    access_key_id: str
    secret_access_key: str
    temporary: dict[str, str] = field(default_factory=dict)
    """Credentials of a role, as the security token service gives them."""


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    """moto with its check of signatures and policies on: a user who may read one bucket, and one that is not there."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)]
    # Without the second setting moto takes the first part of any host name for a bucket.
    settings = {"INITIAL_NO_AUTH_ACTION_COUNT": "9999", "S3_IGNORE_SUBDOMAIN_BUCKETNAME": "true"}
    with running(command, port, cwd=tempfile.gettempdir(), env={**os.environ, **settings}):
        yield _filled(port)


def _filled(port: int) -> ObjectStore:
    import boto3

    endpoint = f"http://127.0.0.1:{port}"
    given = {"region_name": "us-east-1", "aws_access_key_id": "setup", "aws_secret_access_key": "setup"}
    s3, iam, sts = (boto3.client(service, endpoint_url=endpoint, **given) for service in ("s3", "iam", "sts"))
    filled = {
        BUCKET: {**content(), "folder/": b""},
        ODD_BUCKET: odd_content(*ODD_PARTS, *ODD_CONTROLS, *ODD_MARKS),
        FORBIDDEN_BUCKET: {},
    }
    for bucket, files in filled.items():
        s3.create_bucket(Bucket=bucket)
        for key, file in files.items():
            s3.put_object(Bucket=bucket, Key=key, Body=file)
    iam.create_user(UserName="reader")
    allowed = [
        f"arn:aws:s3:::{bucket}{below}" for bucket in (BUCKET, ODD_BUCKET, MISSING_BUCKET) for below in ("", "/*")
    ]
    statement = {"Effect": "Allow", "Action": "s3:*", "Resource": allowed}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_user_policy(UserName="reader", PolicyName="read", PolicyDocument=policy)
    key = iam.create_access_key(UserName="reader")["AccessKey"]
    role = iam.create_role(RoleName="reading", AssumeRolePolicyDocument=policy)["Role"]["Arn"]
    iam.put_role_policy(RoleName="reading", PolicyName="read", PolicyDocument=policy)
    temporary = sts.assume_role(RoleArn=role, RoleSessionName="tests")["Credentials"]
    headers = {"Content-Type": "text/plain"}
    urlopen(Request(f"{endpoint}/moto-api/reset-auth", data=b"0", headers=headers, method="POST")).close()
    return ObjectStore(port, key["AccessKeyId"], key["SecretAccessKey"], temporary)


def kind(start: Start, ports: Ports) -> Kind:
    store = start(object_store)
    config = {
        "bucket": BUCKET,
        "region": "us-east-1",
        "endpoint_url": f"http://localhost:{store.port}",
        "access_key_id": store.access_key_id,
    }
    wrong = {"secret_access_key": f"wrong-{CANARY}"}
    role = {"access_key_id": store.temporary["AccessKeyId"]}
    role_key = {"secret_access_key": store.temporary["SecretAccessKey"]}
    return Kind(
        "s3",
        config,
        {"secret_access_key": store.secret_access_key},
        (
            Case("wrong_secret", "authenticate", "authentication_failed", {}, wrong),
            Case("wrong_key", "authenticate", "authentication_failed", {"access_key_id": "AKIAWRONG"}, wrong),
            Case(
                "wrong_token",
                "authenticate",
                "authentication_failed",
                role,
                {**role_key, "session_token": f"x{CANARY}"},
            ),
            Case("wrong_bucket", "list", "not_found", {"bucket": MISSING_BUCKET}),
            Case("forbidden_bucket", "list", "permission_denied", {"bucket": FORBIDDEN_BUCKET}),
            *endpoint_cases(ports, store.port, start(tls_front, store.port)),
        ),
        OBJECTS,
        PREVIEWS,
    )


def endpoint_cases(ports: Ports, port: int, tls_port: int) -> tuple[Case, ...]:
    """What can be wrong about the `endpoint_url` of any store. A store listens on `port`, and over TLS, for the name
    `localhost`, on `tls_port`."""
    hasty = {"connect_timeout_s": HASTY_S, "read_timeout_s": HASTY_S}
    tls = {"endpoint_url": f"https://localhost:{tls_port}"}
    return (
        Case("closed_port", "connect", "connection_refused", {"endpoint_url": f"http://localhost:{ports.closed}"}),
        Case("unknown_name", "resolve", "name_not_resolved", {"endpoint_url": "http://nowhere.invalid"}),
        Case("link_local", "resolve", "egress_refused", {"endpoint_url": "http://169.254.169.254"}),
        Case("silent", "connect", "timeout", {"endpoint_url": f"http://localhost:{ports.silent}", **hasty}),
        Case("silent_tls", "tls", "timeout", {"endpoint_url": f"https://localhost:{ports.silent}", **hasty}),
        Case("other_protocol", "connect", "protocol_mismatch", {"endpoint_url": f"http://localhost:{ports.ssh}"}),
        Case("no_tls", "tls", "tls_unavailable", {"endpoint_url": f"https://localhost:{port}"}),
        Case("unknown_ca", "tls", "tls_certificate_invalid", tls),
        Case("other_name", "tls", "tls_certificate_invalid", {"endpoint_url": f"https://127.0.0.1:{tls_port}"}),
        Case("broken_ca", "tls", "invalid_configuration", {**tls, "ca_certificate": "-----BEGIN X\n"}),
    )
