"""The log of a Delta table: which files make up its newest version, and what a reader has to know of them.

The hub replays the log itself, over the same ranges of bytes as it reads files (`object_store.Store`). The native
client opens whatever a log names, by its own resolver and on this machine as well: sidecars of a checkpoint and
deletion vectors may have absolute URLs. It also loads the state of every file before it gives the first one; here a
preview reads the commits since the last checkpoint, and of the checkpoint only as much as it shows.

Source: delta-io/delta, `PROTOCOL.md`, sections "Delta Table Specification", "Action Reconciliation" and "Valid Feature
Names in Table Features".
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Sequence
from functools import partial
from typing import Final
from urllib.parse import unquote

import msgspec

from app.connectors.contract.failures import ConnectorError
from app.connectors.files.object_store import Store
from app.connectors.files.parquet_rows import read_parquet
from app.connectors.files.table import those_named

MAX_COMMITS: Final = 20_000
"""Since the last checkpoint."""
MAX_COMMIT_BYTES: Final = 64 * 1024 * 1024
"""Of all commits since the last checkpoint together."""
MAX_FILES_OF_A_CHECKPOINT: Final = 2_000
"""That are looked at for one preview."""
MAX_SIDECARS: Final = 10_000
_READER_VERSIONS: Final = range(1, 4)
_FEATURES: Final = frozenset(
    {"columnMapping", "deletionVectors", "timestampNtz", "typeWidening", "typeWidening-preview"}
    | {"v2Checkpoint", "vacuumProtocolCheck"}
)
_READERS: Final = 8
_MAX_HINT_BYTES: Final = 64 * 1024

# Actions --------------------------------------------------------------------------------------------------------------


class DeletionVector(msgspec.Struct, frozen=True, rename="camel"):
    storage_type: str
    path_or_inline_dv: str
    size_in_bytes: int
    offset: int | None = None


class Add(msgspec.Struct, frozen=True, rename="camel"):
    """A file that belongs to the table."""

    path: str
    size: int
    partition_values: dict[str, str | None] = {}
    deletion_vector: DeletionVector | None = None


class Remove(msgspec.Struct, frozen=True, rename="camel"):
    path: str
    deletion_vector: DeletionVector | None = None


class Metadata(msgspec.Struct, frozen=True, rename="camel"):
    schema_string: str
    partition_columns: tuple[str, ...] = ()
    configuration: dict[str, str] = {}


class Protocol(msgspec.Struct, frozen=True, rename="camel"):
    min_reader_version: int
    reader_features: tuple[str, ...] | None = None

    def refuse_unless_readable(self) -> None:
        """Raises `unsupported` for tables that this reader might show wrongly."""
        if self.min_reader_version not in _READER_VERSIONS:
            raise ConnectorError("unsupported", f"The Delta table asks for reader version {self.min_reader_version}.")
        if unknown := sorted(set(self.reader_features or ()) - _FEATURES):
            names = ", ".join(name for name in unknown if re.fullmatch("[A-Za-z0-9_-]{1,64}", name))
            raise ConnectorError("unsupported", f"The Delta table asks for reader features that are unknown: {names}.")


class Sidecar(msgspec.Struct, frozen=True, rename="camel"):
    path: str
    size_in_bytes: int


class _Action(msgspec.Struct, frozen=True):
    """A line of a commit; what it says beside these is no reader's business."""

    add: Add | None = None
    remove: Remove | None = None
    metaData: Metadata | None = None  # noqa: N815
    protocol: Protocol | None = None
    sidecar: Sidecar | None = None


_line_decoder: Final = msgspec.json.Decoder(_Action)
_Key = tuple[str, str]


def _key(file: Add | Remove) -> _Key:
    """What identifies a logical file: the same path with another deletion vector is another one."""
    vector = file.deletion_vector
    return file.path, f"{vector.storage_type}{vector.path_or_inline_dv}@{vector.offset}" if vector else ""


# The newest version ---------------------------------------------------------------------------------------------------


