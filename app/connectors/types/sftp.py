"""Files on an SSH server, through asyncssh; how the server is reached and recognised stands in `ssh.py`.

Folders are walked breadth-first, and their files are grouped into datasets as keys of an object store are (see
`datasets`). A link to a file that stays below the source's folder is a file of its own; links to folders are not
walked: what they lead to below the folder is found at its own place, and a circle of links has no way in.
"""

from __future__ import annotations

import stat
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Final, TypeVar, cast

import msgspec
from msgspec import Meta

from app.connectors.contract.base import Connector
from app.connectors.contract.config import (
    AnswerTimeoutS,
    ConnectorConfig,
    ConnectorSecrets,
    Host,
    InvalidField,
    Port,
    SecretText,
    TimeoutS,
)
from app.connectors.contract.failures import ConnectorError
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
from app.connectors.files.datasets import TOO_MANY_DATASETS, Datasets, SampleSearch, Scope, is_pattern
from app.connectors.files.tables import described, preview_of
from app.connectors.network.dialling import hung_up
from app.connectors.network.ssh import HostKey, SshAuth, SshSession, SshTarget, ssh_session
from app.connectors.values.bad_bytes import name_shown, name_shown_so
from app.connectors.values.batches import slices
from app.connectors.values.describing import Describer
from app.connectors.values.preview import Preview
from app.connectors.values.wildcards import matches

if TYPE_CHECKING:
    import asyncssh

Answer = TypeVar("Answer")

_SAMPLERS: Final = 4
_BATCH: Final = 100
_MAX_ENTRIES_FOR_A_PREVIEW: Final = 50_000

FilePattern = Annotated[str, Meta(min_length=1, max_length=1024)]


class SftpConfig(ConnectorConfig, frozen=True, kw_only=True):
    host: Annotated[Host, Meta(description="Name or address of the server.")]
    port: Annotated[Port, Meta(description="Port of the server.")] = 22
    username: Annotated[str, Meta(min_length=1, max_length=255, description="User to sign in as.", examples=["reader"])]
    auth: Annotated[
        SshAuth,
        Meta(
            description="How the hub signs in. `password` is also given to a server that asks for it by "
            "keyboard-interactive; `private_key_and_password` is for servers that want both."
        ),
    ] = "password"
    host_key: Annotated[
        Annotated[str, Meta(min_length=1, max_length=8192)] | None,
        Meta(
            description="The server's key: its SHA256 fingerprint, the public key, or a line of known_hosts. No secret "
            "is sent to a server with another one. While this is not set, a test shows the key and stops there.",
            examples=["SHA256:uNiVztksCsDhcc0u9e8BrmTMk7N4rmGUVpIBKAvUkXo"],
        ),
    ] = None
    allow_weak_algorithms: Annotated[
        bool, Meta(description="Whether SHA-1, CBC, ssh-rsa and ssh-dss may be used, for old servers.")
    ] = False
    folder: Annotated[
        str,
        Meta(
            min_length=1, max_length=1024, description="Only files below it are shown. `.` is the login's own folder."
        ),
    ] = "."
    include_files: Annotated[
        tuple[FilePattern, ...],
        Meta(
            max_length=200,
            description="Files to show, such as `sales/*.csv`, below the folder; `*` stands for any characters. "
            "Empty: all.",
        ),
    ] = ()
    exclude_files: Annotated[
        tuple[FilePattern, ...], Meta(max_length=200, description="Files to leave out; wins over the included.")
    ] = ()
    max_depth: Annotated[int, Meta(ge=0, le=64, description="How many folders below each other are walked.")] = 16
    max_entries: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Files and folders after which a discovery stops looking.")
    ] = 100_000
    skip_lines: SkipLines = None
    comment: Comment = None
    delimiter: Delimiter = None
    quote: Quote = None
    header: Header = True
    connect_timeout_s: Annotated[TimeoutS, Meta(description="Seconds for opening the connection.")] = 5.0
    read_timeout_s: AnswerTimeoutS = 8.0

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_bad_csv_settings(self)
        if self.host_key is not None:
            try:
                HostKey.parse(self.host_key)
            except ValueError as error:
                raise InvalidField(("host_key",), f"{error}.") from None

    @property
    def scope(self) -> Scope:
        return Scope("", self.include_files, self.exclude_files)


