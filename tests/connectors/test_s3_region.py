"""The region of an S3 source is a label of the host that is dialled."""

import msgspec
import pytest

from app.connectors.types.s3.connector import S3Config


@pytest.mark.parametrize("region", ["r" * 64, "-", "eu-", "-eu", "EU", "a.b"])
def test_a_region_that_no_host_name_can_hold_is_refused_before_anything_is_dialled(region: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"bucket": "sales", "region": region}, S3Config)


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1", "x", "r" * 63])
def test_a_region_that_a_host_name_can_hold_is_taken(region: str) -> None:
    assert msgspec.convert({"bucket": "sales", "region": region}, S3Config).region == region
