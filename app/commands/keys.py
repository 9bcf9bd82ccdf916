"""`hub keys`: the keys for stored secrets and access tokens."""

import asyncio
import os
import secrets
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from app.commands.database import CommandFailed, bring_up_to_date, database
from app.core.invocation import HUB
from app.core.sealing import KeyRing
from app.settings import Settings

if TYPE_CHECKING:
    from app.domain.auth.repositories import SessionsOfKey
    from app.domain.parts import Parts
    from app.domain.resealing import Resealed

HOW_TO = f"""\
# Put this in front of the entries that HUB_SECRET_KEYS has already, separated by a comma: the first one seals, all
# of them open. Give it to every hub and worker, then run `{HUB} keys rotate`. Where there are several, give it to all
# of them behind the others first, so that none meets what it cannot open.
{{entry}}

# Access tokens are signed with the first private key of a PEM file; further ones only verify. The file is read again
# when it changes. To make one:
#   (umask 077; openssl genpkey -algorithm ed25519 -out signing-keys.pem)
# HUB_SIGNING_KEYS_FILE=signing-keys.pem

# Workers seal the audit log with a key of its own, made in the same way:
# HUB_SEALING_KEYS_FILE=sealing-keys.pem"""
OLD_KEYS_STAY = (
    "Keep the older keys for now: sessions that were last refreshed under them end with them. "
    f"`{HUB} keys list` says when each may go."
)
_OR_WITHOUT = (
    "or, if it is lost for good, set HUB_SECRET_KEYS to what "
    f"`{HUB} keys generate` prints and have the secrets entered again."
)
RING_GONE = (
    "Secrets are stored that were sealed with the key {ids}, and {place}, where it is looked for, does not exist: "
    f"bring it back there, {_OR_WITHOUT}"
)
KEYS_REPLACED = (
    "Secrets are stored that were sealed with a key {ids} which is not the one that {place} has under that id: bring "
    f"it back there, {_OR_WITHOUT}"
)


def keys(load_settings: Callable[[], Settings], action: Literal["generate", "list", "rotate"]) -> int:
    if action == "generate":
        print(HOW_TO.format(entry=f"HUB_SECRET_KEYS={KeyRing.generate(_new_id())}"))
        return 0
    try:
        return _list(load_settings()) if action == "list" else _rotate(load_settings())
    except CommandFailed as error:
        print(error, file=sys.stderr)
        return 1


def refuse_replaced_keys(settings: Settings, url: str) -> None:
    """Before a ring is made in silence for one that is gone, and before secrets are sealed under an id that another key
    has. Raises CommandFailed."""
    from app.runtime import is_key_ring_missing, load_key_ring

    is_missing = is_key_ring_missing(settings)
    replaced = asyncio.run(_replaced_keys(url, None if is_missing else load_key_ring(settings)))
    if replaced:
        sentence = RING_GONE if is_missing else KEYS_REPLACED
        raise CommandFailed(sentence.format(ids=", ".join(replaced), place=place_of_keys(settings)))


def place_of_keys(settings: Settings) -> str:
    from app.runtime import SECRET_KEYS_FILE

    return "HUB_SECRET_KEYS" if settings.secret_keys is not None else str(settings.data_dir / SECRET_KEYS_FILE)


async def _replaced_keys(url: str, ring: KeyRing | None) -> list[str]:
    import asyncpg

    from app.domain.sources.secrets.sealed import replaced_keys

    connection = await asyncpg.connect(url, timeout=5)
    try:
        return await replaced_keys(connection, ring)
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedFunctionError):  # nothing was stored yet
        return []
    finally:
        await connection.close()


def _new_id() -> str:
    """A date says which key is old; the rest keeps two of one day apart."""
    return f"{datetime.now(UTC):%Y-%m-%d}-{secrets.token_hex(3)}"


# --- list -----------------------------------------------------------------------------------------------------------


def _list(settings: Settings) -> int:
    with database(settings) as target:
        bring_up_to_date(target)
        refuse_replaced_keys(settings, target.app_url)
        return asyncio.run(_print_keys(settings, target.app_url))


