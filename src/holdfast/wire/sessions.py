"""What a master and a machine say to each other over the session that the machine holds.

Must not act, nor know how texts travel. Invariants: every message is a JSON object with its kind in
``say``; fields that are not known are passed over, so that a newer one may say more; what is known
has to be of its type and within its bounds, whoever says it, or the message is refused.

::

    machine                          master
      hello  ─────────────────────────>     who, which versions, what is at work
           <─────────────────────────  welcome, or the end of the session
      heartbeat <─────────────────────> heartbeat
           <─────────────────────────  offer
      tell   ─────────────────────────>     about a job, as in `messages`
           <─────────────────────────  answer
      ask    <─────────────────────────> report     something to be looked at, or handed over
"""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from holdfast.base.errors import Invalid, Unsupported
from holdfast.wire.fields import Reader
from holdfast.wire.messages import (
    Answer,
    WorkEnded,
    WorkError,
    WorkEvent,
    WorkMessage,
    WorkOffer,
    WorkProgress,
    work_from_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable

PROTOCOLS: Final = (1, 1)
"""The oldest and the newest version of the session that this Holdfast speaks."""

MAX_MESSAGE_BYTES: Final = 4 << 20
MAX_WORKING: Final = 1000
MAX_EVENTS: Final = 1000

WORK_UNSAID: Final = 2
"""What a machine understands that does not say."""

HEARTBEATS_LOST: Final = 3
"""After so many, the other end is given up."""


class Closed(enum.IntEnum):
    """Why a session is ended, as the code of the WebSocket's end."""

    REVOKED = 4001
    STOPPING = 4002
    NOT_UNDERSTOOD = 4003
    REPLACED = 4004
    SILENT = 4005
    CERTIFICATE_ENDED = 4006


@dataclass(frozen=True, slots=True)
class Hello:
    """The first word of a machine.

    Attributes:
        protocols: The oldest and newest version that it speaks.
        software: What it is.
        role: As what it has joined; has to be what its certificate says.
        name: Likewise.
        boot_id: Which start of which machine that is.
        working: Jobs that it is at work on, with their fences.
        addresses: Where it is.
        drives: Where its own file systems are mounted.
        work: The newest version of work that it understands.
    """

    protocols: tuple[int, int]
    software: str
    role: str
    name: str
    boot_id: str
    working: tuple[tuple[int, int], ...] = ()
    addresses: tuple[str, ...] = ()
    drives: tuple[str, ...] = ()
    work: int = WORK_UNSAID


@dataclass(frozen=True, slots=True)
class Welcome:
    """What the master answers to a hello.

    Attributes:
        protocol: The version that both speak from now on.
        heartbeat_s: How often each is to say something.
        lease_s: For how long without an answer a job stays a machine's.
    """

    protocol: int
    heartbeat_s: float
    lease_s: float


@dataclass(frozen=True, slots=True)
class Offer:
    """A job for this machine.

    Attributes:
        offer: Which, under which fence, and what to do.
        transfer: Where data goes or comes from, and with which token; None if there is no such
            place. What is in it is between the master and `movers`.
    """

    offer: WorkOffer
    transfer: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Tell:
    """What a worker says of a job; has to be answered."""

    id: int
    message: WorkMessage


@dataclass(frozen=True, slots=True)
class Answered:
    """What the master says to a `Tell`: an answer, or why there is none."""

    id: int
    answer: Answer | None
    error: WorkError | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """Something that the other end is to find out.

    Attributes:
        id: Which question of this end.
        order: What: has ``ask`` with a word for its kind, such as ``look``.
    """

    id: int
    order: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Report:
    """The answer to an `Ask`: what was found, or why nothing was."""

    id: int
    report: dict[str, Any] | None
    error: WorkError | None = None


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A sign of life.

    Attributes:
        load: Numbers that tell how busy the machine is.
    """

    load: dict[str, float] = field(default_factory=dict)


Message: TypeAlias = Hello | Welcome | Offer | Tell | Answered | Ask | Report | Heartbeat


def agree(ours: tuple[int, int], theirs: tuple[int, int]) -> int:
    """The newest version that both ends speak.

    Raises:
        Unsupported: There is none.
    """
    newest = min(ours[1], theirs[1])
    if newest < max(ours[0], theirs[0]):
        older = "machine" if theirs[1] < ours[0] else "master"
        raise Unsupported(
            f"the machine speaks versions {theirs[0]} to {theirs[1]} of the session, the master "
            f"{ours[0]} to {ours[1]}",
            f"update Holdfast on the {older}",
        )
    return newest


def to_text(message: Message) -> str:
    """A message as it travels."""
    said: dict[str, Any]
    match message:
        case Offer(offer, transfer):
            said = {
                "job": offer.job_id,
                "fence": offer.fence,
                "lease_s": offer.lease_s,
                "work": offer.work.to_json(),
                "transfer": transfer,
            }
        case Tell(id_, told):
            said = {"id": id_, **_told(told)}
        case Answered(id_, answer, error):
            said = {"id": id_, "answer": answer, "error": _error_json(error)}
        case Report(id_, report, error):
            said = {"id": id_, "report": report, "error": _error_json(error)}
        case _:
            said = {name: getattr(message, name) for name in message.__slots__}
    kind = type(message).__name__.lower()
    return json.dumps({"say": kind, **said}, separators=(",", ":"))


def from_text(text: str) -> Message | None:
    """Read a message.

    Returns:
        None for one of a kind that is not known here, which a newer other end may send.

    Raises:
        Invalid: It is not as it should be.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Invalid("a message of the session is not JSON") from error
    if not isinstance(data, dict) or not isinstance(data.get("say"), str):
        raise Invalid("a message of the session does not say what it is")
    read = _READERS.get(data["say"])
    return None if read is None else read(Reader(data, f"the message '{data['say']}'"))


def _hello(given: Reader) -> Hello:
    low, high = given.pair("protocols")
    return Hello(
        (low, high),
        given.text("software"),
        given.text("role"),
        given.text("name"),
        given.text("boot_id"),
        tuple(given.pairs("working", MAX_WORKING)),
        given.texts("addresses"),
        given.texts("drives"),
        given.count("work") if given.has("work") else WORK_UNSAID,
    )


def _offer(given: Reader) -> Offer:
    work = work_from_json(given.record("work"))
    offer = WorkOffer(given.count("job"), given.count("fence"), given.number("lease_s"), work)
    return Offer(offer, given.maybe_record("transfer"))


def _tell(given: Reader) -> Tell:
    job, fence = given.count("job"), given.count("fence")
    counters = given.counts("counters")
    if not given.has("ended"):
        return Tell(given.count("id"), WorkProgress(job, fence, counters))
    ended = Reader(given.record("ended"), "the end of a job")
    events = tuple(event_from_json(one) for one in ended.records("events", MAX_EVENTS))
    # What a machine says of an image is not taken: see `site.machines`.
    return Tell(
        given.count("id"),
        WorkEnded(
            job_id=job,
            fence=fence,
            image=None,
            events=events,
            events_total=ended.count("events_total"),
            counters=counters,
            error=_error(ended.maybe_record("error")),
        ),
    )


def event_from_json(given: Reader) -> WorkEvent:
    """Read an event.

    Raises:
        Invalid: It is not as it should be.
    """
    severity = given.text("severity")
    if severity not in {"info", "warning", "error"}:
        raise Invalid(f"an event is not '{severity[:40]}'")
    path = given.maybe_text("path")
    raw = None if path is None else path.encode("utf-8", "surrogateescape")
    return WorkEvent(severity, given.text("cause"), given.text("message"), raw)


def _answered(given: Reader) -> Answered:
    answer = given.maybe_text("answer")
    error = _error(given.maybe_record("error"))
    try:
        return Answered(given.count("id"), None if answer is None else Answer(answer), error)
    except ValueError as wrong:
        raise Invalid(f"the answer '{answer}' is not known here") from wrong


_READERS: dict[str, Callable[[Reader], Message]] = {
    "hello": _hello,
    "welcome": lambda given: Welcome(
        given.count("protocol"), given.number("heartbeat_s"), given.number("lease_s")
    ),
    "offer": _offer,
    "tell": _tell,
    "answered": _answered,
    "ask": lambda given: Ask(given.count("id"), given.record("order")),
    "report": lambda given: Report(
        given.count("id"), given.maybe_record("report"), _error(given.maybe_record("error"))
    ),
    "heartbeat": lambda given: Heartbeat(given.numbers("load")),
}


def _told(message: WorkMessage) -> dict[str, Any]:
    said: dict[str, Any] = {
        "job": message.job_id,
        "fence": message.fence,
        "counters": message.counters,
    }
    if isinstance(message, WorkEnded):
        said["ended"] = {
            "events": [event_to_json(one) for one in message.events],
            "events_total": message.events_total,
            "error": _error_json(message.error),
        }
    return said


def event_to_json(event: WorkEvent) -> dict[str, Any]:
    """An event as it travels."""
    path = None if event.path is None else event.path.decode("utf-8", "surrogateescape")
    return {
        "severity": event.severity,
        "cause": event.cause,
        "message": event.message,
        "path": path,
    }


def _error_json(error: WorkError | None) -> dict[str, Any] | None:
    if error is None:
        return None
    return {"code": error.code, "message": error.message, "hint": error.hint}


def _error(data: dict[str, Any] | None) -> WorkError | None:
    if data is None:
        return None
    given = Reader(data, "an error")
    return WorkError(given.text("code"), given.text("message"), given.maybe_text("hint"))
