"""CouchDB: its databases, and the documents in them."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final
from urllib.parse import quote

import msgspec
from msgspec import Meta, Struct

from app.connectors.contract.base import Connector
from app.connectors.contract.config import ConnectorConfig, ConnectorSecrets, InvalidField, SecretText, TimeoutS
from app.connectors.contract.failures import Code, ConnectorError
from app.connectors.contract.objects import (
    DiscoveredField,
    DiscoveredObject,
    PreviewRequest,
    PreviewResult,
)
from app.connectors.contract.steps import Steps
from app.connectors.network.http import HttpClient
from app.connectors.values.preview import Preview
from app.connectors.values.values import json_safe

FIELDS: Final = (DiscoveredField("id", "string", "_id", False, 1), DiscoveredField("doc", "object", "JSON", False, 2))
DATABASE: Final = re.compile("_users|_replicator|[a-z][a-z0-9_$()+/-]*")
REFUSALS: Final[dict[int, Code]] = {401: "authentication_failed", 403: "permission_denied", 404: "not_found"}


class Row(Struct):
    id: str
    doc: dict[str, Any]


class Documents(Struct):
    rows: list[Row]


class CouchdbConfig(ConnectorConfig, frozen=True, kw_only=True):
    url: Annotated[str, Meta(pattern="^https?://[^/?#@]+$", max_length=300, description="Where CouchDB answers.")]
    username: Annotated[str, Meta(min_length=1, max_length=100, description="User to sign in as.")]
    timeout_s: Annotated[TimeoutS, Meta(description="Seconds for each answer of the server.")] = 8


class CouchdbSecrets(ConnectorSecrets, frozen=True, kw_only=True):
    password: Annotated[SecretText | None, Meta(description="Password of the user.")] = None


class Couchdb(Connector[CouchdbConfig, CouchdbSecrets]):
    type = "couchdb"
    label = "CouchDB"
    category = "database"
    description = "Databases of a CouchDB server, and the documents in them."
    config_type = CouchdbConfig
    secrets_type = CouchdbSecrets
    driver = "httpx"  # what has to be importable; `extra` names the extra that brings it
    verified_with = ("a stand-in of the tests",)
    destination_fields = frozenset({"url", "username"})

    @classmethod
    def validate(cls, config: CouchdbConfig, secrets: CouchdbSecrets) -> None:
        if secrets.password is None:
            raise InvalidField(("secrets", "password"), "CouchDB asks for a password.")

    async def check(self, steps: Steps) -> None:
        async with self._client() as client:
            await client.reach(steps, self.config.url)  # the steps resolve, connect and tls
            with steps.step("authenticate", f"Signed in as {self.config.username}."):
                await self._get(client, "_session", dict)
            with steps.step("list", "Databases can be listed."):
                await self._get(client, "_all_dbs?limit=1", list[str])

    async def discover(self) -> AsyncIterator[list[DiscoveredObject]]:
        page = "_all_dbs?limit=200"
        async with self._client() as client:
            while names := await self._get(client, page, list[str]):
                yield [DiscoveredObject.at((name,), "collection", FIELDS) for name in names]
                page = f"_all_dbs?limit=200&skip=1&start_key={quote(msgspec.json.encode(names[-1]))}"

    async def preview(self, request: PreviewRequest) -> PreviewResult:
        preview = Preview(request)  # keeps its limits: of rows, columns, bytes
        if len(request.path) != 1 or not DATABASE.fullmatch(request.path[0]):
            raise ConnectorError("not_found", "There is no such database.")
        columns = preview.choose(FIELDS)
        page = f"{quote(request.path[0], safe='')}/_all_docs?include_docs=true&limit={request.limit + 1}"
        async with self._client() as client:
            found = await self._get(client, page, Documents)
        for row in found.rows:
            if not preview.add([json_safe(getattr(row, column.name)) for column in columns]):
                break
        return preview.result()

    def _client(self) -> HttpClient:
        return HttpClient(self.network, read_timeout_s=self.config.timeout_s)

    async def _get(self, client: HttpClient, path: str, shape: Any) -> Any:
        credentials = b64encode(f"{self.config.username}:{self.secrets.password}".encode()).decode()
        answer = await client.get(f"{self.config.url}/{path}", headers={"authorization": f"Basic {credentials}"})
        if answer.status != 200:
            raise ConnectorError(REFUSALS.get(answer.status, "server_error"), f"CouchDB answered {answer.status}.")
        try:
            return msgspec.convert(answer.json(), shape)
        except msgspec.ValidationError:
            raise ConnectorError("response_invalid", "This is not what CouchDB answers.") from None
