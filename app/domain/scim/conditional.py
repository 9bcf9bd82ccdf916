"""Entity tags (RFC 7644 section 3.14): weak, held against `If-Match` and `If-None-Match`."""

from app.core.errors import PreconditionFailed
from app.core.exchange import Exchange


def written_tag(tag: str) -> str:
    return f'W/"{tag}"'


def require_match(exchange: Exchange | None, tag: str) -> None:
    """Raises PreconditionFailed, with the present tag, where the client's copy is stale."""
    wanted = None if exchange is None else exchange.headers.get(b"if-match")
    if wanted is not None and not is_among(wanted, tag):
        raise PreconditionFailed(headers={"ETag": written_tag(tag)})


def is_known(exchange: Exchange, tag: str) -> bool:
    """Whether the client has this version already."""
    known = exchange.headers.get(b"if-none-match")
    return known is not None and is_among(known, tag)


def is_among(given: bytes, tag: str) -> bool:
    """With or without `W/`: clients leave it out, or put it there."""
    wanted = f'"{tag}"'.encode()
    return given.strip() == b"*" or any(each.strip().removeprefix(b"W/") == wanted for each in given.split(b","))
