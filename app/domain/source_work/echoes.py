"""What a source says back, without the secrets that it was told: it knows them, who reads its answers need not."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import msgspec

from app.connectors.contract.failures import ConnectorError

Said = TypeVar("Said")

HIDDEN = "<hidden>"
MIN_LENGTH = 6
"""A shorter secret is part of too many words: hiding it would spoil the data, and betray it by what is missing."""


def without_secrets(said: Said, secrets: Mapping[str, str | None]) -> Said:
    """The same, each whole secret in any of its texts replaced, whatever became of upper and lower case: host names
    lose it. Texts of a fixed choice are ours and stay. What is encoded (base64, a hash) is not recognised.
    """
    raw = msgspec.json.encode(said).lower()  # most say none, which is quickly seen here
    found = [secret for secret in secrets.values() if secret and len(secret) >= MIN_LENGTH and _as_text(secret) in raw]
    if not found:
        return said
    longest_first = "|".join(re.escape(secret) for secret in sorted(found, key=len, reverse=True))
    replaced: Said = _replaced(said, re.compile(longest_first, re.IGNORECASE))
    return replaced


def failure_without_secrets(error: ConnectorError, secrets: Mapping[str, str | None]) -> ConnectorError:
    """A message may hold what the source said: the host to which it redirects, for one."""
    return ConnectorError(
        error.code,
        without_secrets(error.message, secrets),
        unknown_columns=error.unknown_columns,
        retry_after_s=error.retry_after_s,
    )


def _as_text(secret: str) -> bytes:
    """As it stands inside of a JSON text."""
    return msgspec.json.encode(secret)[1:-1].lower()


def _replaced(said: object, secrets: re.Pattern[str]) -> Any:
    if isinstance(said, str):
        return secrets.sub(HIDDEN, said)
    if isinstance(said, list | tuple):
        return type(said)(_replaced(item, secrets) for item in said)
    if isinstance(said, dict):
        return {_replaced(name, secrets): _replaced(value, secrets) for name, value in said.items()}
    if isinstance(said, msgspec.Struct):
        changes = {name: _replaced(getattr(said, name), secrets) for name in _free_fields(type(said))}
        return msgspec.structs.replace(said, **changes)
    return said


@cache
def _free_fields(struct: type[msgspec.Struct]) -> tuple[str, ...]:
    """The fields that may hold what a source says."""
    return tuple(field.name for field in msgspec.structs.fields(struct) if not _is_choice(field.type))


def _is_choice(annotation: object) -> bool:
    """Whatever is said of the choices beside them, such as their name in the OpenAPI document."""
    plain = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    return get_origin(plain) is Literal
