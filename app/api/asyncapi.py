"""The AsyncAPI 3.0 document: every event with its schema, and the three ways by which it comes.

Made of the table of events and of the Structs of their data, as the OpenAPI document is of the routes; built when it is
first asked for.
"""

import asyncio
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import msgspec
from litestar import get

from app.api.openapi import BEARER, Document, fits_in
from app.core.answers import Tagged
from app.core.event_names import SENTENCES, EventName, type_of
from app.core.limits.prices import costs
from app.core.security import open_to_all
from app.core.served import document_served
from app.core.server_sent_events import MEDIA_TYPE
from app.domain.event_types import DATA
from app.domain.events.envelope import CONTENT_TYPE
from app.domain.events.schemas import EventOut
from app.domain.requests import HubRequest

TITLE = "Data Fusion Hub: events"
DESCRIPTION = """What changes in a hub, one CloudEvent 1.0 for each change, written in the transaction of the change.

An event comes in three ways, each for those whom it suits, with one and the same `id`: on a topic of the broker, to
the webhooks that ask for it, and in the feed, `GET /api/v1/events`. Broker and webhooks may tell one twice. In the feed
each has its `position`, counted in its tenant without gaps in the order of commits."""
PLACE = "#/components/schemas/"


def asyncapi_document(base_path: str = "") -> Document:
    """Of a hub that clients find below the path. Takes a fraction of a second; needs no database."""
    from app.api.components import Components  # as in `openapi`: nothing of it before a document is wanted
    from app.api.examples import Examples

    components = Components((), (EventOut, *DATA.values()))
    schemas = {"CloudEvent": _envelope(components.schemas["EventOut"]), **components.schemas}
    examples = Examples(components.schemas, fits_in(components.schemas))
    messages = {name: _message(name, components.of(DATA[name])) for name in DATA}
    for name, message in messages.items():
        message["examples"] = [{"payload": _example(name, examples, components.of(DATA[name]))}]
    document = _head(base_path) | {
        "channels": {name: _topic(name) for name in DATA} | {"feed": FEED, "webhook": WEBHOOK},
        "operations": dict(_operations()),
        "components": {
            "messages": messages,
            "schemas": {name: schemas[name] for name in sorted(_reached(messages, schemas))},
            "securitySchemes": {"bearer": BEARER, "broker": {"type": "userPassword"}},
        },
    }
    plain: Document = msgspec.json.decode(msgspec.json.encode(document))
    return plain


def _head(base_path: str) -> Document:
    hub = {"host": "{hub}", "pathname": base_path or "/", "protocol": "https", "security": [_security("bearer")]}
    broker = {"host": "{broker}", "protocol": "stomp", "protocolVersion": "1.2", "security": [_security("broker")]}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": TITLE,
            "version": version("data-fusion-hub"),
            "description": DESCRIPTION,
            "license": {"name": "MIT", "url": "https://opensource.org/license/mit"},
            "tags": [{"name": name, "description": f"Of {name.replace('_', ' ')}s."} for name in _resources()],
        },
        "defaultContentType": CONTENT_TYPE,
        "servers": {
            "hub": hub | {"description": "The hub itself.", "variables": _variable("hub", "hub.example.org")},
            "broker": broker
            | {
                "description": "ActiveMQ, or what speaks STOMP as it does: `HUB_BROKER_URL`.",
                "variables": _variable("broker", "broker.example.org:61613"),
            },
        },
    }


def _variable(name: str, default: str) -> Document:
    return {name: {"default": default, "description": "Its host, and its port if it is another than the usual one."}}


def _security(name: str) -> Document:
    return {"$ref": f"#/components/securitySchemes/{name}"}


def _resources() -> list[str]:
    return list(dict.fromkeys(name.partition(".")[0] for name in DATA))


def _envelope(shown: Document) -> Document:
    """As the feed shows it; by the other ways it comes without a position."""
    properties = dict(shown["properties"])
    properties["position"] = properties["position"] | {
        "description": f"In the feed alone. {properties['position']['description']}"
    }
    required = [name for name in shown["required"] if name != "position"]
    return shown | {"title": "CloudEvent", "properties": properties, "required": required}


