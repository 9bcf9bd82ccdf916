"""What the object stores share: a source is one bucket, its keys grouped into datasets (see `datasets`).

A type adds its `url`, how a `Store` is opened with its credentials, and what its error codes mean. Files are read in
ranges (see `reading`), and behind a file's own columns stand the `name=value` folders above it.
"""

from __future__ import annotations

import asyncio
import re
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Annotated, ClassVar, Final, Protocol, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from app.connectors.contract.base import Connector, SecretsT
from app.connectors.contract.config import InvalidField
from app.connectors.contract.failures import Code, ConnectorError
from app.connectors.contract.objects import DiscoveredObject, PreviewRequest, PreviewResult
from app.connectors.contract.steps import Steps
from app.connectors.files.csv_settings import (
    Comment,
    Delimiter,
    Header,
    Quote,
    SkipLines,
    csv_settings,
    refuse_bad_csv_settings,
)
from app.connectors.files.datasets import (
    TOO_MANY_DATASETS,
    Datasets,
    SampleSearch,
    Scope,
    fixed_part,
    is_pattern,
)
from app.connectors.files.tables import described, preview_of
from app.connectors.network.http import HttpClient, HttpConfig, Response, check_url, origin_of
from app.connectors.values.batches import slices
from app.connectors.values.describing import Describer
from app.connectors.values.preview import Preview

PAGE: Final = 1000
"""Keys that are asked for at once."""
_MAX_KEYS_FOR_A_PREVIEW: Final = 50_000
_SAMPLERS: Final = 8
_BATCH: Final = 100
_MAX_SKIPPED_BYTES: Final = 8 * 1024 * 1024
"""Read in vain where a server sends a file from its beginning on instead of the range that was asked for."""
_MAX_REFUSAL_BYTES: Final = 64 * 1024

_TRANSIENT: Final = frozenset({429, 500, 502, 503, 504})
_WAITS_S: Final = (0.2, 0.6, 1.8)
"""Before each further try: a bucket says SlowDown for a moment, and a long listing is not to end by that."""

KeyPattern = Annotated[str, Meta(min_length=1, max_length=1024)]
Told = tuple[Code, str]
"""What an error code of a provider means; `{place}` in the sentence is the store's name for itself."""


class ObjectStoreConfig(HttpConfig, frozen=True, kw_only=True):
    prefix: Annotated[str, Meta(max_length=1024, description="Only keys below this folder are shown.")] = ""
    include_keys: Annotated[
        tuple[KeyPattern, ...],
        Meta(
            max_length=200,
            description="Keys to show, such as `sales/*.csv`; `*` stands for any characters. Empty: all.",
        ),
    ] = ()
    exclude_keys: Annotated[
        tuple[KeyPattern, ...], Meta(max_length=200, description="Keys to leave out; wins over the included.")
    ] = ()
    max_keys: Annotated[int, Meta(ge=1, le=5_000_000, description="Keys after which a discovery stops looking.")] = (
        200_000
    )
    skip_lines: SkipLines = None
    comment: Comment = None
    delimiter: Delimiter = None
    quote: Quote = None
    header: Header = True

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_bad_csv_settings(self)

    @property
    def scope(self) -> Scope:
        return Scope(self.prefix.strip("/"), self.include_keys, self.exclude_keys)


class FoundKey(msgspec.Struct, frozen=True):
    key: str
    size: int
    """In bytes."""


class Store(Protocol):
    """One bucket, signed in to. Everything raises `ConnectorError`."""

    def pages(self, folder: str, after: str = "") -> AsyncIterator[list[FoundKey]]:
        """The keys below a folder, in their order. Those before `after` may be left out."""

    async def size(self, key: str) -> int:
        """In bytes. Raises `not_found`."""

    async def read(self, key: str, start: int, end: int) -> bytes:
        """From one offset up to another, as far as the file goes."""


StoreConfigT = TypeVar("StoreConfigT", bound=ObjectStoreConfig)


