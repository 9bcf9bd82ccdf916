"""The destinations that are set, ready to be connected to."""

from app.domain.events.destinations import Destination, names_of_destinations
from app.settings import Settings


def destinations_of(settings: Settings) -> list[Destination]:
    """What they need is imported only where they are set."""
    found: list[Destination] = []
    for name in names_of_destinations(settings):
        if name == "broker":
            from app.domain.events.broker import Broker

            found.append(Broker(settings))
        else:
            from app.domain.events.stream import RedisStream

            found.append(RedisStream(settings))
    return found
