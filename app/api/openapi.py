"""The OpenAPI document."""

from litestar.openapi import OpenAPIConfig


def openapi_config() -> OpenAPIConfig | None:
    return None
