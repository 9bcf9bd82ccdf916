"""Where a hub is found: what clients call it, and where it listens. Written beside the data while it runs, so that
another command finds it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
from msgspec import Struct

from app.settings import Settings

WRITTEN = "serving.json"
_REACHED_AT = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104


class Place(Struct, frozen=True):
    url: str
    """What clients call the hub: HUB_PUBLIC_URL, or where it listens."""
    address: str
    """Where this machine reaches it, whatever stands before it."""


def reached_at(host: str) -> str:
    """The address under which a server is reached that listens on this one."""
    return _REACHED_AT.get(host, host)


def place_of(settings: Settings, host: str, port: int) -> Place:
    """Of a hub with these settings that listens there."""
    name = reached_at(host)
    address = f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"
    return Place(settings.public_url or address, address)


@contextmanager
def written_down(settings: Settings, place: Place) -> Iterator[None]:
    """Beside the embedded database, for as long as the hub runs. Other hubs have no data folder of their own."""
    if not settings.is_embedded:
        yield
        return
    file = settings.data_dir / WRITTEN
    file.write_bytes(msgspec.json.encode(place))
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def written_place(settings: Settings) -> Place | None:
    """Of the hub that runs on the data folder; None where none said where it is."""
    try:
        return msgspec.json.decode((settings.data_dir / WRITTEN).read_bytes(), type=Place)
    except (OSError, msgspec.DecodeError):
        return None
