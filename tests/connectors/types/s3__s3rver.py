"""A compatible store: s3rver, which keeps its objects as files, knows one pair of keys and checks no signature of
version 4."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.connectors.contract import CANARY, Case, Kind, Ports, Start
from tests.connectors.servers.shop_bucket import (
    BUCKET,
    MISSING_BUCKET,
    OBJECTS,
    ODD_BUCKET,
    ODD_CONTROLS,
    ODD_MARKS,
    PREVIEWS,
    content,
    odd_content,
)
from tests.connectors.servers.starting import private_folder, program, running, tls_front, unprivileged
from tests.connectors.types.s3 import endpoint_cases
from tests.ports import free_port

NEEDS_SERVICES = True

KEYS = "S3RVER"
"""Both of them, built into the server."""


@contextmanager
def s3rver(service_endpoint: str = "amazonaws.com") -> Iterator[int]:
    """Yields the port. A bucket may stand in the host name: `<bucket>.s3.<service_endpoint>`."""
    import boto3

    port = free_port()
    with private_folder() as folder:
        where = ("-d", str(folder), "-a", "127.0.0.1", "-p", str(port), "--silent")
        command = [program("s3rver"), *where, "--service-endpoint", service_endpoint, "--configure-bucket", BUCKET]
        with running(command, port, cwd=folder, **unprivileged()):
            given = {"aws_access_key_id": KEYS, "aws_secret_access_key": KEYS, "region_name": "us-east-1"}
            client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", **given)
            for key, file in content().items():
                client.put_object(Bucket=BUCKET, Key=key, Body=file)
            client.create_bucket(Bucket=ODD_BUCKET)
            for key, file in odd_content(*ODD_CONTROLS, *ODD_MARKS).items():
                client.put_object(Bucket=ODD_BUCKET, Key=key, Body=file)
            yield port


def kind(start: Start, ports: Ports) -> Kind:
    port = start(s3rver)
    wrong = {"secret_access_key": f"wrong-{CANARY}"}
    return Kind(
        "s3",
        {"bucket": BUCKET, "endpoint_url": f"http://localhost:{port}", "access_key_id": KEYS},
        {"secret_access_key": KEYS},
        (
            Case("wrong_key", "authenticate", "authentication_failed", {"access_key_id": "AKIAWRONG"}, wrong),
            Case("wrong_bucket", "list", "not_found", {"bucket": MISSING_BUCKET}),
            *endpoint_cases(ports, port, start(tls_front, port)),
        ),
        OBJECTS,
        PREVIEWS,
    )
