"""`hub audit`: whether the audit log is what was sealed, and a copy of it that others can verify without the hub."""

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from app.commands.database import CommandFailed, Database, bring_up_to_date, database, explained
from app.core.invocation import HUB
from app.settings import Settings

if TYPE_CHECKING:
    from app.domain.seals.anchors import Anchored
    from app.domain.seals.verifying import End, Verdict, Verifier


def export(settings: Settings, file: Path) -> int:
    try:
        if file.exists():
            raise CommandFailed(f"{file} exists: name another file, or delete it first.")
        with database(settings) as target:
            bring_up_to_date(target)
            written = _written(target, file)
    except (CommandFailed, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{file}: {written.rows} rows and {written.seals} seals of the audit log of every tenant.")
    print(f"`{HUB} audit verify --file {file}` verifies it, without the database.")
    return 0


def _written(target: Database, file: Path) -> "End":
    """Whole or not at all, and readable by nobody else: it is the whole log."""
    draft = file.with_name(f"{file.name}.partial")
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(fd, "wb", buffering=1 << 20) as out, explained(target):
            written = asyncio.run(_export(target, out))
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)
    return written


async def _export(target: Database, out: BinaryIO) -> "End":
    import asyncpg

    from app.domain.seals.reading import items_in_database, write_items

    connection = await asyncpg.connect(target.app_url, timeout=5)
    try:
        return await write_items(out, items_in_database(connection))
    finally:
        await connection.close()


# Verifying ------------------------------------------------------------------------------------------------------------


def verify(load_settings: Callable[[], Settings], file: Path | None, key: Path | None, anchor: str | None) -> int:
    """1 where anything is wrong. Of a file no setting is needed."""
    try:
        if file is not None:
            verdict = _verify_file(file, _verifier(key, anchor))
        else:
            settings = load_settings()
            anchor = anchor or settings.audit_anchor
            with database(settings) as target:
                bring_up_to_date(target)
                with explained(target):
                    verdict = asyncio.run(_verify_database(target, _verifier(key, anchor)))
    except (CommandFailed, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    _tell(verdict, is_pinned=key is not None, is_anchored=anchor is not None)
    return 1 if verdict.wrong else 0


def _verifier(key: Path | None, anchor: str | None) -> "Verifier":
    """Raises CommandFailed."""
    from app.domain.seals.signing import read_public_keys
    from app.domain.seals.verifying import Verifier

    try:
        pinned = None if key is None else read_public_keys(key)
    except ValueError as error:
        raise CommandFailed(f"{error}.") from None
    return Verifier(pinned=pinned, anchored=None if anchor is None else _anchored(anchor))


def _anchored(place: str) -> "Anchored":
    from app.domain.seals.anchors import Anchored, AnchorUnavailable, open_anchor

    try:
        anchored = Anchored(open_anchor(place))
        anchored.tenants()
    except AnchorUnavailable as error:
        raise CommandFailed(f"The anchor cannot be read: {error}.") from None
    return anchored


def _verify_file(file: Path, verifier: "Verifier") -> "Verdict":
    from app.domain.seals.reading import items_in_file

    try:
        for item in items_in_file(file):
            verifier.take(item)
    except ValueError as error:
        raise CommandFailed(f"{file}: {error}.") from None
    return verifier.finish(is_file=True)


async def _verify_database(target: Database, verifier: "Verifier") -> "Verdict":
    import asyncpg

    from app.domain.seals.reading import items_in_database

    connection = await asyncpg.connect(target.app_url, timeout=5)
    try:
        async for item in items_in_database(connection):
            verifier.take(item)
    finally:
        with suppress(OSError):
            await connection.close()
    return verifier.finish()


def _tell(verdict: "Verdict", *, is_pinned: bool, is_anchored: bool) -> None:
    from app.domain.seals.verifying import not_excluded

    for sentence in verdict.wrong:
        print(f"WRONG  {_printable(sentence)}", file=sys.stderr)
    found = "Nothing else is wrong with" if verdict.wrong else "Nothing is wrong with"
    print(f"{found} {verdict.rows} rows under {verdict.seals} seals, of {verdict.chains} tenants.")
    if verdict.unsealed:
        print(f"{verdict.unsealed} rows are not sealed yet.")
    if verdict.dropped:
        print(f"The rows of {verdict.dropped} seals were dropped because of their age, as signed rows say.")
    if verdict.not_anchored:
        print(f"{verdict.not_anchored} seals are not in the anchor.")
    print("What this does not exclude:")
    for sentence in not_excluded(is_pinned=is_pinned, is_anchored=is_anchored):
        print(f"- {sentence};")


def _printable(sentence: str) -> str:
    """It may hold what somebody wrote into a file for whoever reads this at a terminal."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in sentence)
