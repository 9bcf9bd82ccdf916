"""Delta Lake, on tables of delta-rs in a bucket of moto."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.connectors.contract import CANARY, Case, Kind, Ports, Start
from tests.connectors.servers.delta_tables import OBJECTS, PREVIEWS, TABLES, write_tables
from tests.connectors.servers.shop_bucket import BUCKET, FORBIDDEN_BUCKET, MISSING_BUCKET
from tests.connectors.servers.starting import private_folder, tls_front
from tests.connectors.types.s3 import ObjectStore, endpoint_cases, object_store


@contextmanager
def lake() -> Iterator[ObjectStore]:
    """The tables below `lake/` in the bucket that its reader may read."""
    import boto3

    with object_store() as store, private_folder() as folder:
        s3 = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{store.port}",
            region_name="us-east-1",
            aws_access_key_id=store.access_key_id,
            aws_secret_access_key=store.secret_access_key,
        )
        write_tables(folder / "lake")
        for path in folder.rglob("*"):
            if path.is_file():
                s3.upload_file(str(path), BUCKET, path.relative_to(folder).as_posix())
        yield store


def kind(start: Start, ports: Ports) -> Kind:
    store = start(lake)
    config = {
        "location": f"s3://{BUCKET}/lake",
        "tables": TABLES,
        "region": "us-east-1",
        "endpoint_url": f"http://localhost:{store.port}",
        "access_key_id": store.access_key_id,
    }
    wrong = {"secret_access_key": f"wrong-{CANARY}"}
    return Kind(
        "delta_lake",
        config,
        {"secret_access_key": store.secret_access_key},
        (
            Case("wrong_secret", "authenticate", "authentication_failed", {}, wrong),
            Case("wrong_key", "authenticate", "authentication_failed", {"access_key_id": "AKIAWRONG"}, wrong),
            Case("wrong_bucket", "list", "not_found", {"location": f"s3://{MISSING_BUCKET}/lake"}),
            Case("forbidden_bucket", "list", "permission_denied", {"location": f"s3://{FORBIDDEN_BUCKET}/lake"}),
            Case("wrong_folder", "list", "not_found", {"location": f"s3://{BUCKET}/nowhere"}),
            Case("wrong_table", "list", "not_found", {"tables": ["orders", "nowhere"]}),
            *endpoint_cases(ports, store.port, start(tls_front, store.port)),
        ),
        OBJECTS,
        PREVIEWS,
        server={"product": "Delta Lake", "encryption": "none"},
    )
