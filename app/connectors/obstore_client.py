"""Object stores through obstore, which resolves names in native code and cannot be given an address.

It is told to go through a `PinnedProxy`, which connects to the pinned address of the endpoint and of nothing else: not
to instance metadata, not to where a redirect leads. Credentials are always given or switched off, and the connector
process has no variables or profile files of any provider.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from app.connectors.failures import Code, ConnectorError
from app.connectors.http import origin_of
from app.connectors.object_store import PAGE, FoundKey, ObjectStore, ObjectStoreConfig, Store
from app.connectors.pinned_proxy import PinnedProxy

if TYPE_CHECKING:
    from obstore.store import AzureStore, ClientConfig, S3Store

_NO_RETRIES: Final = {"max_retries": 0}
_PROXY_PASSWORD_MISSING: Final = 407
"""What the proxy says to a redirected request, from which obstore takes every password off."""


@asynccontextmanager
async def through_obstore(
    connector: ObjectStore[Any, Any], make: Callable[..., S3Store | AzureStore]
) -> AsyncIterator[Store]:
    """`make` is obstore's class, the credentials given; it gets the way out as `client_options` and `retry_config`."""
    config, origin = connector.config, origin_of(connector.url)
    await connector.network.resolve(origin.host, origin.port, config.connect_timeout_s)
    async with PinnedProxy.opened(connector.network, config.connect_timeout_s) as proxy:
        proxy.allow(origin.host, origin.port)
        options = _client_options(config, proxy, is_encrypted=origin.is_encrypted)
        try:
            store = make(client_options=options, retry_config=_NO_RETRIES)
        except Exception as error:
            raise ConnectorError(
                "invalid_configuration", "These settings do not make a client of the store."
            ) from error
        yield _ObstoreClient(store, proxy, connector)


def _client_options(config: ObjectStoreConfig, proxy: PinnedProxy, *, is_encrypted: bool) -> ClientConfig:
    options: ClientConfig = {
        "proxy_url": proxy.url,
        "allow_http": not is_encrypted,
        "allow_invalid_certificates": not config.verify_tls,
        "connect_timeout": f"{round(config.connect_timeout_s * 1000)}ms",
        "timeout": f"{round(config.read_timeout_s * 1000)}ms",
    }
    if config.ca_certificate:
        options["root_certificate"] = config.ca_certificate
    return options


class _ObstoreClient:
    """A `Store`."""

    def __init__(self, store: S3Store | AzureStore, proxy: PinnedProxy, connector: ObjectStore[Any, Any]) -> None:
        self._store = store
        self._proxy = proxy
        self._connector = connector

    async def pages(self, folder: str, after: str = "") -> AsyncIterator[list[FoundKey]]:
        import obstore

        try:
            async for page in obstore.list(self._store, prefix=folder or None, offset=after or None, chunk_size=PAGE):
                yield [FoundKey(item["path"], item["size"]) for item in page]
        except Exception as error:
            raise self._explain(error) from error

    async def size(self, key: str) -> int:
        import obstore

        if not key or key != key.strip("/"):
            raise self._no_such_file()  # obstore would drop the slash and answer for another file.
        try:
            return (await obstore.head_async(self._store, key))["size"]
        except Exception as error:
            raise self._explain_file(error) from error

    async def read(self, key: str, start: int, end: int) -> bytes:
        import obstore

        if start >= end:
            return b""
        try:
            return bytes(await obstore.get_range_async(self._store, key, start=start, end=end))
        except Exception as error:
            raise self._explain_file(error) from error

    def _explain_file(self, error: Exception) -> ConnectorError:
        if isinstance(error, FileNotFoundError):
            return self._no_such_file()
        return self._explain(error)

    def _no_such_file(self) -> ConnectorError:
        return ConnectorError("not_found", f"There is no such file in {self._connector.place}.")

    def _explain(self, error: Exception) -> ConnectorError:
        """obstore's errors in our words; their texts, which name the answer's code and the error's kind, are searched
        and never shown."""
        text, connector = str(error), self._connector
        host = origin_of(connector.url).host
        found = re.search(r"status code: ([0-9]{3})", text)
        status = int(found[1]) if found else None
        if self._proxy.refused or status == _PROXY_PASSWORD_MISSING:
            return ConnectorError("egress_refused", "The server led to another address, which is not followed.")
        if status:
            return connector.explain(status, connector.code_in(text))
        for pattern, kind, message in _TOLD_BY_KIND:
            if re.search(pattern, text):
                return ConnectorError(
                    kind, message.format(host=host, place=connector.place, timeout_s=connector.config.read_timeout_s)
                )
        return connector.explain(None, None)


_TOLD_BY_KIND: Final[tuple[tuple[str, Code, str], ...]] = (
    (r"kind: Timeout", "timeout", "{host} gave no answer within {timeout_s:g} s."),
    (r"InvalidCertificate", "tls_certificate_invalid", "The certificate of {host} is not trusted."),
    (r"TunnelUnsuccessful|kind: Connect", "connection_lost", "{host} could not be reached."),
    (r"IncompleteMessage|IncompleteBody|kind: Interrupted", "connection_lost", "{host} hung up in the middle."),
    (r"BareRedirect", "invalid_configuration", "{host} says that {place} is to be found in another region."),
    (r"Could not parse path", "not_found", "{place} has no such folder or file."),
    (
        r"Encountered object with invalid path",
        "response_invalid",
        "A key of {place} has an empty part, a dot for a part or a control character, and the client that reads it "
        "stops there; choose a prefix without such keys.",
    ),
)
