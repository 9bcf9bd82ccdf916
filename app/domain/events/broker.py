"""ActiveMQ, or another broker that speaks STOMP 1.2."""

import re
from collections.abc import Sequence

from app.core.publishing import Confirmation
from app.core.stomp import Sending, StompAddress, StompConnection
from app.domain.events.destinations import DestinationName, WaitingEvent
from app.domain.events.envelope import CONTENT_TYPE
from app.settings import Settings


class Broker:
    name: DestinationName = "broker"

    def __init__(self, settings: Settings) -> None:
        assert settings.broker_url is not None
        self._address = StompAddress.parse(settings.broker_url)
        self._ca_file = None if settings.broker_ca_file is None else str(settings.broker_ca_file)
        self._destination = settings.broker_destination
        self._connection: StompConnection | None = None

    async def connect(self) -> None:
        if self._connection is None or not self._connection.is_open:
            await self.close()
            self._connection = await StompConnection.open(self._address, ca_file=self._ca_file)

    def __str__(self) -> str:
        return str(self._address)

    @property
    def is_connected(self) -> bool:
        return self._connection is not None and self._connection.is_open

    async def publish(self, events: Sequence[WaitingEvent]) -> list[Confirmation]:
        assert self._connection is not None
        answers: dict[int, Confirmation] = {}
        sendings: dict[int, Sending] = {}
        for place, event in enumerate(events):
            try:
                sendings[place] = self._sending(event)
            except ValueError as error:
                answers[place] = Confirmation("unsendable", str(error))
        answers |= zip(sendings, await self._connection.publish(list(sendings.values())), strict=True)
        return [answers[place] for place in range(len(events))]

    async def close(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()

    def _sending(self, event: WaitingEvent) -> Sending:
        """Raises ValueError for what can never be sent."""
        if not _PART_OF_A_NAME.fullmatch(event.type):
            raise ValueError("its type names no topic")
        destination = self._destination.format(tenant=event.slug, type=event.type)
        # As JMSCorrelationID: the id is the same however often the event comes.
        headers = {"persistent": "true", "correlation-id": str(event.id)}
        return Sending(destination, event.in_envelope(), CONTENT_TYPE, headers)


_PART_OF_A_NAME = re.compile(r"[A-Za-z0-9_.-]+")
"""Of a topic: with a comma ActiveMQ takes it for two, and `*` and `>` stand for many."""
