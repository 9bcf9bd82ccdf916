"""Secrets by reference: kept where the hub runs, named in the source, read when they are used and never stored.

`env:NAME` is a variable whose name begins with one of HUB_SECRET_ENV_PREFIXES, `file:path` a file below
HUB_SECRET_FILES_ROOT. Neither is ever one of the hub's own. Decision 0014 has who may refer to what, and why.
"""

import asyncio
import os
import re
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from app.connectors import registry
from app.core.errors import BadRequest, Conflict, Fault, Forbidden
from app.core.faults import shown_name
from app.core.security import Principal
from app.domain.sources.schemas import SecretReference, Value, Values
from app.domain.work import UnitOfWork
from app.settings import Settings

PERMISSION = "data-sources:reference"
MAX_BYTES = 16_384
READ_WITHIN_S = 3.0
"""A folder on a network that does not answer must not hold the work up for longer."""
OWN = "HUB_"

_VARIABLE = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]{0,254})")
_FILE = re.compile(r"file:([^\x00-\x1f\x7f/][^\x00-\x1f\x7f]{0,1000})")
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW


class Unreadable(Exception):
    """Why what is referred to is of no use, as the end of a sentence and what to do. Never holds a value."""


class UnresolvedReference(Conflict):
    """With the code `secret_unresolved`."""


def referred(values: Values) -> dict[str, str]:
    """The references among the values, by the secret's name."""
    return {name: value.ref for name, value in values.items() if isinstance(value, SecretReference)}


def require_permission(principal: Principal | None, values: Values) -> None:
    """Raises Forbidden where somebody refers to what the operator keeps without the permission to.

    Whoever may only write sources could otherwise have any allowed variable sent to a server of theirs.
    """
    if referred(values) and (principal is None or not principal.may(PERMISSION)):
        raise Forbidden(f"A secret by reference needs the permission `{PERMISSION}`.", code="permission_missing")


def judge_given(work: UnitOfWork, values: Values) -> None:
    """Raises Forbidden and BadRequest for references that are wrong whatever is stored."""
    require_permission(work.principal, values)
    refuse_foreign(work.parts.settings, values)


def refuse_foreign(settings: Settings, values: Values, below: str = "") -> None:
    """Raises BadRequest naming each reference that this hub's settings do not allow. Nothing is looked up."""
    faults = [
        Fault(f"{below}secrets.{shown_name(name)}.ref", "reference_not_allowed", why)
        for name, ref in referred(values).items()
        if (why := _not_allowed(settings, ref))
    ]
    if faults:
        raise BadRequest(errors=faults)


def _not_allowed(settings: Settings, ref: str) -> str | None:
    if found := _VARIABLE.fullmatch(ref):
        return _variable_not_allowed(settings, found[1])
    found = _FILE.fullmatch(ref)
    if found is None or ".." in found[1].split("/"):
        return "must be `env:NAME`, or `file:` and a path below the folder for secrets"
    if settings.secret_files_root is None:
        return "this hub reads no secrets from files: ask the operator to set HUB_SECRET_FILES_ROOT"
    return None


def _variable_not_allowed(settings: Settings, name: str) -> str | None:
    if name.upper().startswith(OWN):
        return "the hub's own variables cannot be referred to"
    if not name.startswith(settings.secret_env_prefixes or ("\x00",)):
        return "must begin as HUB_SECRET_ENV_PREFIXES allows: ask the operator which names do"
    return None


async def resolved(settings: Settings, type_name: str, values: Mapping[str, Value]) -> dict[str, str]:
    """The values with every reference read. Raises UnresolvedReference naming those that cannot be."""
    texts = {name: value for name, value in values.items() if isinstance(value, str)}
    if len(texts) == len(values):
        return texts
    faults = []
    for name, ref in referred(values).items():
        try:
            texts[name] = await _read(settings, ref)
        except Unreadable as error:
            faults.append(Fault(f"secrets.{name}", "secret_unresolved", f"refers to {ref}, which {error}"))
    if faults:
        sentence = " ".join(f"The secret {fault.path.partition('.')[2]} {fault.message}" for fault in faults)
        raise UnresolvedReference(sentence, code="secret_unresolved", errors=faults)
    _refuse_unfit_for_type(type_name, texts)
    return texts