class ObjectStore(Connector[StoreConfigT, SecretsT]):
    """Base of the object store types."""

    category = "object_store"
    told_by_code: ClassVar[dict[str, Told]] = {}
    """Error codes of the provider's answers."""

    @property
    @abstractmethod
    def url(self) -> str:
        """The endpoint as it is dialled."""

    @property
    @abstractmethod
    def place(self) -> str:
        """What is read, for messages: `the bucket sales`."""

    @property
    @abstractmethod
    def product(self) -> str:
        """Who answers there, as far as the configuration tells."""

    @property
    @abstractmethod
    def has_credentials(self) -> bool: ...

    @abstractmethod
    def opened(self, client: HttpClient) -> AbstractAsyncContextManager[Store]:
        """The store, signed in to. `client` is for what has to be asked of other servers to get there."""

    # The work ---------------------------------------------------------------------------------------------------------

    async def check(self, steps: Steps) -> None:
        refused: ConnectorError | None = None
        first: list[FoundKey] | None = None
        async with self._client() as client:
            await client.reach(steps, self.url)
            steps.server["product"] = self.product
            with steps.step("authenticate", self._signed_in()):
                try:
                    async with self.opened(client) as store:
                        first = await anext(store.pages(self.config.scope.folder), None)
                except ConnectorError as error:
                    if error.code not in {"not_found", "permission_denied"}:
                        raise
                    refused = error  # Whoever is told this was recognised.
        with steps.step("list", self._listed(has_keys=bool(first))):
            if refused:
                raise refused

    async def discover(self) -> AsyncIterator[list[DiscoveredObject]]:
        async with self._client() as client, self.opened(client) as store:
            datasets = Datasets()
            async for page in self._pages_to_show(store):
                for found in page:
                    datasets.add(found.key, found.size)
                yield []  # A sign of life: a large bucket is listed for minutes before its first dataset is known.
            if datasets.is_full:
                self.stopped_because = TOO_MANY_DATASETS
            describer, settings = Describer(_SAMPLERS), csv_settings(self.config)
            for some in slices(list(datasets), _BATCH):
                yield await described(store, some, describer, settings)

    async def _pages_to_show(self, store: Store) -> AsyncIterator[list[FoundKey]]:
        """What the source shows of the first `max_keys` keys."""
        scope, left = self.config.scope, self.config.max_keys
        async for page in store.pages(scope.folder):
            yield [found for found in page[:left] if scope.shows(found.key)]
            if len(page) > left:
                self.stopped_because = f"There are more keys than max_keys ({self.config.max_keys:,})."
                return
            left -= len(page)

    async def preview(self, request: PreviewRequest) -> PreviewResult:
        preview = Preview(request)
        async with self._client() as client, self.opened(client) as store:
            sample = await self._sample(store, request.path)
            return await preview_of(store, sample.key, sample.size, preview, csv_settings(self.config))

    async def _sample(self, store: Store, path: Sequence[str]) -> FoundKey:
        """The file that is read for a path: the one it names, or the first that matches its pattern; an empty one only
        where no other does."""
        key, scope = "/".join(path), self.config.scope
        if not is_pattern(path):
            if "/" in "".join(path) or not scope.shows(key):
                raise self._no_such_file()
            return FoundKey(key, await store.size(key))
        search, looked_at = SampleSearch(path), 0
        folder, _ = fixed_part(path)
        async for page in store.pages(folder or scope.folder, key.partition("*")[0]):
            for found in page:
                if scope.shows(found.key) and not search.is_over:
                    search.look_at(found.key, found.size)
            looked_at += len(page)
            if search.is_over or looked_at >= _MAX_KEYS_FOR_A_PREVIEW:
                break
        if search.found is None:
            raise self._no_such_file()
        return FoundKey(search.found.sample, search.found.sample_size)

    def _no_such_file(self) -> ConnectorError:
        return ConnectorError("not_found", f"There is no such file in {self.place}.")

    def _signed_in(self) -> str:
        return "The credentials are good." if self.has_credentials else "No sign-in needed."

    def _listed(self, *, has_keys: bool) -> str:
        listed = f"{self.place[0].upper()}{self.place[1:]} can be listed"
        where = f"below {self.config.scope.folder}/" if self.config.scope.folder else "in it"
        return f"{listed}." if has_keys else f"{listed}; there is nothing {where} yet."

    def _client(self) -> HttpClient:
        return HttpClient.of(self.network, self.config)

    # Refusals ---------------------------------------------------------------------------------------------------------

    def code_in(self, answer: str) -> str | None:
        """The provider's error code in the XML of a refusal."""
        found = re.search(r"<Code>([A-Za-z]{1,64})</Code>", answer)
        return found[1] if found else None

    def explain(self, answer: Response, code: str | None) -> ConnectorError:
        """What a refusal means, by the provider's own code where that one is known. None of its words is repeated."""
        host = origin_of(self.url).host
        if code is None and not _is_of_a_store(answer) and _is_said_by_anybody(answer):
            return self.no_store()
        told = self.told_by_code.get(code or "")
        if told is None:
            told = _TOLD_BY_STATUS.get(answer.status, ("server_error", f"{host} answered with status {answer.status}."))
        if not self.has_credentials and "credentials" in told[1]:
            told = (told[0], _NONE_GIVEN)
        message = told[1].format(host=host, place=self.place)
        return ConnectorError(told[0], message, retry_after_s=answer.retry_after_s)

    def no_store(self) -> ConnectorError:
        origin = origin_of(self.url)
        name = self.label.removesuffix(" and compatible")
        return ConnectorError(
            "protocol_mismatch", f"What answers on {origin.host}, port {origin.port}, is a web server and not {name}."
        )


