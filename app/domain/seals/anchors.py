"""Copies of seals where the database's owner cannot change them: in a folder, or below a prefix of an S3 bucket.

Each seal is a file `<tenant>/<thousands>/<number>-<beginning of its hash>.json` that is never written over. A chain
that was sealed anew from some seal on leaves its own files beside those that were there before.
"""

import asyncio
import logging
import os
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol
from uuid import UUID

import msgspec
from sqlalchemy import text

from app.core.database import DATABASE_ERRORS
from app.core.invocation import typed_install
from app.domain.parts import Parts
from app.domain.seals.signing import Seal

log = logging.getLogger("hub.seals")

S3: Final = "s3://"
EXTRA: Final = "anchor"
AT_ONCE: Final = 200
EVERY_S: Final = 1.0
RETRY_S: Final = 30.0
NUMBER_DIGITS: Final = 12
HASH_DIGITS: Final = 16
TENANT: Final = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_WHERE = text("SELECT last_ordinal FROM audit_anchors WHERE place = :place")
_NEXT = text("SELECT * FROM public.audit_seals_after(:last, :most)")
_NOTE = text(
    """INSERT INTO audit_anchors (place, last_ordinal, updated_at) VALUES (:place, :last, now())
       ON CONFLICT (place) DO UPDATE SET last_ordinal = excluded.last_ordinal, updated_at = excluded.updated_at"""
)


class AnchorUnavailable(Exception):
    """The place cannot be written to or read. The sentence says what is wrong."""


class Anchor(Protocol):
    """Blocks: called in threads, or by commands."""

    def add(self, name: str, content: bytes) -> None:
        """Nothing where it is there already. Raises AnchorUnavailable."""

    def names(self, folder: str) -> Iterator[str]:
        """Of the files in a folder. Raises AnchorUnavailable."""

    def folders(self) -> list[str]:
        """At the top. Raises AnchorUnavailable."""


def name_of(seal: Seal) -> str:
    return f"{folder_of(seal.tenant_id, seal.number)}/{seal.number:0{NUMBER_DIGITS}}-{seal.hash[:HASH_DIGITS]}.json"


def folder_of(tenant_id: UUID, number: int) -> str:
    return f"{tenant_id}/{number // 1000:09}"


def open_anchor(place: str) -> Anchor:
    """Raises AnchorUnavailable where what it takes is not installed, or the address is none."""
    return Bucket(place) if place.startswith(S3) else Folder(Path(place).expanduser())


class Folder:
    def __init__(self, root: Path) -> None:
        self._root = root

    def add(self, name: str, content: bytes) -> None:
        """Whole or not at all, and on the disk before it counts."""
        path = self._root / name
        with self._reached():
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f".{path.name}.{os.getpid()}")
            with draft.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(draft, path)
            draft.unlink()

    def names(self, folder: str) -> Iterator[str]:
        with self._reached():
            found = [path.name for path in (self._root / folder).glob("[!.]*.json")]
        yield from (f"{folder}/{name}" for name in found)

    def folders(self) -> list[str]:
        with self._reached():
            return [path.name for path in self._root.iterdir() if path.is_dir()]

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """A folder that is not mounted is not made in the place where it would be. Raises AnchorUnavailable."""
        try:
            if not self._root.is_dir():
                raise AnchorUnavailable(f"{self._root} is no folder")
            yield
        except OSError as error:
            raise AnchorUnavailable(f"{self._root}: {error.strerror}") from None


class Bucket:
    """By the variables that Amazon's own tools read (`AWS_ACCESS_KEY_ID`, `AWS_REGION`, `AWS_ENDPOINT_URL` ...)."""

    def __init__(self, url: str) -> None:
        try:
            from obstore.store import from_url
        except ModuleNotFoundError:
            raise AnchorUnavailable(f"s3:// needs a package that is not there: `{typed_install(EXTRA)}`") from None
        try:
            self._store = from_url(url)
        except Exception as error:  # whatever the library says of an address
            raise AnchorUnavailable(f"{url}: {_first_line(error)}") from None
        self._url = url

    def add(self, name: str, content: bytes) -> None:
        import obstore
        from obstore.exceptions import AlreadyExistsError

        with self._reached(), suppress(AlreadyExistsError):
            obstore.put(self._store, name, content, mode="create", use_multipart=False)

    def names(self, folder: str) -> Iterator[str]:
        import obstore

        with self._reached():
            for batch in obstore.list(self._store, folder):
                yield from (entry["path"] for entry in batch)

    def folders(self) -> list[str]:
        import obstore

        with self._reached():
            return list(obstore.list_with_delimiter(self._store)["common_prefixes"])

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Raises AnchorUnavailable."""
        from obstore.exceptions import BaseError

        try:
            yield
        except BaseError as error:
            raise AnchorUnavailable(f"{self._url}: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


# Writing ------------------------------------------------------------------------------------------------------------


async def keep_anchored(parts: Parts) -> None:
    """Until cancelled: each seal soon after it was made; what was missed is caught up with."""
    place, is_away = parts.settings.audit_anchor, False
    if place is None:
        await asyncio.Event().wait()
        return
    while True:
        done, pause_s = 0, EVERY_S
        try:
            done = await anchor_seals(parts, place)
            if is_away:
                log.warning("seals are copied to %s again", place)
            is_away = False
        except (AnchorUnavailable, *DATABASE_ERRORS) as error:
            if not is_away:
                said = error if isinstance(error, AnchorUnavailable) else type(error).__name__
                log.warning("seals are not copied to the anchor for now: %s", said)
            is_away, pause_s = True, RETRY_S
        if done < AT_ONCE:
            await asyncio.sleep(pause_s)


async def anchor_seals(parts: Parts, place: str, most: int = AT_ONCE) -> int:
    """The oldest seals that the place does not have; how many. Raises AnchorUnavailable."""
    async with parts.sessions.begin(None) as session:
        last = await session.scalar(_WHERE, {"place": place}) or 0
        rows: Sequence[Any] = (await session.execute(_NEXT, {"last": last, "most": most})).all()
    if not rows:
        return 0
    await asyncio.to_thread(partial(_copy, place, [_seal_in(row) for row in rows]))
    async with parts.sessions.begin(None) as session:
        await session.execute(_NOTE, {"place": place, "last": rows[-1].ordinal})
    return len(rows)


def _copy(place: str, seals: list[Seal]) -> None:
    anchor = open_anchor(place)
    for seal in seals:
        anchor.add(name_of(seal), msgspec.json.encode(seal) + b"\n")


def _seal_in(row: Any) -> Seal:
    return Seal(**{name: getattr(row, name) for name in Seal.__struct_fields__})


# Reading ------------------------------------------------------------------------------------------------------------


class Anchored:
    """What a place has, asked for in the order of a chain's numbers: a thousand of them at a time."""

    def __init__(self, anchor: Anchor) -> None:
        self._anchor = anchor
        self._folder = ""
        self._hashes: dict[int, set[str]] = {}

    def hashes_of(self, tenant_id: UUID, number: int) -> Collection[str]:
        """Beginnings of the hashes of the seals that it has under this number."""
        folder = folder_of(tenant_id, number)
        if folder != self._folder:
            self._hashes = {}
            for name in self._anchor.names(folder):
                numbered, _, rest = name.rpartition("/")[2].partition("-")
                self._hashes.setdefault(int(numbered), set()).add(rest.removesuffix(".json"))
            self._folder = folder
        return self._hashes.get(number, set())

    def tenants(self) -> set[UUID]:
        """Whatever else lies there is passed over."""
        return {UUID(name) for name in self._anchor.folders() if TENANT.fullmatch(name)}