class Snapshot:
    """The newest version of a table. Use `load`."""

    def __init__(self, store: Store, folder: str, segment: _Segment) -> None:
        self.version = segment.version
        self.were_all_files = True
        """Whether `files` gave all that there are; known at its end."""
        self._store = store
        self._folder = folder
        self._checkpoint = segment.checkpoint
        self._settled: set[_Key] = set()
        self._added: list[list[Add]] = []
        self._metadata: Metadata | None = None
        self._protocol: Protocol | None = None

    @property
    def metadata(self) -> Metadata:
        if self._metadata is None or self._protocol is None:
            raise _damaged("it lacks the table's metadata or protocol")
        return self._metadata

    @property
    def protocol(self) -> Protocol:
        if self._protocol is None:
            raise _damaged("it lacks the table's protocol")
        return self._protocol

    def take(self, actions: Iterable[_Action]) -> None:
        """The actions of one commit; the newest commit first."""
        actions = list(actions)
        for action in actions:
            self._metadata = self._metadata or action.metaData
            self._protocol = self._protocol or action.protocol
        self._added.append([add for action in actions if (add := action.add) and _key(add) not in self._settled])
        self._settled.update(_key(file) for action in actions if (file := action.add or action.remove))

    async def take_checkpoint_head(self) -> None:
        """Metadata and protocol, where no newer commit has them."""
        if self._metadata is None or self._protocol is None:
            for part in self._checkpoint:
                self.take(await self._actions_in(part, ("metaData", "protocol"), limit=16))

    async def files(self) -> AsyncIterator[Add]:
        """Those of the commits since the checkpoint, then some of the checkpoint's."""
        for added in reversed(self._added):
            for add in added:
                yield add
        left = MAX_FILES_OF_A_CHECKPOINT
        async for part in self._parts():
            actions = await self._actions_in(part, ("add",), limit=left)
            left -= len(actions)
            for action in actions:
                if action.add and _key(action.add) not in self._settled:
                    yield action.add
            if left <= 0:
                return

    async def _parts(self) -> AsyncIterator[_LogFile]:
        """The files of the checkpoint, and those that they refer to."""
        for part in self._checkpoint:
            yield part
            for action in await self._actions_in(part, ("sidecar",), limit=MAX_SIDECARS):
                if action.sidecar:
                    yield _LogFile(f"_sidecars/{_plain_name(action.sidecar.path)}", action.sidecar.size_in_bytes)

    async def _actions_in(self, part: _LogFile, kinds: Sequence[str], limit: int) -> list[_Action]:
        read = partial(self._store.read, log_path(self._folder, part.name))
        if part.name.endswith(".json"):
            return _lines(await _whole(self._store, self._folder, part))
        table = await read_parquet(part.size, read, those_named(kinds), limit, is_sparse=True)
        self.were_all_files = self.were_all_files and table.is_whole
        names = [field.name for field in table.fields]
        try:
            return [msgspec.convert(dict(zip(names, row, strict=True)), _Action, strict=False) for row in table.rows]
        except msgspec.ValidationError:
            raise _damaged("a checkpoint holds something else") from None


async def load(store: Store, folder: str) -> Snapshot:
    """The newest version of the table in a folder of the store.

    Raises `not_found` where there is none, `unsupported` for what its protocol asks for and this reader has not,
    `response_invalid` for a damaged log, `response_too_large` for one without checkpoints.
    """
    segment = await _segment(store, folder)
    snapshot = Snapshot(store, folder, segment)
    turns = asyncio.Semaphore(_READERS)

    async def read(commit: _LogFile) -> bytes:
        async with turns:
            return await _whole(store, folder, commit)

    if sum(commit.size for commit in segment.commits) > MAX_COMMIT_BYTES:
        raise ConnectorError("response_too_large", "The Delta table has too many changes since its last checkpoint.")
    for content in await asyncio.gather(*(read(commit) for commit in reversed(segment.commits))):
        snapshot.take(_lines(content))
    await snapshot.take_checkpoint_head()
    snapshot.protocol.refuse_unless_readable()
    return snapshot


# Files of the log -----------------------------------------------------------------------------------------------------


class _LogFile(msgspec.Struct, frozen=True):
    name: str
    """Below `_delta_log/`."""
    size: int


class _Segment(msgspec.Struct, frozen=True):
    """What of a log makes up the newest version."""

    version: int
    checkpoint: list[_LogFile]
    commits: list[_LogFile]
    """Those after the checkpoint, in their order."""


