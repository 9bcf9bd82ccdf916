"""What the hub and its connector processes say to each other.

To a template the hub sends datagrams of one MessagePack map: one `Warm`, then a `Fork` for each piece of work, together
with the two descriptors that the new process gets, and a `Kill` where it is to end early. The template answers each
`Fork` with `Forked`, and tells of each end with `Ended`.

To the process of one piece of work it sends frames of a 4-byte big-endian length and a MessagePack map: one `Work`. The
process answers with `StepStarted` and `StepEnded` as a check goes on, `Batch` for each batch of a discovery, and ends
with exactly one of `Checked`, `Previewed`, `Discovered` or `Failed`.
"""

from __future__ import annotations

import struct
from typing import Any, Final, Literal

import msgspec

from app.connectors.contract.failures import Code
from app.connectors.contract.objects import DiscoveredObject, PreviewRequest, PreviewResult
from app.connectors.contract.steps import Step, StepName, TestResult
from app.core.egress import EgressPolicy

MAX_FRAME_BYTES: Final = 64 * 1024 * 1024
HEADER: Final = struct.Struct("!I")

Action = Literal["check", "discover", "preview"]


class Warm(msgspec.Struct, frozen=True, tag_field="frame", tag="warm"):
    """Import what this type needs, so that the work finds it ready."""

    type: str
    packages: tuple[str, ...]


class Fork(msgspec.Struct, frozen=True, tag_field="frame", tag="fork"):
    """Begin a process for one piece of work."""


class Kill(msgspec.Struct, frozen=True, tag_field="frame", tag="kill"):
    pid: int


class Forked(msgspec.Struct, frozen=True, tag_field="frame", tag="forked"):
    pid: int
    is_itself: bool = False
    """The template could not be forked and does the work itself: it is no template any more."""


class Ended(msgspec.Struct, frozen=True, tag_field="frame", tag="ended"):
    pid: int
    status: int
    """As `os.waitstatus_to_exitcode` has it: negative for a signal."""


class Work(msgspec.Struct, frozen=True, kw_only=True, tag_field="frame", tag="work"):
    action: Action
    type: str
    packages: tuple[str, ...]
    config: dict[str, Any]
    secrets: dict[str, Any]
    policy: EgressPolicy
    preview: PreviewRequest | None = None

    def __repr__(self) -> str:
        return f"Work({self.action}, {self.type}, <hidden>)"


class StepStarted(msgspec.Struct, frozen=True, tag_field="frame", tag="step_started"):
    name: StepName


class StepEnded(msgspec.Struct, frozen=True, tag_field="frame", tag="step_ended"):
    step: Step


class Batch(msgspec.Struct, frozen=True, tag_field="frame", tag="batch"):
    objects: list[DiscoveredObject]


class Checked(msgspec.Struct, frozen=True, tag_field="frame", tag="checked"):
    result: TestResult


class Previewed(msgspec.Struct, frozen=True, tag_field="frame", tag="previewed"):
    result: PreviewResult


class Discovered(msgspec.Struct, frozen=True, tag_field="frame", tag="discovered"):
    stopped_because: str | None
    """As `Connector` has it."""


class Failed(msgspec.Struct, frozen=True, tag_field="frame", tag="failed"):
    code: Code
    message: str
    unknown_columns: tuple[str, ...] = ()
    retry_after_s: int | None = None


Order = Warm | Fork | Kill
News = Forked | Ended
Answer = StepStarted | StepEnded | Batch | Checked | Previewed | Discovered | Failed

_encoder: Final = msgspec.msgpack.Encoder()
order_decoder: Final = msgspec.msgpack.Decoder(Order)
news_decoder: Final = msgspec.msgpack.Decoder(News)
work_decoder: Final = msgspec.msgpack.Decoder(Work)
answer_decoder: Final = msgspec.msgpack.Decoder(Answer)


def encode(frame: Work | Answer) -> bytes:
    body = _encoder.encode(frame)
    return HEADER.pack(len(body)) + body


def datagram(frame: Order | News) -> bytes:
    return _encoder.encode(frame)