_NONE_GIVEN: Final = "{host} does not let just anybody read {place}, and the source has no credentials."
_SAID_BY_ANYBODY: Final = frozenset({400, 404, 405, 410, 411, 500, 501})
"""What web servers say to what they do not know."""
_NO_STORES_SIGN_IN: Final = re.compile(r"\s*(basic|digest|negotiate|ntlm)\b", re.IGNORECASE)


def _is_said_by_anybody(answer: Response) -> bool:
    wanted = answer.headers.get("www-authenticate", "")
    return answer.status in _SAID_BY_ANYBODY or (answer.status == 401 and bool(_NO_STORES_SIGN_IN.match(wanted)))


def _is_of_a_store(answer: Response) -> bool:
    """Whether some header is one that only object stores send, or the refusal has their shape."""
    is_of_their_shape = b"<Code>" in answer.body or (b'"error"' in answer.body and b'"code"' in answer.body)
    return is_of_their_shape or any(
        name.startswith(("x-amz-", "x-ms-", "x-goog-", "x-guploader-")) for name in answer.headers
    )


_LED_ELSEWHERE: Final[Told] = ("egress_refused", "{host} leads to another address, which is not followed.")
_TOLD_BY_STATUS: Final[dict[int, Told]] = {
    **dict.fromkeys((301, 302, 303, 307, 308), _LED_ELSEWHERE),
    401: ("authentication_failed", "{host} did not accept the credentials."),
    403: ("permission_denied", "{host} does not let these credentials read {place}."),
    404: ("not_found", "{host} does not have {place}."),
    408: ("timeout", "{host} took too long."),
    429: ("rate_limited", "{host} takes no more requests for now."),
    502: ("connection_lost", "{host} could not be reached."),
    503: ("rate_limited", "{host} takes no more requests for now."),
    504: ("timeout", "{host} took too long."),
}


def refuse_a_bad_endpoint(name: str, url: str | None, path: str = "") -> None:
    """The same, and for a URL with a query or a path other than `path`."""
    if url is None:
        return
    check_url(name, url)
    parts = urlsplit(url)
    if parts.path.strip("/") not in {"", path} or parts.query or parts.fragment:
        raise InvalidField((name,), f"{name} has no query, and no path{f' but /{path}' if path else ''}.")


def refuse_a_readable_detour(name: str, url: str, endpoint_url: str | None) -> None:
    """Credentials do not go over http to a sign-in server, unless the store itself is spoken to in that way."""
    if origin_of(url).is_encrypted or (endpoint_url is not None and not origin_of(endpoint_url).is_encrypted):
        return
    raise InvalidField((name,), f"{name} starts with https.")


async def patiently(ask: Callable[[], Awaitable[Response]]) -> Response:
    """The first answer that is more than a sign of haste, or the last of a few."""
    answer = await ask()
    for wait_s in _WAITS_S:
        if answer.status not in _TRANSIENT:
            break
        await asyncio.sleep(wait_s)
        answer = await ask()
    return answer


# Parts of files -------------------------------------------------------------------------------------------------------


def most_bytes(byte_range: tuple[int, int]) -> int:
    """What may be read of the answer for a range: it, what a server sends in vain before it, or why it is refused."""
    start, end = byte_range
    return max(end - start, min(end, _MAX_SKIPPED_BYTES), _MAX_REFUSAL_BYTES)


def part_of(answer: Response, start: int, end: int) -> bytes:
    """The range that was asked for, also from a server that sends a file from its beginning on."""
    if answer.status == 206:
        return answer.body[: end - start]
    if not answer.is_whole and len(answer.body) < end:
        raise ConnectorError("response_invalid", "The server does not send a part of a file when asked for it.")
    return answer.body[start:end]