class SftpSecrets(ConnectorSecrets, frozen=True, kw_only=True):
    password: Annotated[SecretText | None, Meta(description="Of the user.")] = None
    private_key: Annotated[SecretText | None, Meta(description="In PEM or OpenSSH form.")] = None
    passphrase: Annotated[SecretText | None, Meta(description="For an encrypted private_key.")] = None


_SECRETS_OF: Final[dict[SshAuth, tuple[str, ...]]] = {
    "none": (),
    "password": ("password",),
    "keyboard_interactive": ("password",),
    "private_key": ("private_key",),
    "private_key_and_password": ("private_key", "password"),
}


class Sftp(Connector[SftpConfig, SftpSecrets]):
    type = "sftp"
    label = "SFTP"
    category = "file"
    description = "Files on an SSH server, grouped into datasets."
    config_type = SftpConfig
    secrets_type = SftpSecrets
    driver = "asyncssh"
    extra = "sftp"
    verified_with = ("OpenSSH 9.2", "AsyncSSH 2.24")
    destination_fields = frozenset({"host", "port", "username", "auth", "host_key", "allow_weak_algorithms"})

    @classmethod
    def validate(cls, config: SftpConfig, secrets: SftpSecrets) -> None:
        for name in _SECRETS_OF[config.auth]:
            if getattr(secrets, name) is None:
                raise InvalidField(("secrets", name), f"{name} is needed for auth {config.auth}.")

    async def check(self, steps: Steps) -> None:
        async with ssh_session(self.network, self._target, steps) as session:
            with steps.step("list", f"The folder {self.config.folder} can be listed."):
                async with self._opened(session) as folder:
                    await folder.glance()

    async def discover(self) -> AsyncIterator[list[DiscoveredObject]]:
        datasets, scope = Datasets(), self.config.scope
        async with self._folder() as folder:
            async for page in folder.walk(self.config.max_entries, self.config.max_depth):
                for file in page:
                    if scope.shows(file.key):
                        datasets.add(file.key, file.size)
                yield []  # A sign of life: a large tree is walked for minutes before its first dataset is known.
            if datasets.is_full:
                self.stopped_because = TOO_MANY_DATASETS
            elif folder.is_cut:
                self.stopped_because = (
                    f"There are more files and folders than max_entries ({self.config.max_entries:,})."
                )
            describer, settings = Describer(_SAMPLERS), csv_settings(self.config)
            for some in slices(list(datasets), _BATCH):
                yield await described(folder, some, describer, settings)

    async def preview(self, request: PreviewRequest) -> PreviewResult:
        preview = Preview(request)
        async with self._folder() as folder:
            sample = await self._sample(folder, request.path)
            return await preview_of(folder, sample.key, sample.size, preview, csv_settings(self.config))

    async def _sample(self, folder: Folder, path: Sequence[str]) -> File:
        """The file that is read for a path: the one it names, or the first that matches its pattern; an empty one only
        where no other does."""
        scope, key = self.config.scope, "/".join(path)
        if not is_pattern(path):
            if not scope.shows(key) or not all(map(_is_plain, path)):
                raise folder.no_such_file()
            return File(key, await folder.size(key))
        search = SampleSearch(path)
        async with aclosing(folder.walk(_MAX_ENTRIES_FOR_A_PREVIEW, len(path) - 1, path)) as pages:
            async for page in pages:
                for file in page:
                    if scope.shows(file.key) and not search.is_over:
                        search.look_at(file.key, file.size)
                if search.is_over:
                    break
        if search.found is None:
            raise folder.no_such_file()
        return File(search.found.sample, search.found.sample_size)

    @asynccontextmanager
    async def _folder(self) -> AsyncIterator[Folder]:
        async with (
            ssh_session(self.network, self._target, Steps()) as session,
            self._opened(session) as folder,
        ):
            yield folder

    @asynccontextmanager
    async def _opened(self, session: SshSession) -> AsyncIterator[Folder]:
        """The source's folder. To SFTP names are bytes, and they stay bytes until they are known to be text."""
        import asyncssh

        try:
            client = await session.ask(session.connection.start_sftp_client(path_encoding=None))
        except (asyncssh.ChannelOpenError, asyncssh.SFTPError):
            raise ConnectorError(
                "protocol_mismatch", f"{self.config.host} lets {self.config.username} in and offers no SFTP."
            ) from None
        try:
            yield await Folder.opened(session, client, self.config.folder)
        finally:
            client.exit()

    @property
    def _target(self) -> SshTarget:
        config, secrets = self.config, self.secrets
        return SshTarget(
            host=config.host,
            port=config.port,
            username=config.username,
            auth=config.auth,
            host_key=HostKey.parse(config.host_key) if config.host_key else None,
            password=secrets.password,
            private_key=secrets.private_key,
            passphrase=secrets.passphrase,
            may_be_weak=config.allow_weak_algorithms,
            connect_timeout_s=config.connect_timeout_s,
            read_timeout_s=config.read_timeout_s,
        )