_COMMIT: Final = re.compile(r"([0-9]{20})\.json")
_CHECKPOINT: Final = re.compile(
    r"([0-9]{20})\.checkpoint(?:\.([0-9]{10})\.([0-9]{10})|\.[0-9a-fA-F-]{36})?\.(?:parquet|json)"
)


async def _segment(store: Store, folder: str) -> _Segment:
    hint = await _hint(store, folder)
    commits, checkpoints = await _listed(store, folder, hint)
    if hint and not checkpoints:
        commits, checkpoints = await _listed(store, folder, 0)
    if not commits and not checkpoints:
        raise ConnectorError("not_found", "There is no Delta table: the folder has no _delta_log with commits.")
    base = max(checkpoints, default=-1)
    version = max(max(commits, default=-1), base)
    needed = range(base + 1, version + 1)
    if len(needed) > MAX_COMMITS:
        raise ConnectorError("response_too_large", "The Delta table has too many commits since its last checkpoint.")
    if any(number not in commits for number in needed):
        raise _damaged("commits are missing")
    return _Segment(version, checkpoints.get(base, []), [commits[number] for number in needed])


async def _listed(store: Store, folder: str, start: int) -> tuple[dict[int, _LogFile], dict[int, list[_LogFile]]]:
    """Commits and complete checkpoints by version, from a version on."""
    commits: dict[int, _LogFile] = {}
    parts: dict[tuple[int, str], list[_LogFile]] = {}
    root = log_path(folder, "")
    async for page in store.pages(root.rstrip("/"), f"{root}{start:020d}" if start else ""):
        for found in page:
            file = _LogFile(found.key.removeprefix(root), found.size)
            if match := _COMMIT.fullmatch(file.name):
                commits[int(match[1])] = file
            elif match := _CHECKPOINT.fullmatch(file.name):
                parts.setdefault((int(match[1]), match[3] or file.name), []).append(file)
    checkpoints: dict[int, list[_LogFile]] = {}
    for (version, total), files in sorted(parts.items()):
        if version >= start and len(files) == (int(total) if total.isdecimal() else 1):
            checkpoints[version] = files
    return commits, checkpoints


async def _hint(store: Store, folder: str) -> int:
    """The version that `_last_checkpoint` names; 0 where it is missing or says nothing of use: it is a hint."""
    try:
        content = await store.read(log_path(folder, "_last_checkpoint"), 0, _MAX_HINT_BYTES)
        version = msgspec.json.decode(content)["version"]
    except ConnectorError as error:
        if error.code == "not_found":
            return 0
        raise
    except (msgspec.DecodeError, TypeError, KeyError, RecursionError):
        return 0
    return version if isinstance(version, int) and 0 <= version < 10**20 else 0


async def _whole(store: Store, folder: str, file: _LogFile) -> bytes:
    if file.size > MAX_COMMIT_BYTES:
        raise ConnectorError("response_too_large", "A file of the Delta table's log is larger than 64 MiB.")
    return await store.read(log_path(folder, file.name), 0, file.size) if file.size else b""


def _lines(content: bytes) -> list[_Action]:
    try:
        return [_line_decoder.decode(line) for line in content.split(b"\n") if line.strip()]
    except (msgspec.DecodeError, RecursionError):
        raise _damaged("a commit is not what it should be") from None


def log_path(folder: str, name: str) -> str:
    return f"{folder}/_delta_log/{name}" if folder else f"_delta_log/{name}"


def path_below(folder: str, path: str) -> str:
    """Where in the store a file is that an action names by a URL (RFC 3986) relative to the table's folder.

    Raises `egress_refused` for what would lead out of that folder, `unsupported` for absolute URLs: files of shallow
    clones lie in other tables.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", path) or path.startswith("/"):
        raise ConnectorError("unsupported", "Files of this Delta table lie outside of its folder, as those of a clone.")
    names = unquote(path).split("/")
    if any(name in {"", ".", ".."} for name in names) or "\x00" in path:
        raise ConnectorError("egress_refused", "The log of the Delta table leads out of its folder.")
    return "/".join([folder, *names] if folder else names)


def _plain_name(path: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}", path):
        raise ConnectorError("egress_refused", "A checkpoint of the Delta table leads out of its folder.")
    return path


def _damaged(why: str) -> ConnectorError:
    return ConnectorError("response_invalid", f"The log of the Delta table cannot be read: {why}.")