def _refuse_unfit_for_type(type_name: str, secrets: Mapping[str, str]) -> None:
    """What was read could not be judged before."""
    try:
        msgspec.convert(secrets, registry.get(type_name).secrets_type)
    except msgspec.ValidationError as error:
        path = getattr(error.__cause__, "path", ()) or [name for name in secrets if f"`$.{name}`" in str(error)]
        raise UnresolvedReference(
            f"What the secret {'.'.join(path)} refers to is not of the form that this type takes."
            " Ask the operator to mend it, or give the secret itself.",
            code="secret_unresolved",
            errors=[Fault(".".join(("secrets", *path)), "secret_unresolved", "does not lead to a secret of this form")],
        ) from None


async def _read(settings: Settings, ref: str) -> str:
    if why := _not_allowed(settings, ref):
        raise Unreadable(f"may not be used: {why}.")
    if found := _VARIABLE.fullmatch(ref):
        return _of_variable(found[1])
    assert settings.secret_files_root is not None
    reading = asyncio.to_thread(_of_file, settings, settings.secret_files_root, ref.removeprefix("file:"))
    try:
        return await asyncio.wait_for(reading, READ_WITHIN_S)
    except TimeoutError:
        raise Unreadable("could not be read in time. Ask the operator to look at the folder for secrets.") from None


def _of_variable(name: str) -> str:
    value = os.environ.get(name)
    if value is None:
        raise Unreadable("is not set where the hub runs. Ask the operator to set it, or give the secret itself.")
    return _checked(os.fsencode(value))


def _of_file(settings: Settings, root: Path, path: str) -> str:
    """Links are followed first and judged after: folder by folder from the root, so that none can be swapped."""
    try:
        real_root = os.path.realpath(root, strict=True)
        target = os.path.relpath(os.path.realpath(os.path.join(real_root, path), strict=True), real_root)
        if target.split(os.sep)[0] == os.pardir:
            raise Unreadable("leads out of the folder for secrets. Ask the operator to put the file itself there.")
        content = _content(settings, real_root, target.split(os.sep))
    except FileNotFoundError:
        raise Unreadable("is not there. Ask the operator to put it there, or give the secret itself.") from None
    except (OSError, ValueError):
        raise Unreadable("cannot be read. Ask the operator to let the hub read it.") from None
    if len(content) > MAX_BYTES:
        raise Unreadable(f"is longer than {MAX_BYTES:,} bytes. Ask the operator for the right file.")
    return _checked(content.removesuffix(b"\r\n") if content.endswith(b"\r\n") else content.removesuffix(b"\n"))


def _content(settings: Settings, root: str, parts: list[str]) -> bytes:
    """At most one byte more than a secret may have."""
    folder = os.open(root, _FLAGS | os.O_DIRECTORY)
    try:
        for part in parts[:-1]:
            inner = os.open(part, _FLAGS | os.O_DIRECTORY, dir_fd=folder)
            os.close(folder)
            folder = inner
        # Without O_NONBLOCK, opening a pipe would wait for its other end.
        file = os.open(parts[-1], _FLAGS | os.O_NONBLOCK, dir_fd=folder)
    finally:
        os.close(folder)
    try:
        _refuse_irregular(settings, os.fstat(file))
        with open(file, "rb", closefd=False) as content:
            return content.read(MAX_BYTES + 1)
    finally:
        os.close(file)


def _refuse_irregular(settings: Settings, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise Unreadable("is not a plain file. Ask the operator for the right one.")
    for own in filter(None, (settings.signing_keys_file, settings.sealing_keys_file)):
        with suppress(OSError):
            if os.path.samestat(found, os.stat(own)):
                raise Unreadable("is the hub's own. Ask the operator for the right one.")


def _checked(content: bytes) -> str:
    try:
        value = content.decode()
    except UnicodeDecodeError:
        raise Unreadable("is not UTF-8 text. Ask the operator to mend it.") from None
    if not value or "\x00" in value:
        raise Unreadable("is empty, or holds a NUL. Ask the operator to mend it.")
    return value
