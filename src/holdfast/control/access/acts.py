"""Acts that come through the door: each is in the audit log, and is done once for one key.

Must not do any act. Invariants: an act is noted before it begins, so one whose process dies is in
the audit log all the same, as of unknown outcome; the end of an act, its audit row and its answer
are one transaction; an idempotency key, within a day, stands for one request and one answer.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING

import sqlalchemy as sa

from holdfast.base.errors import Busy, KeyReused
from holdfast.control.access.chain import Entry, Outcome, canonical
from holdfast.control.access.schema import acts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from holdfast.base.clock import Clock
    from holdfast.control.access.audit import AuditLog
    from holdfast.control.database import Database

REMEMBERED = timedelta(days=1)
"""How long a key stands for its answer."""

GIVEN_UP = timedelta(hours=1)
"""After how long an act that has not ended is taken for one whose process died."""

MAX_ANSWER_BYTES = 1 << 20

_UNKNOWN_STATUS = 0


@dataclass(frozen=True, slots=True)
class Attempt:
    """An act that somebody is allowed to begin.

    Attributes:
        who: The name of a principal.
        what: The operation.
        about: The thing.
        details: For the audit log; fit for JSON, without secrets.
        key: What makes repetitions of one request known; None for none.
        request_hash: Of everything that makes up the request.
    """

    who: str
    what: str
    about: str
    details: Mapping[str, object]
    key: str | None = None
    request_hash: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered.

    Attributes:
        status: Of HTTP.
        headers: Those that are part of the answer.
        body: None if it must not be kept, since there is a secret in it.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes | None


@dataclass(frozen=True, slots=True)
class Ticket:
    """An act that was begun, and has to be ended with `ActBook.end`."""

    id: str
    attempt: Attempt


class ActBook:
    """Acts under way, and answers that were given. Thread-safe."""

    def __init__(self, database: Database, clock: Clock, audit: AuditLog) -> None:
        self._database = database
        self._clock = clock
        self._audit = audit

    def begin(self, attempt: Attempt) -> Ticket | Answer:
        """Note that an act begins, or find that it was done before.

        Returns:
            A ticket for the act that is to be done now, or the answer of the one that was.

        Raises:
            KeyReused: The key came with another request before.
            Busy: The first request with this key has not ended, as far as is known.
        """
        now_ns = self._clock.now_ns()
        key_hash = None
        if attempt.key is not None:
            named = f"{attempt.who}\0{attempt.key}"
            key_hash = sha256(named.encode("utf-8", "surrogatepass")).hexdigest()
        with self._database.write() as connection:
            self._sweep(connection, now_ns)
            if key_hash is not None:
                known = connection.execute(
                    sa.select(acts).where(acts.c.key_hash == key_hash)
                ).first()
                if known is not None:
                    return _answer(known, attempt)
            ticket = Ticket(secrets.token_hex(16), attempt)
            # Through the entry, so that no text fails the database.
            noted = Entry.of(
                attempt.who, attempt.what, attempt.about, Outcome.UNKNOWN, attempt.details
            )
            connection.execute(
                sa.insert(acts).values(
                    id=ticket.id,
                    begun_ns=now_ns,
                    who=noted.who,
                    what=noted.what,
                    object=noted.about,
                    details=noted.details,
                    key_hash=key_hash,
                    request_hash=attempt.request_hash if key_hash is not None else None,
                )
            )
        return ticket

    def end(
        self,
        ticket: Ticket,
        outcome: Outcome,
        details: Mapping[str, object],
        answer: Answer | None = None,
        about: str | None = None,
    ) -> None:
        """Note how an act ended; durable on return.

        Args:
            ticket: What `begin` gave.
            outcome: How it ended.
            details: More for the audit log, beside what the attempt had.
            answer: What the same key is to be answered from now on. Without one, the same key
                may try again.
            about: The thing, if it got a name only now.
        """
        tried = ticket.attempt
        whole = {**tried.details, **details}
        entry = Entry.of(tried.who, tried.what, about or tried.about, outcome, whole)
        mine = acts.c.id == ticket.id
        keeps = answer is not None and tried.key is not None
        with self._database.write() as connection:
            self._audit.append_on(connection, entry)
            if answer is None or not keeps:
                connection.execute(sa.delete(acts).where(mine))
                return
            body = answer.body
            connection.execute(
                sa.update(acts)
                .where(mine)
                .values(
                    status=answer.status,
                    headers=canonical(answer.headers),
                    body=None if body is None or len(body) > MAX_ANSWER_BYTES else body,
                )
            )

    def tell(self, name: str, entries: Iterable[Entry]) -> None:
        """Put an act into the audit log that was done without this book; durable on return.

        Args:
            name: The act's own. Told again within a day, it changes nothing.
            entries: Its rows.
        """
        with self._database.write() as connection:
            if connection.scalar(sa.select(acts.c.id).where(acts.c.id == name)) is not None:
                return
            told = [*entries]
            for entry in told:
                self._audit.append_on(connection, entry)
            connection.execute(
                sa.insert(acts).values(
                    id=name,
                    begun_ns=self._clock.now_ns(),
                    who=told[0].who if told else "",
                    what=told[0].what if told else "",
                    object=told[0].about if told else "",
                    details="{}",
                    status=_UNKNOWN_STATUS,
                )
            )

    def _sweep(self, connection: sa.Connection, now_ns: int) -> None:
        """Tell the audit log of acts that nobody will end; forget old keys."""
        given_up = acts.c.begun_ns < now_ns - _ns(GIVEN_UP)
        open_ = acts.c.status.is_(None)
        for row in connection.execute(
            sa.select(acts).where(open_, given_up).order_by(acts.c.begun_ns)
        ).all():
            details = {**json.loads(row.details), "begun_ns": row.begun_ns}
            entry = Entry.of(row.who, row.what, row.object, Outcome.UNKNOWN, details)
            self._audit.append_on(connection, entry)
            mine = acts.c.id == row.id
            if row.key_hash is None:
                connection.execute(sa.delete(acts).where(mine))
            else:
                connection.execute(sa.update(acts).where(mine).values(status=_UNKNOWN_STATUS))
        forgotten = acts.c.begun_ns < now_ns - _ns(REMEMBERED)
        connection.execute(sa.delete(acts).where(sa.not_(open_), forgotten))


def _answer(known: sa.Row[tuple[object, ...]], attempt: Attempt) -> Answer:
    if known.request_hash != attempt.request_hash:
        raise KeyReused("this idempotency key came with another request before")
    if known.status in {None, _UNKNOWN_STATUS}:
        raise Busy(
            "the first request with this idempotency key has not ended, or its end is not known",
            "wait; if this stays so, look whether the act was done, then use a new key",
        )
    return Answer(known.status, json.loads(known.headers or "{}"), known.body)


def _ns(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1) * 1000