async def _print_keys(settings: Settings, url: str) -> int:
    from app.domain.auth.repositories import sessions_by_key
    from app.domain.resealing import secrets_by_key
    from app.runtime import load_signing_keys, prepare_parts

    parts = prepare_parts(settings, url)
    try:
        async with parts.sessions(None) as session:
            stored = await secrets_by_key(session)
            signed_in = await sessions_by_key(session)
    finally:
        await parts.close()
    print("Keys for stored secrets")
    for key_id in parts.key_ring.ids:
        current = "current" if key_id == parts.key_ring.current_id else ""
        print(f"  {key_id:24} {current:8} {_held(key_id, stored, signed_in)}{_leave(key_id, parts, stored, signed_in)}")
    missing = sorted((stored.keys() | signed_in.keys()) - set(parts.key_ring.ids))
    for key_id in missing:
        print(f"  {key_id:24} MISSING  {_held(key_id, stored, signed_in)}")
    print("\nKeys for access tokens")
    for place, key in enumerate(load_signing_keys(settings)):
        print(f"  {key.kid} {'current' if place == 0 else 'verifies only':14} {key.algorithm}")
    return 1 if missing else 0


def _held(key_id: str, stored: Mapping[str, int], signed_in: "Mapping[str, SessionsOfKey]") -> str:
    sessions = signed_in[key_id].count if key_id in signed_in else 0
    return f"{_secrets(stored.get(key_id, 0))}, {sessions} session{'' if sessions == 1 else 's'}"


def _leave(key_id: str, parts: "Parts", stored: Mapping[str, int], signed_in: "Mapping[str, SessionsOfKey]") -> str:
    """When an older key may be taken out of the ring without ending anything."""
    if key_id == parts.key_ring.current_id:
        return ""
    if stored.get(key_id):
        return f"; run `{HUB} keys rotate`"
    if key_id in signed_in:
        return f"; may go on {signed_in[key_id].last_ends_at:%Y-%m-%d %H:%M} UTC, when the last of them has ended"
    return "; may go"


# --- rotate ---------------------------------------------------------------------------------------------------------


def _rotate(settings: Settings) -> int:
    """A ring of our own making changes only while no hub runs on the folder: it would hold the old ring in memory."""
    is_ours = settings.secret_keys is None
    with database(settings, exclusive=is_ours) as target:
        bring_up_to_date(target)
        refuse_replaced_keys(settings, target.app_url)
        return asyncio.run(_rotate_in(settings, target.app_url, add_key=is_ours))


async def _rotate_in(settings: Settings, url: str, *, add_key: bool) -> int:
    from app.domain.resealing import reseal
    from app.runtime import prepare_parts

    parts = prepare_parts(settings, url)
    if add_key and not await _is_unfinished(parts):
        _add_key(settings)
        await parts.close()
        parts = prepare_parts(settings, url)
    try:
        total = await reseal(parts, on_batch=_show)
    finally:
        await parts.close()
    print(f"{_secrets(total.done)} sealed anew with key {parts.key_ring.current_id}.")
    if total.unopened:
        print(
            f"{_secrets(total.unopened)} left: no key of the ring opens them. `{HUB} check` says more.", file=sys.stderr
        )
        return 1
    print(OLD_KEYS_STAY)
    return 0


async def _is_unfinished(parts: "Parts") -> bool:
    """A rotation that was cut off is gone on with, under the key that it made."""
    from app.domain.resealing import secrets_by_key

    async with parts.sessions(None) as session:
        return bool((await secrets_by_key(session)).keys() - {parts.key_ring.current_id})


def _add_key(settings: Settings) -> None:
    """In one step and on disk before the first secret is sealed with it."""
    from app.runtime import SECRET_KEYS_FILE

    path = settings.data_dir / SECRET_KEYS_FILE
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(f"{KeyRing.generate(_new_id())},{path.read_text(encoding='utf-8').strip()}")
        file.flush()
        os.fsync(fd)
    draft.replace(path)


def _show(total: "Resealed") -> None:
    print(f"{_secrets(total.done)} done", file=sys.stderr)


def _secrets(count: int) -> str:
    return f"{count} secret{'' if count == 1 else 's'}"