class File(msgspec.Struct, frozen=True):
    key: str
    """Its path below the source's folder."""
    size: int
    """In bytes."""


class Folder:
    """The folder of a source and everything below it. All methods raise `ConnectorError`."""

    def __init__(self, session: SshSession, client: asyncssh.SFTPClient, root: bytes) -> None:
        self._session = session
        self._client = client
        self._root = root
        """As the server calls it when no link is left in it."""
        self.is_cut = False
        """Whether `walk` left entries out."""

    @classmethod
    async def opened(cls, session: SshSession, client: asyncssh.SFTPClient, folder: str) -> Folder:
        unresolved = cls(session, client, b"")
        root = await unresolved._ask(client.realpath(folder.encode()), f"the folder {folder}")
        return cls(session, client, _as_bytes(root))

    async def glance(self) -> None:
        """Raises what keeps the folder itself from being listed."""
        await self._entries(b"", 1)

    async def walk(
        self, max_entries: int, max_depth: int, path: Sequence[str] | None = None
    ) -> AsyncGenerator[list[File], None]:
        """The files of one folder after the other, breadth-first, sorted by name; with a `path`, only of folders that
        its names match. What may not be read or has gone meanwhile is passed over. Sets `is_cut` where entries are
        left."""
        folders: deque[tuple[tuple[str, ...], bytes]] = deque([((), b"")])
        left = max_entries
        while folders and not self.is_cut:
            names, folder = folders.popleft()
            entries = await self._readable_entries(folder, left + 1)
            self.is_cut = len(entries) > left
            files = []
            for name, own_name, attributes in entries[:left]:
                if _is_folder(attributes):
                    if len(names) < max_depth and (path is None or matches(name, path[len(names)])):
                        folders.append(((*names, name), folder + own_name + b"/"))
                elif (size := await self._file_size(folder + own_name, attributes)) is not None:
                    files.append(File("/".join((*names, name)), size))
            left -= len(entries)
            yield files

    async def size(self, key: str) -> int:
        """Of a file that is below the folder, links followed. Raises `not_found` for anything else."""
        return await self._size(name_shown_so(key))

    async def read(self, key: str, start: int, end: int) -> bytes:
        path = await self._inside(name_shown_so(key))
        if path is None:
            raise self.no_such_file()
        file = await self._ask(self._client.open(path, "rb"), "this file")
        try:
            content = await self._ask(file.read(end - start, start), "this file")
        finally:
            await self._ask(file.close(), "this file")
        return _as_bytes(content)

    async def _size(self, below: bytes) -> int:
        path = await self._inside(below)
        attributes = await self._ask(self._client.stat(path), "this file") if path else None
        if attributes is None or not _is_file(attributes):
            raise self.no_such_file()
        return attributes.size or 0

    def no_such_file(self) -> ConnectorError:
        return ConnectorError("not_found", f"{self._session.target.host} does not have such a file.")

    async def _readable_entries(self, folder: bytes, limit: int) -> list[tuple[str, bytes, asyncssh.SFTPAttrs]]:
        try:
            return await self._entries(folder, limit)
        except ConnectorError as error:
            if folder and error.code in {"permission_denied", "not_found"}:
                return []
            raise

    async def _entries(self, folder: bytes, limit: int) -> list[tuple[str, bytes, asyncssh.SFTPAttrs]]:
        """Names as they are shown, and as the server has them."""
        entries: dict[str, tuple[bytes, asyncssh.SFTPAttrs]] = {}
        what = f"the folder {name_shown(folder)}" if folder else "the folder of this source"
        listing = cast("AsyncGenerator[asyncssh.SFTPName, None]", self._client.scandir(self._root + b"/" + folder))
        async with aclosing(listing):
            while len(entries) < limit and (entry := await self._ask(anext(listing, None), what)) is not None:
                own_name = _as_bytes(entry.filename)
                name = name_shown(own_name)
                if _is_plain(name):
                    entries[name] = own_name, entry.attrs
        return sorted((name, *found) for name, found in entries.items())

    async def _file_size(self, path: bytes, attributes: asyncssh.SFTPAttrs) -> int | None:
        """None for what is no file: a device, a pipe, a link that leads nowhere, to a folder, or out of this one."""
        if _is_link(attributes):
            try:
                return await self._size(path)
            except ConnectorError as error:
                if error.code in {"permission_denied", "not_found", "server_error"}:
                    return None
                raise
        return attributes.size or 0 if _is_file(attributes) else None

    async def _inside(self, path: bytes) -> bytes | None:
        """The path as the server calls it when its links are followed, if that is below the folder."""
        real = _as_bytes(await self._ask(self._client.realpath(self._root + b"/" + path), "this file"))
        return real if real.startswith(self._root.rstrip(b"/") + b"/") else None

    async def _ask(self, question: Awaitable[Answer], what: str) -> Answer:
        import asyncssh

        try:
            return await self._session.ask(question)
        except (asyncssh.Error, OSError) as error:
            raise self._explain(error, what) from error

    def _explain(self, error: Exception, what: str) -> ConnectorError:
        """asyncssh's errors in our words."""
        import asyncssh

        host, username = self._session.target.host, self._session.target.username
        if isinstance(error, asyncssh.SFTPPermissionDenied):
            return ConnectorError("permission_denied", f"{host} does not let {username} read {what}.")
        if isinstance(error, asyncssh.SFTPNoSuchFile | asyncssh.SFTPNoSuchPath | asyncssh.SFTPNotADirectory):
            return ConnectorError("not_found", f"{host} does not have {what}.")
        if isinstance(error, asyncssh.SFTPConnectionLost | asyncssh.SFTPNoConnection) or not isinstance(
            error, asyncssh.SFTPError
        ):
            return hung_up(host, self._session.target.port)
        if isinstance(error, asyncssh.SFTPBadMessage):
            return ConnectorError("response_invalid", f"{host} does not keep to the protocol.")
        return ConnectorError("server_error", f"{host} could not read {what}.")


def _is_plain(name: str) -> bool:
    return name not in {"", ".", ".."} and "/" not in name and "\x00" not in name


def _as_bytes(value: bytes | str) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


def _is_folder(attributes: asyncssh.SFTPAttrs) -> bool:
    return stat.S_ISDIR(attributes.permissions or 0)


def _is_file(attributes: asyncssh.SFTPAttrs) -> bool:
    return stat.S_ISREG(attributes.permissions or 0)


def _is_link(attributes: asyncssh.SFTPAttrs) -> bool:
    return stat.S_ISLNK(attributes.permissions or 0)