def _message(name: EventName, data: Document) -> Document:
    of_this = {"type": {"const": type_of(name)}, "data": data}
    return {
        "name": type_of(name),
        "title": name,
        "summary": SENTENCES[name],
        "contentType": CONTENT_TYPE,
        "tags": [{"name": name.partition(".")[0]}],
        "payload": {"allOf": [{"$ref": f"{PLACE}CloudEvent"}, {"type": "object", "properties": of_this}]},
    }


def _example(name: EventName, examples: Any, data: Document) -> Document:
    shown = examples.of(data)
    row_id = shown.get("id", shown.get("name"))
    subject = f"{name.partition('.')[0].replace('_', '-')}s/{row_id}"
    envelope: Document = examples.of({"$ref": f"{PLACE}EventOut"})
    return envelope | {"type": type_of(name), "subject": subject, "data": shown}


def _topic(name: EventName) -> Document:
    return {
        "address": f"hub.{{tenant}}.{type_of(name)}",
        "title": name,
        "description": f"{SENTENCES[name]} A topic of the broker; those of one subject come in their order.",
        "servers": [{"$ref": "#/servers/broker"}],
        "parameters": {"tenant": {"description": "The tenant's `slug`.", "examples": ["default"]}},
        "messages": {name: _of_components(name)},
    }


def _of_components(name: EventName) -> Document:
    return {"$ref": f"#/components/messages/{name}"}


def _all_messages() -> Document:
    return {name: _of_components(name) for name in DATA}


FEED: Document = {
    "address": "/api/v1/events",
    "title": "The feed",
    "description": f"Server-sent events, for `Accept: {MEDIA_TYPE}`: `id` is the position, `event` the type, `data` "
    "the CloudEvent. It begins behind `Last-Event-ID`, or now. Who holds `events:read` for a part of the "
    "tenant is told of that part.",
    "servers": [{"$ref": "#/servers/hub"}],
    "messages": _all_messages(),
}
WEBHOOK: Document = {
    "address": None,
    "title": "A webhook",
    "description": "The `url` of a webhook that was registered with `POST /api/v1/webhooks`. Signed as Standard "
    "Webhooks has it (`webhook-id`, `webhook-timestamp`, `webhook-signature`), and sent again until it is answered.",
    "messages": _all_messages(),
}


def _operations() -> Iterator[tuple[str, Document]]:
    """As the hub sees it: it sends."""
    for name in DATA:
        yield (
            f"publish.{name}",
            {"action": "send", "channel": {"$ref": f"#/channels/{name}"}, "summary": SENTENCES[name]},
        )
    yield "follow_events", _told_by_http("feed", "GET", "Tell events as they come to who follows them.")
    yield "call_webhook", _told_by_http("webhook", "POST", "Tell an event to a webhook that asks for its type.")


def _told_by_http(channel: str, method: str, summary: str) -> Document:
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": summary,
        "bindings": {"http": {"method": method, "bindingVersion": "0.3.0"}},
    }


def _reached(content: object, schemas: Mapping[str, Document]) -> set[str]:
    """The names of the schemas that something refers to, be it by way of others."""
    found: set[str] = set()
    waiting = [content]
    while waiting:
        for name in _named_in(waiting.pop()) - found:
            found.add(name)
            waiting.append(schemas[name])
    return found


def _named_in(content: object) -> set[str]:
    if isinstance(content, list):
        return set[str]().union(*map(_named_in, content))
    if not isinstance(content, dict):
        return set()
    reference = content.get("$ref")
    own = {reference.removeprefix(PLACE)} if isinstance(reference, str) and reference.startswith(PLACE) else set[str]()
    return own.union(*map(_named_in, content.values()))


@lru_cache(1)
def _encoded(base_path: str) -> bytes:
    return msgspec.json.encode(asyncapi_document(base_path))


@get("/asyncapi.json", opt=open_to_all(needs_database=False) | costs("nothing"), include_in_schema=False)
async def asyncapi_json(request: HubRequest) -> Tagged[bytes]:
    """The document, the same bytes until the hub is another."""
    return document_served(request.exchange, await asyncio.to_thread(_encoded, request.exchange.base_path))
